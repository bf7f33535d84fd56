"""Tier 0 as a client: it runs its slice, sends the rest on, and chooses the cut of each request."""
