"""The Pareto front of latency, cost and throughput, and energy where it is known.

All plans over the graph's order are looked at, as long as there are no more than
`most_plans`: the front is then exact over the order. Of a larger problem, the positions
are thinned to the candidates and, in each slice of equal work, the one with fewest bytes;
the best plan of each single objective is always among those looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import comb

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.errors import RequestError, TopologyError
from dnnsplit_onnx.planning.figures import Figures, Measure, Objective, ParetoPoint
from dnnsplit_onnx.planning.planners import exact
from dnnsplit_onnx.planning.planners.front import nondominated
from dnnsplit_onnx.planning.planners.wide import Wide
from dnnsplit_onnx.planning.problem import Problem
from dnnsplit_onnx.planning.waiting import link_station, tier_station

Cuts = NDArray[np.intp]

_OBJECTIVES: tuple[Objective, ...] = ("latency", "cost", "throughput", "energy")
#: Relative rounding of a float sum, with room to spare.
_SLACK = 1e-9
#: What figures that are equal in exact arithmetic differ by.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Front:
    """Plans that no other beats in every figure.

    Attributes:
        points: The fastest first.
        count: How many there are, of the plans that were looked at.
        complete: Whether all plans along the order were looked at, and `points` has all of the
            front. If not, every point is still unbeaten by any plan that was looked at, and the
            best plan for each single figure is among them.
    """

    points: tuple[ParetoPoint, ...]
    count: int
    complete: bool


def pareto_front(problem: Problem, limit: int = 64, most_plans: int = 200_000) -> Front:
    """Plans that no other beats in every figure, those that break a limit left out.

    Args:
        problem: The problem; its objective does not matter.
        limit: The most points to return; of more, those with the best single figures and
            others spread evenly from the fastest to the slowest.
        most_plans: The most plans to look at.
    """
    positions = np.flatnonzero(problem.open.any(axis=0))
    links = len(problem.topology.links)
    extremes: list[tuple[int, ...]] = []
    is_thinned = _plans(len(positions), links) > most_plans
    if is_thinned:
        positions = _thinned(problem, positions, most_plans)
        extremes = list(_extremes(problem))
    cuts = _combinations(positions, links)
    cuts = np.concatenate((np.array(extremes, dtype=np.intp).reshape(len(extremes), links), cuts))
    cuts = cuts[_allowed(problem, cuts)]
    columns = _columns(problem, cuts)
    kept = _within_limits(problem, cuts, columns)
    front = kept[nondominated([_without_rounding(column[kept]) for column in columns])]
    shown = _spread(columns, front, limit)
    points = tuple(_point(problem.figures(cuts[at].tolist())) for at in shown)
    return Front(points, len(front), not is_thinned and len(shown) == len(front))


def _without_rounding(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """A figure of many plans, those that differ by rounding alone made equal.

    Otherwise a plan that is better by the last digit of one figure and far worse in all
    others would stand on the front.
    """
    order = np.argsort(column, kind="stable")
    ascending = column[order]
    starts = np.ones(len(column), dtype=np.bool_)
    starts[1:] = ascending[1:] > ascending[:-1] * (1 + _ROUNDING)
    alike = np.empty_like(column)
    alike[order] = ascending[starts][np.cumsum(starts) - 1] if len(column) else ascending
    return alike


def _plans(positions: int, links: int) -> int:
    return comb(positions + links - 1, links) if positions else 0


def _combinations(positions: Cuts, links: int) -> Cuts:
    """Shape (plans, links): every nondecreasing choice of positions."""
    cuts = np.zeros((1, 0), dtype=np.intp)
    least = np.zeros(1, dtype=np.intp)  # place of each row's last choice
    for _ in range(links):
        counts = len(positions) - least
        cuts = np.repeat(cuts, counts, axis=0)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        least = np.repeat(least, counts) + np.arange(len(cuts)) - first
        cuts = np.column_stack((cuts, positions[least]))
    return cuts


def _thinned(problem: Problem, positions: Cuts, most_plans: int) -> Cuts:
    """The candidates, and positions spread evenly over the work, as many as may be."""
    links = len(problem.topology.links)
    many = 1
    while _plans(many + 1, links) <= most_plans:
        many += 1
    chosen = _positions(set(positions.tolist()) & set(problem.candidates))[-many:]
    slices = many - len(chosen)
    if slices < 1:
        return chosen
    work = problem.costs.seconds_below[0]
    edges = np.searchsorted(work, np.linspace(0, work[-1], slices + 1)[1:-1])
    nbytes = problem.costs.up_nbytes
    least = [
        part[np.argmin(nbytes[part])]
        for part in np.split(positions, np.searchsorted(positions, edges))
        if len(part)
    ]
    return _positions({*chosen.tolist(), *least})


def _extremes(problem: Problem) -> Iterable[tuple[int, ...]]:
    for objective in _OBJECTIVES:
        try:
            yield exact.along_order(problem.with_objective(objective)).cuts
        except (RequestError, TopologyError):  # no such plan, or its energy is unknown
            continue


def _allowed(problem: Problem, cuts: Cuts) -> NDArray[np.bool_]:
    ok = np.ones(len(cuts), dtype=np.bool_)
    for t in range(cuts.shape[1]):
        ok &= problem.open[t, cuts[:, t]]
    tiers, links = problem.longest()
    for t, (window, (start, stop)) in enumerate(
        zip(problem.windows(()), _stages(problem, cuts), strict=True)
    ):
        if window is not None:
            ok &= start >= window[stop]
        if problem.has_rates:
            seconds = problem.costs.seconds_below[t]
            ok &= seconds[stop] - seconds[start] <= tiers[t]
    for t, most in enumerate(links if problem.has_rates else ()):
        ok &= problem.link_seconds[t][cuts[:, t]] <= most
    return ok


def _stages(problem: Problem, cuts: Cuts) -> Iterable[tuple[Cuts, Cuts]]:
    """Start and stop of each tier, for all plans at once."""
    low = np.zeros(len(cuts), dtype=np.intp)
    high = np.full(len(cuts), problem.costs.size, dtype=np.intp)
    return pairwise([low, *cuts.T, high])


def _columns(problem: Problem, cuts: Cuts) -> list[NDArray[np.float64]]:
    """Latency, cost, seconds of the slowest step, and energy if it is known of any plan."""
    measures: tuple[Measure, ...] = ("latency", "cost", "energy")
    columns = [_sums(problem, cuts, measure) for measure in measures]
    slowest = np.zeros(len(cuts))
    for t, (start, stop) in enumerate(_stages(problem, cuts)):
        seconds = problem.costs.seconds_below[t]
        station = tier_station(problem.topology, t)
        np.maximum(slowest, station.step(seconds[stop] - seconds[start]), out=slowest)
        if problem.topology.tiers[t].watts is None:
            columns[2][seconds[stop] > seconds[start]] = np.inf
    for t, seconds in enumerate(problem.link_seconds):
        station = link_station(problem.topology, t)
        np.maximum(slowest, station.step(seconds[cuts[:, t]]), out=slowest)
    latency, cost, energy = columns
    return [latency, cost, slowest] + ([energy] if np.isfinite(energy).any() else [])


def _sums(problem: Problem, cuts: Cuts, measure: Measure) -> NDArray[np.float64]:
    """An additive figure of all plans, rounded once: ties must stay ties."""
    figure = problem.additive(measure)
    total = Wide.zeros(len(cuts))
    for t, (start, stop) in enumerate(_stages(problem, cuts)):
        below = figure.below[t]
        total = total.plus(below[stop]).plus(-below[start])
        if figure.has_waiting(t):
            total = total.plus(figure.waiting(t, start, stop))
        if figure.fee(t):
            total = total.plus(np.where(stop > start, figure.fee(t), 0.0))
    closed = np.zeros(len(cuts), dtype=np.bool_)
    for t, link in enumerate(figure.link):
        term = link[cuts[:, t]]
        closed |= np.isinf(term)
        total = total.plus(np.where(np.isinf(term), 0.0, term))
    total.hi[closed] = np.inf
    return total.hi


def _within_limits(problem: Problem, cuts: Cuts, columns: list[NDArray[np.float64]]) -> NDArray[np.intp]:
    """Places of the plans that keep the limits; close calls are for `evaluate` to judge."""
    named = dict(zip(("latency", "cost", "slowest", "energy"), columns, strict=False))
    ok = np.ones(len(cuts), dtype=np.bool_)
    close = np.zeros(len(cuts), dtype=np.bool_)
    for measure, limit in problem.limits.items():
        column = named.get(measure, np.full(len(cuts), np.inf))
        slack = _SLACK * (limit + float(np.abs(problem.additive(measure).below).max()))
        ok &= column <= limit + slack
        close |= np.abs(column - limit) <= slack
    for at in np.flatnonzero(ok & close):
        ok[at] = not problem.violations(problem.figures(cuts[at].tolist()))
    return np.flatnonzero(ok)


def _positions(found: Iterable[int]) -> NDArray[np.intp]:
    """Distinct whole numbers in ascending order; numpy's own sets import far more than they need."""
    return np.array(sorted(set(found)), dtype=np.intp)


def _spread(columns: list[NDArray[np.float64]], front: NDArray[np.intp], limit: int) -> NDArray[np.intp]:
    """At most `limit` places of a front in order of latency, the best of each figure kept."""
    if len(front) <= limit:
        return front
    best = [int(np.argmin(column[front])) for column in columns]
    even = np.linspace(0, len(front) - 1, max(limit - len(best), 0)).astype(np.intp)
    return front[_positions({*best, *even.tolist()})[: max(limit, 1)]]


def _point(figures: Figures) -> ParetoPoint:
    return ParetoPoint(
        figures.cuts, figures.latency_s, figures.cost_usd, figures.throughput_per_s, figures.energy_j
    )
