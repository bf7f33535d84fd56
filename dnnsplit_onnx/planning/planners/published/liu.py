"""Planner `liu`: two points between end device, edge server and cloud, Liu et al., FGCS 2023.

G. Liu, F. Dai, X. Xu, X. Fu, W. Dou, N. Kumar and M. Bilal, "An adaptive DNN inference
acceleration framework with end-edge-cloud collaborative computing", Future Generation Computer
Systems 140, 2023. A latency prediction model, neural networks that learn what layers take on each
platform, feeds "a computation partitioning algorithm [...] to identify two optimal partitioning
points", which divides the layers among end device, edge server and cloud for the least latency.

Public is the abstract; Kayal and Leon-Garcia (IEEE Access 2024, section II-B) add that cost is left out,
and that the algorithm looks at every layer. What is assumed:

1. The prediction is whatever the tiers' seconds come from. `profile --predict` fits one here: a
   non-negative regression per kind of node in place of neural networks.
2. Layers are nodes along the topological order. Latency is the sum of three stages and two
   transfers, so for each second point the best first one is the best of those before it: one pass.
3. On a line of more than three tiers, tier 0 and any two above it are tried, data passing through
   the others; on two tiers there is one point.
4. Limits, and waiting at an offered rate, are unknown to it.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from dnnsplit_onnx.planning.planners.published.pairs import need_objective, nowhere, scan
from dnnsplit_onnx.planning.problem import Problem, Solution

_NAME = "liu"


def plan(problem: Problem) -> Solution:
    """The two points of least latency.

    Raises:
        InputError: The objective is not latency.
        InfeasibleError: There is no position to cut at.
    """
    need_objective(problem, _NAME, "latency")
    tiers = len(problem.topology.tiers)
    if tiers < 3:
        return scan(problem, _NAME, lambda pair: sum(pair.computed("latency")) + pair.transfer)
    best, least = None, np.inf
    for middle, top in combinations(range(1, tiers), 2):
        value, first, second = _points(problem, middle, top)
        if value < least:
            above = len(problem.topology.links) - top
            best = (first,) * middle + (second,) * (top - middle) + (problem.costs.size,) * above
            least = value
    if best is None:
        raise nowhere(_NAME)
    return Solution(best, "none", (problem.costs.size + 1) * (tiers - 1) * (tiers - 2) // 2)


def _points(problem: Problem, middle: int, top: int) -> tuple[float, int, int]:
    """The least latency on three tiers, and the two points that take it."""
    below, closed = problem.costs.seconds_below, np.where(problem.open, 0.0, np.inf)
    links = problem.link_seconds + closed
    first = below[0] - below[middle] + links[:middle].sum(axis=0)
    second = below[middle] - below[top] + links[middle:top].sum(axis=0)
    rest = float(below[top, -1] + links[top:, -1].sum())
    total = np.minimum.accumulate(first) + second
    at = int(total.argmin())
    return float(total[at]) + rest, int(first[: at + 1].argmin()), at
