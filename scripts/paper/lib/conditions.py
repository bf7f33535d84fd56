"""Conditions under which edge and cloud alone are not free to choose: private data, little memory."""

from __future__ import annotations

from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.cuts import live_values_of_all


def first_gate(model: Analysis, part: float) -> str:
    """The first value that alone crosses a cut with so much of the work below it."""
    least = part * model.flops_below[-1]
    for position, live in enumerate(live_values_of_all(model.graph)):
        if len(live) == 1 and live[0] in model.graph.producer and model.flops_below[position] >= least:
            return live[0]
    return model.graph.outputs[0]


def private_until(topology: Topology, value: str) -> Topology:
    """The topology with a private tier 0, until a value is made."""
    return topology.with_tier(0, private=True).with_limits(private_until=value)


def with_edge_memory(topology: Topology, nbytes: float) -> Topology:
    """The topology with so much memory on tier 0."""
    return topology.with_tier(0, memory_gb=nbytes / 1e9)
