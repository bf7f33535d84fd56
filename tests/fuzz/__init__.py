"""Fuzzing: everything that reads bytes from strangers, fed with bytes that a fuzzer finds."""
