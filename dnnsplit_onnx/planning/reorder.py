"""The costs of a graph with its nodes in another order.

A planner over the DAG may choose sets of nodes that are no prefixes of the order at hand.
Put in front, they are prefixes of another one, and priced by the same objective.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.costs import CostTable
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.cuts import Accounting
from dnnsplit_onnx.work.texts import Text


def reordered_costs(
    costs: CostTable,
    order: Sequence[int],
    analysis: Analysis,
    topology: Topology,
    accounting: Accounting,
) -> CostTable:
    """The costs of the same nodes in another order.

    Args:
        costs: The costs in the present order.
        order: The present positions in their new order.
        analysis: The graph, in the new order.
        topology: The tiers of the costs.
        accounting: What a cut is charged.
    """
    rows = [
        _below(row, costs.flops_below, tier, order)
        for row, tier in zip(costs.seconds_below, topology.tiers, strict=True)
    ]
    largest = analysis.pass_nbytes(accounting)
    prefill, step, check = costs.prefill, costs.step, costs.check
    if isinstance(analysis, Text) and prefill is not None and step is not None:
        prefill = reordered_costs(prefill, order, analysis.prefill, topology, accounting)
        step = reordered_costs(step, order, analysis.step, topology, accounting)
        if check is not None and analysis.check is not None:
            check = reordered_costs(check, order, analysis.check, topology, accounting)
    return CostTable(
        seconds_below=np.array(rows),
        flops_below=analysis.flops_below,
        up_nbytes=analysis.cut_nbytes(accounting),
        down_nbytes=analysis.outputs_above,
        memory=None if costs.memory is None else analysis.memory,
        is_custom=costs.is_custom,
        timings=costs.timings,
        passes=costs.passes,
        most_up_nbytes=largest[0],
        most_down_nbytes=largest[1],
        prefill=prefill,
        step=step,
        check=check,
    )


def _below(
    seconds: NDArray[np.float64], flops_below: NDArray[np.int64], tier: Tier, order: Sequence[int]
) -> NDArray[np.float64]:
    """A tier's prefix seconds: FLOPs divided once where that is what they are."""
    if tier.gflops is not None:
        speed = tier.gflops * 1e9
        if np.array_equal(seconds, flops_below / speed):
            flops = np.diff(flops_below)[list(order)]
            divided: NDArray[np.float64] = np.concatenate(([0], np.cumsum(flops))) / speed
            return divided
    return np.concatenate(([0.0], np.cumsum(np.diff(seconds)[list(order)])))
