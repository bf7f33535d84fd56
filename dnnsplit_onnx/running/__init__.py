"""The chain of slices in one process: slices opened and run in turn, states kept between runs."""
