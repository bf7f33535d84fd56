"""What is measured or proven by running: the proof, benchmarks, profiles."""
