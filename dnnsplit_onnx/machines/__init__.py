"""What a person says of machines: tiers files, presets of devices, measured profiles."""
