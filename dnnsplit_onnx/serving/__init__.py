"""A chain of slices across machines.

    wire/       the Open Inference Protocol: bytes, sockets, heads, bounds
    tier/       one tier as a server, and the next tier seen from below
    edge/       tier 0: the client that runs its slice and chooses the cut of each request
    deploy/     tiers started elsewhere
    dashboard/  what the requests did lately, in a browser

Everything here takes a manifest. Only `edge/adaptive` knows of plans.
"""
