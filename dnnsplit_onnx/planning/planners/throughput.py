"""The best throughput: the least bound on the seconds of every stage and transfer.

Whether a bound can be kept is one sweep over the positions: of the starts that can be
reached, the last one at or before a stop makes the shortest stage, so no other need be
tried. Each sweep that succeeds gives a plan, whose own slowest step is the next bound to
beat; a bisection over the floats in between ends when the next smaller float cannot be
kept. With limits on sums, each bound is a search of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dnnsplit_onnx.planning.figures import Measure
from dnnsplit_onnx.planning.planners.chain import Chain, chain_of
from dnnsplit_onnx.planning.problem import Problem, Solution
from dnnsplit_onnx.planning.waiting import link_station, tier_station

Within = Callable[[Problem, Measure, Chain | None], Solution | None]


def widest(problem: Problem, within: Within) -> Solution | None:
    """The plan whose slowest stage or transfer is fastest; of those, one of least latency.

    Args:
        problem: The problem.
        within: Finds the best plan of a chain under the limits on sums.

    Returns:
        The plan, None if none keeps the limits.
    """
    limits: tuple[Measure, ...] = tuple(problem.limits)
    aim: Measure = limits[0] if limits else "latency"
    evaluated = 0

    def free(bound: float) -> tuple[int, ...] | None:
        nonlocal evaluated
        evaluated += problem.open.size
        return reach(problem, bound, limits)

    def limited(bound: float) -> tuple[int, ...] | None:
        nonlocal evaluated
        found = within(problem, aim, chain_of(problem, limits, bound))
        evaluated += 0 if found is None else found.evaluated
        return None if found is None else found.cuts

    bound = _least_bound(problem, free, 0.0)
    if bound is not None and limits:
        bound = _least_bound(problem, limited, bound)
    if bound is None:
        return None
    # Many plans share a bottleneck: of these, the one with least latency.
    best = within(problem, "latency", chain_of(problem, ("latency", *limits), bound))
    assert best is not None, "a bound that was kept can be kept"
    return Solution(best.cuts, best.optimality, evaluated + best.evaluated, best.notes)


def fastest(problem: Problem) -> tuple[int, ...] | None:
    """Cuts of the fastest pace, limits on sums left out; None if rules and memory forbid all."""
    bound = _least_bound(problem, lambda pace: reach(problem, pace), 0.0)
    return None if bound is None else reach(problem, bound)


def _least_bound(
    problem: Problem, plan_within: Callable[[float], tuple[int, ...] | None], low: float
) -> float | None:
    """The least bound that a plan keeps, at least `low`; None if no plan keeps any."""
    if (cuts := plan_within(low)) is not None:
        return _slowest(problem, cuts)
    if (cuts := plan_within(np.finfo(np.float64).max)) is None:
        return None
    high = _slowest(problem, cuts)
    # Floats of one sign are ordered as their bits are, so halving bits reaches them all.
    below, above = _bits(low), _bits(high)
    while above - below > 1:
        middle = (below + above) // 2
        if (cuts := plan_within(_float(middle))) is None:
            below = middle
        else:
            high = _slowest(problem, cuts)
            above = _bits(high)
    return high


def reach(problem: Problem, bound: float, measures: tuple[Measure, ...] = ()) -> tuple[int, ...] | None:
    """Cuts whose every stage and transfer takes at most `bound` seconds, if there are any."""
    if problem.rules is not None and problem.rules.contradiction is not None:
        return None
    size = problem.costs.size
    index = np.arange(size + 1)
    windows = problem.windows(measures)
    tiers, links = problem.longest(bound)
    start = np.zeros(size + 1, dtype=np.intp)  # the last start at or before each stop
    came = []
    for t, below in enumerate(problem.costs.seconds_below):
        ok = (start >= 0) & (below - below[start] <= tiers[t])
        if (window := windows[t]) is not None:
            ok &= start >= window
        if t < len(problem.topology.links):
            ok &= problem.open[t] & (problem.link_seconds[t] <= links[t])
            for measure in measures:
                ok &= np.isfinite(problem.additive(measure).link[t])
        came.append(start)
        start = np.maximum.accumulate(np.where(ok, index, -1))
    if not ok[size]:
        return None
    cuts = [size]
    for before in reversed(came[1:]):
        cuts.append(int(before[cuts[-1]]))
    return tuple(reversed(cuts[1:]))


def _slowest(problem: Problem, cuts: tuple[int, ...]) -> float:
    figures, topology = problem.figures(cuts), problem.topology
    stages = [tier_station(topology, t).step(stage.seconds) for t, stage in enumerate(figures.stages)]
    links = [link_station(topology, t).step(link.seconds) for t, link in enumerate(figures.links)]
    return max(*stages, *links, 0.0)


def _bits(value: float) -> int:
    return int(np.float64(value).view(np.int64))


def _float(bits: int) -> float:
    return float(np.int64(bits).view(np.float64))
