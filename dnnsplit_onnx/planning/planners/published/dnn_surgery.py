"""Planner `dnn-surgery`: the partition of a DAG of Liang et al., IEEE Trans. Cloud Comput. 2023.

H. Liang, Q. Sang, C. Hu, D. Cheng, X. Zhou, D. Wang, W. Bao and Y. Wang, "DNN surgery:
Accelerating DNN inference on the edge through layer partitioning", IEEE Transactions on Cloud
Computing 11(3), 2023. It continues DADS (planner `dads`), two tiers again: with T_e, T_t and
T_c the seconds on the edge, on the link and in the cloud, it minimises T_e + T_t + T_c in
light load and max(T_e, T_t, T_c) in heavy load, and studies a system in which what the
cloud may spend on inference is limited.

Its full text is not public. What is public are the abstract, by which networks are directed
acyclic graphs and are partitioned as such, and what Kayal and Leon-Garcia (IEEE Access 2024,
section II-A) say of it: linear where DADS needs a minimum cut, and quadratic if it were done
for three tiers. So this is assumed:

1. For light load, DADS's minimum cuts of the graph, and one linear walk over the cut positions
   of the topological order, whichever is better. Heavy load, rules on nodes, and problems
   without a graph take the walk alone. Where limits bind, the minimum cuts are
   repeated with the cloud's seconds at 3 to 100 times their price, since what is limited is
   what the cloud may spend.
2. A cut sends each value that crosses it once, as DADS's auxiliary vertices have it: what
   the problem charges a cut.
3. The limited system keeps all limits of the problem: of the cuts that do, the best. If none
   does, the best of all, which then says what it breaks.
4. Objective `latency` is light load, `throughput` heavy load. More than two tiers: see
   `published`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.planning.planners.published.dads import minimum_cuts
from dnnsplit_onnx.planning.planners.published.pairs import Pair, need_objective, nowhere, pairs
from dnnsplit_onnx.planning.problem import Problem, Solution

_NAME = "dnn-surgery"
#: Of the cloud's seconds, where limits bind.
_PRICES = (1.0, 3.0, 10.0, 30.0, 100.0)


def plan(problem: Problem) -> Solution:
    """The best cut of the graph or its order, for latency or throughput, within the limits.

    Raises:
        InputError: The objective is another.
        InfeasibleError: There is no position to cut at.
    """
    need_objective(problem, _NAME, "latency", "throughput")
    if not problem.topology.links:
        return Solution((), "none", 1)
    best = _linear(problem)
    if problem.analysis is None or problem.permitted is not None or problem.objective != "latency":
        return best
    figures, looked = problem.figures(best.cuts), best.evaluated
    is_limited = bool(problem.limits) or bool(problem.violations(figures))
    was_kept = not problem.violations(figures)
    for other in minimum_cuts(problem, _PRICES if is_limited else (1.0,)):
        there = problem.in_order(other.order)
        theirs = there.figures(other.cuts)
        is_kept = not there.violations(theirs)
        looked += 1
        if is_kept > was_kept or (is_kept == was_kept and problem.is_better(theirs, figures)):
            best, figures, was_kept = other, theirs, is_kept
    return replace(best, evaluated=looked)


def _linear(problem: Problem) -> Solution:
    """The best single cut of the order that keeps the limits."""
    rows = list(pairs(problem))
    worth = np.array([_worth(pair) for pair in rows])
    hopeful = np.array([_may_keep_limits(pair) for pair in rows]) & np.isfinite(worth)
    for place in np.argsort(worth, axis=None, kind="stable").tolist():
        at, position = divmod(place, worth.shape[1])
        if hopeful[at, position]:
            cuts = rows[at].cuts(position)
            if not problem.violations(problem.figures(cuts)):
                return Solution(cuts, "none", worth.size)
    at, position = divmod(int(worth.argmin()), worth.shape[1])
    if not np.isfinite(worth[at, position]):
        raise nowhere(_NAME)
    return Solution(rows[at].cuts(position), "none", worth.size, ("no single cut keeps the limits",))


def _worth(pair: Pair) -> NDArray[np.float64]:
    """T_e + T_t + T_c, or the largest of them, for each cut."""
    total = pair.total("latency") if pair.problem.objective == "latency" else pair.slowest
    return np.where(pair.is_open, total, np.inf)


def _may_keep_limits(pair: Pair) -> NDArray[np.bool_]:
    """Cuts whose sums are within the limits, or so close that `evaluate` must tell."""
    ok = np.ones(pair.problem.costs.size + 1, dtype=np.bool_)
    for measure, limit in pair.problem.limits.items():
        ok &= pair.total(measure) <= limit * (1 + 1e-9)
    return ok
