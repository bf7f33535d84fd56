"""Measuring, on the machine at hand: what a model takes, and what a link carries.

    segments.py  a model, cut at a few places, timed part by part
    nodes.py     a model, timed node by node, through onnxruntime's fusions
    link.py      bandwidth and delay to a listening peer

What they find is a `profiles.Profile`, or figures for the tiers file.
"""
