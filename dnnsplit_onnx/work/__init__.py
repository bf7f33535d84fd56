"""What a model asks of any machine: FLOPs, bytes of cuts, memory of stages, and an order of its nodes."""
