"""What every planner gets and gives: one signature for all.

A planner is a function from a `Problem` to a `Solution`. It may look at the problem's
arrays as it likes; what counts is what `Problem.figures` says of its cuts, which is the one
objective that judges them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.costs import CostTable
from dnnsplit_onnx.cuts import UNKNOWN, staircase
from dnnsplit_onnx.objective import evaluate, link_cost_usd, link_seconds, violations
from dnnsplit_onnx.plans import Figures, Objective, Optimality
from dnnsplit_onnx.topology import Topology


@dataclass(frozen=True)
class Problem:
    """Where to cut a graph of n nodes for K tiers.

    Attributes:
        costs: Seconds and bytes along the graph's order.
        topology: Tiers, links and limits.
        objective: What is to be best. Throughput is maximised, all others minimised.
    """

    costs: CostTable
    topology: Topology
    objective: Objective

    @cached_property
    def candidates(self) -> tuple[int, ...]:
        """The staircase of cuts, and position n where nothing crosses."""
        return (*staircase(self.costs.up_nbytes), self.costs.size)

    @cached_property
    def link_seconds(self) -> NDArray[np.float64]:
        """Shape (K - 1, n + 1): seconds of each link for each cut; infinite where unknown."""
        back = self.topology.limits.return_output
        rows = [link_seconds(link, self.costs, back) for link in self.topology.link]
        return _known(rows, self.costs.size)

    @cached_property
    def link_usd(self) -> NDArray[np.float64]:
        """Shape (K - 1, n + 1): price of each link for each cut; infinite where unknown."""
        back = self.topology.limits.return_output
        rows = [
            link_cost_usd(link, self.costs, back, link_seconds(link, self.costs, back))
            for link in self.topology.link
        ]
        return _known(rows, self.costs.size)

    @cached_property
    def is_known(self) -> NDArray[np.bool_]:
        """Shape (n + 1,): whether the bytes of a cut are known, so that it can be priced."""
        known = self.costs.up_nbytes != UNKNOWN
        known[-1] = True
        if self.topology.limits.return_output:
            known = known & (self.costs.down_nbytes != UNKNOWN)
        return known

    def figures(self, cuts: Sequence[int]) -> Figures:
        """What these cuts take: the judge of every planner."""
        return evaluate(cuts, self.costs, self.topology)

    def violations(self, figures: Figures) -> tuple[str, ...]:
        """The limits that these figures break."""
        return violations(figures, self.topology.limits)

    def is_better(self, one: Figures, other: Figures) -> bool:
        """Whether the first is strictly better in the objective."""
        mine, theirs = one.value(self.objective), other.value(self.objective)
        return mine > theirs if self.objective == "throughput" else mine < theirs

    @cached_property
    def single_tier(self) -> tuple[tuple[int, ...], ...]:
        """For each tier, the cuts that give it everything."""
        count = len(self.topology.tier)
        return tuple(tuple(0 if t < tier else self.costs.size for t in range(count - 1)) for tier in range(count))


@dataclass(frozen=True, slots=True)
class Solution:
    """What a planner chose.

    Attributes:
        cuts: The position each link crosses, from tier 0 up.
        optimality: What is proven of them.
        evaluated: How many cuts, or combinations of cuts, it looked at.
    """

    cuts: tuple[int, ...]
    optimality: Optimality
    evaluated: int


Planner = Callable[[Problem], Solution]


def _known(rows: list[NDArray[np.float64]], size: int) -> NDArray[np.float64]:
    if not rows:
        return np.zeros((0, size + 1))
    table = np.array(rows)
    table[np.isnan(table)] = np.inf
    return table
