"""Bytes between machines: the Open Inference Protocol over HTTP/1.1 and gRPC, bounded and timed."""
