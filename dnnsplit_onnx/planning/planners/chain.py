"""Plans as paths: for each tier the positions where its stage may stop.

A plan over K tiers is a chain 0 <= s_0 <= ... <= s_{K-1} = n of stops. What a tier allows
of it is the set of its stops and, for each stop, the first start (`first`, ascending in the
stop). Every additive figure is a sum over the chain's steps, so the best chain is a dynamic
program over (tier, stop): linear in the number of positions, for any number of tiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.planning.additive import Additive
from dnnsplit_onnx.planning.figures import Measure
from dnnsplit_onnx.planning.planners.steps import monotone_argmin
from dnnsplit_onnx.planning.planners.wide import Wide
from dnnsplit_onnx.planning.problem import Problem

Positions = NDArray[np.intp]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Chain:
    """The stops of each tier, every one of them on a path from 0 to n.

    Attributes:
        stops: For each tier, ascending positions; (n,) for the last.
        spans: For each tier and stop, the half-open range of starts it may have, as
            places in the stops of the tier below; both ends ascend. Of tier 0, the one
            start is position 0.
    """

    stops: tuple[Positions, ...]
    spans: tuple[tuple[Positions, Positions], ...]

    def starts(self, t: int) -> Positions:
        """Where a stage of tier t may start."""
        return self.stops[t - 1] if t else np.zeros(1, dtype=np.intp)

    @property
    def count(self) -> int:
        """Number of (link, position) pairs, the size of a search."""
        return sum(len(stops) for stops in self.stops[:-1])

    def cuts(self, places: Sequence[int]) -> tuple[int, ...]:
        """The cuts of a path given by its place in each tier's stops, the last tier's left out."""
        return tuple(int(stops[place]) for stops, place in zip(self.stops[:-1], places, strict=False))

    def keep(self, alive: Sequence[NDArray[np.bool_]]) -> Chain | None:
        """The chain with fewer stops, None if no path is left.

        Args:
            alive: For each link, which of its stops to keep.
        """
        first = [self.starts(t)[low] for t, (low, _) in enumerate(self.spans)]
        masks = [*alive, np.ones(1, dtype=np.bool_)]
        stops = [stops[mask] for stops, mask in zip(self.stops, masks, strict=True)]
        return link_up(stops, [low[mask] for low, mask in zip(first, masks, strict=True)])


def chain_of(
    problem: Problem,
    measures: Sequence[Measure],
    bound: float = np.inf,
    positions: Positions | None = None,
) -> Chain | None:
    """The chain of all plans that a problem allows, its limits on sums apart.

    Args:
        problem: The problem.
        measures: The figures in play; those of cuts that are not known close them.
        bound: Seconds that may pass between requests, at every stage and transfer.
        positions: The positions to consider; None takes the candidates where they
            suffice, and all positions elsewhere.

    Returns:
        The chain, None if there is no such plan.
    """
    if problem.rules is not None and problem.rules.contradiction is not None:
        return None
    size = problem.costs.size
    mask = np.ones(size + 1, dtype=np.bool_)
    longest = problem.longest(bound)
    is_bounded = bound < np.inf or problem.has_rates
    if positions is None and not is_bounded and problem.is_dominated(measures):
        positions = np.array(problem.candidates, dtype=np.intp)
    if positions is not None:
        mask[:] = False
        mask[positions] = True
    stops = []
    for t in range(len(problem.topology.links)):
        ok = problem.open[t] & mask & (problem.link_seconds[t] <= longest[1][t])
        for measure in measures:
            ok &= np.isfinite(problem.additive(measure).link[t])
        stops.append(np.flatnonzero(ok))
    stops.append(np.array([size], dtype=np.intp))
    first = []
    for t, window in enumerate(problem.windows(measures)):
        starts = np.zeros(len(stops[t]), dtype=np.intp) if window is None else window[stops[t]]
        if is_bounded:
            within = _first_within if t else _within_from_zero
            starts = np.maximum(starts, within(problem.costs.seconds_below[t], stops[t], longest[0][t]))
        first.append(starts)
    return link_up(stops, first)


def link_up(stops: list[Positions], first: list[Positions]) -> Chain | None:
    """A chain of given stops and first starts, without the stops that no path uses."""
    starts = np.zeros(1, dtype=np.intp)
    for t, (ends, low) in enumerate(zip(stops, first, strict=True)):  # reached from below
        ok = np.searchsorted(starts, low, "left") < np.searchsorted(starts, ends, "right")
        stops[t], first[t] = ends[ok], low[ok]
        starts = stops[t]
    for t in range(len(stops) - 1, 0, -1):  # leading to the top
        ends, low, starts = stops[t], first[t], stops[t - 1]
        # Of the stops at or after a start, the earliest has the earliest first start.
        at = np.searchsorted(ends, starts, "left")
        ok = at < len(ends)
        ok[ok] = low[at[ok]] <= starts[ok]
        stops[t - 1], first[t - 1] = starts[ok], first[t - 1][ok]
    if any(not len(ends) for ends in stops):
        return None
    spans = []
    starts = np.zeros(1, dtype=np.intp)
    for ends, low in zip(stops, first, strict=True):
        spans.append((np.searchsorted(starts, low, "left"), np.searchsorted(starts, ends, "right")))
        starts = ends
    return Chain(tuple(stops), tuple(spans))


def _within_from_zero(below: Floats, stops: Positions, bound: float) -> Positions:
    """Tier 0 starts at 0, or not at all; its prefix seconds may fall (`CostTable.rows`)."""
    return np.where(below[stops] - below[0] <= bound, 0, 1)


def _first_within(below: Floats, stops: Positions, bound: float) -> Positions:
    """The first starts from which stages take at most `bound` seconds, as floats subtract."""
    first = np.searchsorted(below, below[stops] - bound, "left")
    while (late := below[stops] - below[first] > bound).any():
        first[late] = np.searchsorted(below, below[first[late]], "right")
    while (early := (first > 0) & (below[stops] - below[np.maximum(first - 1, 0)] <= bound)).any():
        first[early] = np.searchsorted(below, below[first[early] - 1], "left")
    return first


def least(chain: Chain, figure: Additive) -> tuple[int, ...]:
    """The cuts whose figure is least, compared exactly; waiting up to rounding."""
    value = Wide.zeros(1)
    came: list[Positions] = []
    for t, stops in enumerate(chain.stops):
        starts = chain.starts(t)
        base = value.plus(-figure.below[t][starts])
        if figure.has_waiting(t) or figure.fee(t):
            best = _best_starts(chain, figure, t, base.hi)
        else:
            order = base.order()
            ranks = np.empty_like(order)
            ranks[order] = np.arange(len(order))
            best = range_argmin(ranks, *chain.spans[t])
        value = base.take(best).plus(figure.below[t][stops]).plus(figure.waiting(t, starts[best], stops))
        value = value.plus(np.where(stops > starts[best], figure.fee(t), 0.0))
        if t < len(figure.link):
            value = value.plus(figure.link[t][stops])
        came.append(best)
    return chain.cuts(_walk_back(came))


def about_least(chain: Chain, figure: Additive) -> tuple[int, ...]:
    """The cuts whose figure is least, up to the rounding of float sums; faster than `least`."""
    value = np.zeros(1)
    came: list[Positions] = []
    for t, stops in enumerate(chain.stops):
        best, value = _onward(chain, figure, t, value)
        if t < len(figure.link):
            value += figure.link[t][stops]
        came.append(best)
    return chain.cuts(_walk_back(came))


def _onward(chain: Chain, figure: Additive, t: int, value: Floats) -> tuple[Positions, Floats]:
    """For each stop of tier t the best start, and the least that a path takes up to it."""
    starts, stops = chain.starts(t), chain.stops[t]
    base = value - figure.below[t][starts]
    best = _best_starts(chain, figure, t, base)
    total = base[best] + figure.below[t][stops]
    if figure.has_waiting(t) or figure.fee(t):
        total = total + figure.extra(t, starts[best], stops)
    return best, total


def _best_starts(chain: Chain, figure: Additive, t: int, base: Floats) -> Positions:
    """For each stop of tier t, the start of least `base` and what the stage takes besides."""
    low, high = chain.spans[t]
    if not figure.has_waiting(t) and not figure.fee(t):
        return range_argmin(base, low, high)
    starts, stops = chain.starts(t), chain.stops[t]
    if figure.has_waiting(t):
        best = monotone_argmin(
            low, high, lambda row, at: base[at] + figure.waiting(t, starts[at], stops[row])
        )
    else:
        best = range_argmin(base, low, high)
    # An empty stage, which starts at the stop itself, is free.
    last = high - 1
    is_empty = starts[last] == stops
    busy = base[best] + figure.extra(t, starts[best], stops)
    return np.where(is_empty & (base[last] <= busy), last, best)


def _walk_back(came: list[Positions]) -> list[int]:
    place, places = 0, [0]
    for before in reversed(came[1:]):
        place = int(before[place])
        places.append(place)
    return places[::-1]


def forward(chain: Chain, figure: Additive) -> list[Floats]:
    """For each link and stop, the least that a path from 0 takes up to and over that link."""
    value = np.zeros(1)
    values = []
    for t, stops in enumerate(chain.stops[:-1]):
        _, value = _onward(chain, figure, t, value)
        value = value + figure.link[t][stops]
        values.append(value)
    return values


def backward(chain: Chain, figure: Additive) -> list[Floats]:
    """For each link and stop, the least that a path to n takes beyond that link."""
    value = np.zeros(1)
    values: list[Floats] = []
    for t in range(len(chain.stops) - 1, 0, -1):
        stops, starts = chain.stops[t], chain.starts(t)
        base = value + figure.below[t][stops]
        if t < len(figure.link):
            base = base + figure.link[t][stops]
        # Stops that take a start: from it on, as long as their first start is not later.
        low = np.searchsorted(stops, starts, "left")
        high = np.searchsorted(chain.spans[t][0], np.arange(len(starts)), "right")
        value = _best_stops(figure, t, base, starts, stops, (low, high)) - figure.below[t][starts]
        values.append(value)
    return values[::-1]


def _best_stops(
    figure: Additive,
    t: int,
    base: Floats,
    starts: Positions,
    stops: Positions,
    span: tuple[Positions, Positions],
) -> Floats:
    """For each start of tier t, the least of `base` and what the stage takes besides."""
    if figure.has_waiting(t):
        best = monotone_argmin(*span, lambda row, at: base[at] + figure.waiting(t, starts[row], stops[at]))
    else:
        best = range_argmin(base, *span)
    if not figure.has_waiting(t) and not figure.fee(t):
        return base[best]
    busy = base[best] + figure.extra(t, starts, stops[best])
    is_empty = stops[span[0]] == starts
    return np.where(is_empty, np.minimum(base[span[0]], busy), busy)


def scale(chain: Chain, figure: Additive) -> float:
    """A bound on every partial sum of a figure, for judging rounding errors."""
    total = float(np.abs(figure.below).max(axis=1, initial=0.0).sum()) + sum(map(abs, figure.fees))
    for t, stops in enumerate(chain.stops[:-1]):
        total += float(np.abs(figure.link[t][stops]).max(initial=0.0))
    return total


def range_argmin(keys: NDArray[np.intp] | Floats, low: Positions, high: Positions) -> Positions:
    """The place of the least key in each half-open range; of equal keys, any.

    Args:
        keys: At least one.
        low: First places of the ranges.
        high: Ends of the ranges, none of which is empty.
    """
    if not low.any():
        return _prefix_argmin(keys)[high - 1]
    if (high == len(keys)).all():
        return len(keys) - 1 - _prefix_argmin(keys[::-1])[len(keys) - 1 - low]
    # A sparse table: row j holds the best place of the 2^j keys from each place on.
    rows = [np.arange(len(keys))]
    while 2 ** len(rows) <= (high - low).max():
        half = 2 ** (len(rows) - 1)
        left, right = rows[-1][:-half], rows[-1][half:]
        rows.append(np.where(keys[left] <= keys[right], left, right))
    result = np.empty(len(low), dtype=np.intp)
    levels = np.frexp((high - low).astype(np.float64))[1] - 1
    for level, row in enumerate(rows):
        here = np.flatnonzero(levels == level)
        left, right = row[low[here]], row[high[here] - 2**level]
        result[here] = np.where(keys[left] <= keys[right], left, right)
    return result


def _prefix_argmin(keys: NDArray[np.intp] | Floats) -> Positions:
    least_so_far = np.minimum.accumulate(keys)
    record = np.ones(len(keys), dtype=np.bool_)
    record[1:] = keys[1:] < least_so_far[:-1]
    return np.maximum.accumulate(np.where(record, np.arange(len(keys)), 0))
