"""One tier as a server: its slices, the requests that it takes, and the next tier that it calls."""
