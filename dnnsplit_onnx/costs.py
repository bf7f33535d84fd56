"""Seconds: what a workload takes on each tier of a topology.

A cost table is all that planning knows of model and machines. Stage seconds are
differences of prefix sums; with tiers given by `gflops` alone, those are exact integers of
FLOPs divided once, so nodes without work cost exactly nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.cuts import Accounting
from dnnsplit_onnx.topology import Topology
from dnnsplit_onnx.workload import Workload


@dataclass(frozen=True)
class CostTable:
    """Costs of a graph of n nodes on K tiers, along the graph's order.

    Attributes:
        seconds_below: Shape (K, n + 1): seconds that tier t needs for the first i nodes.
        flops_below: Shape (n + 1,): FLOPs of the first i nodes.
        up_nbytes: Shape (n + 1,): bytes that cross the cut at each position; `UNKNOWN`
            where that cannot be known.
        down_nbytes: Shape (n + 1,): bytes of model outputs made above each position.
    """

    seconds_below: NDArray[np.float64]
    flops_below: NDArray[np.int64]
    up_nbytes: NDArray[np.int64]
    down_nbytes: NDArray[np.int64]

    @property
    def size(self) -> int:
        """Number of nodes, n."""
        return len(self.flops_below) - 1


def cost_table(workload: Workload, topology: Topology, accounting: Accounting = "live") -> CostTable:
    """The cost table of a workload on a topology.

    Args:
        workload: The model's work and bytes.
        topology: The tiers.
        accounting: What a cut is charged: `live`, or the paper's `layer-input`.
    """
    below = workload.flops_below
    rates = np.array([[tier.gflops * 1e9] for tier in topology.tier])
    return CostTable(below / rates, below, workload.cut_nbytes(accounting), workload.outputs_above)
