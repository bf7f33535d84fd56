"""Planner `decc`: two or three parts, as Chen et al. divide a network, IPCCC 2021.

J. Chen, Q. Qi, J. Wang, H. Sun and J. Liao, "Accelerating DNN inference by edge-cloud
collaboration", IEEE IPCCC 2021. A network is divided dynamically "into two or three parts",
distributed over edge and cloud, for the lowest delay at the request rate at hand: a layer
evaluation model gives each layer's time, and a total delay prediction model, which knows the
request rate, the delay of each choice of partition points; the best choice is taken.

Its full text is not public. What is assumed:

1. Partition points are the positions of the topological order, and every choice of one or
   two of them is predicted: quadratic for three parts.
2. Parts run on consecutive machines away from the data. On a line of more than three tiers
   those are tier 0 and any two above it, data passing through the others; the best are taken.
3. The request rate is the workload's `requests_per_s`: the delay is then the sum of stages,
   transfers and the waiting for them, by this package's queues (`planning.waiting`). Without a
   rate no request waits. Objective `throughput` is the highest rate that any division
   sustains: the slowest stage or transfer is minimised.
4. Limits are unknown to it: its plan may break them, and then says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.planning.planners.published.pairs import need_objective, nowhere, scan
from dnnsplit_onnx.planning.problem import Problem, Solution

#: Two partition points of larger graphs are too many choices.
MOST_NODES = 10_000

_NAME = "decc"
_Floats = NDArray[np.float64]


def plan(problem: Problem) -> Solution:
    """The best division into up to three parts, for latency or throughput.

    Raises:
        InputError: The objective is another, or the graph is too large.
        InfeasibleError: There is no position to cut at.
    """
    need_objective(problem, _NAME, "latency", "throughput")
    is_sum = problem.objective == "latency"
    if len(problem.topology.tiers) < 3:
        return scan(problem, _NAME, lambda pair: pair.delay if is_sum else pair.slowest)
    if problem.costs.size > MOST_NODES:
        raise InputError(
            f"planner `{_NAME}` tries every pair of positions, and stops at {MOST_NODES:,} nodes",
            hint="use planner `exact`: its answer is no worse",
        )
    best, least, looked = None, np.inf, 0
    for middle, top in combinations(range(1, len(problem.topology.tiers)), 2):
        parts = _Parts(problem, middle, top)
        for first, delays in enumerate(parts.delays(is_sum=is_sum)):
            second = int(delays.argmin())
            looked += len(delays)
            if delays[second] < least:
                best, least = parts.cuts(first, first + second), delays[second]
    if best is None:
        raise nowhere(_NAME)
    return Solution(best, "none", looked)


class _Parts:
    """Three parts: on tier 0, a middle tier and a top one."""

    def __init__(self, problem: Problem, middle: int, top: int) -> None:
        self.problem, self.middle, self.top = problem, middle, top
        rows = problem.open
        is_sum = problem.objective == "latency"
        links = problem.additive("latency").link if is_sum else problem.link_seconds
        self.lower = np.where(rows[:middle].all(axis=0), 0.0, np.inf)
        self.upper = np.where(rows[middle:top].all(axis=0) & rows[top:, -1].all(), 0.0, np.inf)
        self.links = links[:middle], links[middle:top]

    def cuts(self, first: int, second: int) -> tuple[int, ...]:
        """The plan of two partition points."""
        above = len(self.problem.topology.links) - self.top
        between = self.top - self.middle
        return (first,) * self.middle + (second,) * between + (self.problem.costs.size,) * above

    def delays(self, *, is_sum: bool) -> Iterator[_Floats]:
        """For each first point, the delay of every second point from it on.

        Args:
            is_sum: Whether the delay is the sum of stages and transfers, or the slowest.
        """
        edge, middle, top = (self.problem.costs.seconds_below[t] for t in (0, self.middle, self.top))
        add = np.add if is_sum else np.maximum
        start, end = (add.reduce(rows, axis=0) for rows in self.links)
        start, last = start + self.lower, add(top[-1] - top, end + self.upper)
        for first in range(len(edge)):
            head = add(edge[first], start[first])
            delays = add(head, add(middle[first:] - middle[first], last[first:]))
            yield delays + self._waiting(first) if is_sum else delays

    def _waiting(self, first: int) -> _Floats:
        """Seconds that a request waits for the three tiers, for every second point."""
        figure, size = self.problem.additive("latency"), self.problem.costs.size
        seconds = np.arange(first, size + 1)
        firsts = np.full(len(seconds), first)
        total: _Floats = figure.waiting(0, np.zeros_like(firsts), firsts)
        total = total + figure.waiting(self.middle, firsts, seconds)
        return total + figure.waiting(self.top, seconds, np.full(len(seconds), size))
