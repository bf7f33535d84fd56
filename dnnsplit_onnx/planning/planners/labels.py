"""The best plan under limits: a Pareto-label dynamic program, exact.

A label is a partial plan up to a stop of a tier, with its sum in every figure in play. A
label that another at the same stop beats in all of them can be dropped, and so can one that
no completion brings within the limits or below a plan already known. What bounds completions:

1. for each figure alone, the least that the rest of a path can take (`backward`);
2. for the Lagrangian, objective + sum of lambda * figure, the same; it is the sharper one
   where limits bind.

Bounds are plain floats with a slack for their rounding; labels are added and compared
exactly (`wide`); and what is left at the end is judged by `Problem.figures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.planning.additive import Additive
from dnnsplit_onnx.planning.planners.chain import Chain, Floats, Positions, backward, forward, scale
from dnnsplit_onnx.planning.planners.front import nondominated
from dnnsplit_onnx.planning.planners.wide import Wide

#: Rounding of a float sum, relative to the size of its terms.
_SLACK = 2.0**-46
#: Pairs of labels and stops that may be looked at, for each label that may be kept.
_LOOKS = 25


@dataclass(frozen=True)
class Bound:
    """A figure, what it may not exceed, and the least that completions take of it.

    Attributes:
        weights: The figure as a combination of those that labels carry.
        limit: What whole paths may take, rounding errors allowed for.
        rest: For each link and stop, the least of the rest of the path.
    """

    weights: tuple[float, ...]
    limit: float
    rest: list[Floats]


def bound_of(chain: Chain, figures: Sequence[Additive], weights: Sequence[float], limit: float) -> Bound:
    """The bound for a weighted sum of figures."""
    total = combine(figures, weights)
    return Bound(tuple(weights), limit + _SLACK * (scale(chain, total) + abs(limit)), backward(chain, total))


def combine(figures: Sequence[Additive], weights: Sequence[float]) -> Additive:
    """A weighted sum of figures."""
    below, link = np.zeros_like(figures[0].below), np.zeros_like(figures[0].link)
    fees: tuple[float, ...] = ()
    waits: tuple[float, ...] = ()
    for weight, figure in zip(weights, figures, strict=True):
        if weight:  # else nothing times infinity
            below, link = below + weight * figure.below, link + weight * figure.link
            fees = _plus(fees, figure.fees, weight)
            waits = _plus(waits, figure.waits, weight)
    queues = next((figure.queues for figure in figures if figure.queues is not None), None)
    return Additive(below, link, fees, waits, queues)


def _plus(total: tuple[float, ...], terms: tuple[float, ...], weight: float) -> tuple[float, ...]:
    if not total or not terms:
        return total or tuple(weight * term for term in terms)
    return tuple(one + weight * term for one, term in zip(total, terms, strict=True))


def prune(chain: Chain, figures: Sequence[Additive], bounds: Sequence[Bound]) -> Chain | None:
    """The chain without the stops that no path within every bound uses."""
    alive = [np.ones(len(stops), dtype=np.bool_) for stops in chain.stops[:-1]]
    for bound in bounds:
        if bound.limit == np.inf:
            continue
        before = forward(chain, combine(figures, bound.weights))
        for t, (here, rest) in enumerate(zip(before, bound.rest, strict=True)):
            alive[t] &= here + rest <= bound.limit
    return chain.keep(alive)


class TooManyLabelsError(Exception):
    """The search would take more memory than it may."""


@dataclass
class _Level:
    """The labels at the stops of a tier, in ascending order of their stops."""

    place: Positions
    sums: list[Wide]
    parent: Positions


def search(
    chain: Chain, figures: Sequence[Additive], bounds: Sequence[Bound], most: int = 4_000_000
) -> tuple[list[tuple[int, ...]], int]:
    """The cuts of the plans within the bounds that no other plan beats in every figure.

    Args:
        chain: The plans.
        figures: What labels carry; the first is the objective.
        bounds: What paths must keep to; made on this chain.
        most: How many labels there may be.

    Returns:
        Cuts, the best objective first, and the number of labels made.

    Raises:
        TooManyLabelsError: There are more than `most`.
    """
    start = np.zeros(1, dtype=np.intp)
    levels = [_Level(start, [Wide.zeros(1) for _ in figures], start)]
    made = 0
    for t in range(len(chain.stops)):
        levels.append(_step(chain, t, levels[-1], figures, bounds, most - made))
        made += len(levels[-1].place)
    last = levels[-1]
    order = nondominated([sums.ranks() for sums in last.sums])
    return [_cuts(chain, levels, int(label)) for label in order], made


def _cuts(chain: Chain, levels: list[_Level], label: int) -> tuple[int, ...]:
    places = []
    for level in reversed(levels[1:]):
        places.append(int(level.place[label]))
        label = int(level.parent[label])
    return chain.cuts(places[::-1])


def _step(
    chain: Chain, t: int, below: _Level, figures: Sequence[Additive], bounds: Sequence[Bound], most: int
) -> _Level:
    """The labels at the stops of tier t, from those at its starts."""
    if any(figure.has_waiting(t) or figure.fee(t) for figure in figures):
        return _step_of_pairs(chain, t, below, figures, bounds, most)
    starts, stops = chain.starts(t), chain.stops[t]
    # Less the prefix up to the start, a label adds the same to every label at a stop, so
    # which labels dominate does not depend on the stop.
    bases = [
        sums.plus(-figure.below[t][starts[below.place]])
        for sums, figure in zip(below.sums, figures, strict=True)
    ]
    ranks = [base.ranks() for base in bases]
    low = np.searchsorted(below.place, chain.spans[t][0], "left")
    high = np.searchsorted(below.place, chain.spans[t][1], "left")
    parents: list[Positions] = []
    counts = np.zeros(len(stops), dtype=np.intp)
    front, seen = np.zeros(0, dtype=np.intp), 0
    for stop in range(len(stops)):
        if low[stop] > 0 or seen < high[stop]:
            fresh = np.arange(max(seen, int(low[stop])), high[stop])
            # A label that left the window may have hidden others, so begin anew.
            pool = np.concatenate((front, fresh)) if low[stop] == 0 else np.arange(low[stop], high[stop])
            front = pool[nondominated([rank[pool] for rank in ranks])]
            seen = int(high[stop])
        within = _within(bases, front, figures, bounds, t, stop, int(stops[stop]))
        parents.append(within)
        counts[stop] = len(within)
        most -= len(within)
        if most < 0:
            raise TooManyLabelsError
    parent = np.concatenate(parents)
    place = np.repeat(np.arange(len(stops)), counts)
    sums = []
    for base, figure in zip(bases, figures, strict=True):
        total = base.take(parent).plus(figure.below[t][stops[place]])
        if t < len(figure.link):
            total = total.plus(figure.link[t][stops[place]])
        sums.append(total)
    return _Level(place, sums, parent)


def _step_of_pairs(
    chain: Chain, t: int, below: _Level, figures: Sequence[Additive], bounds: Sequence[Bound], most: int
) -> _Level:
    """As `_step`, where what a stage takes depends on its start and stop together."""
    starts, stops = chain.starts(t), chain.stops[t]
    bases = [
        sums.plus(-figure.below[t][starts[below.place]])
        for sums, figure in zip(below.sums, figures, strict=True)
    ]
    low = np.searchsorted(below.place, chain.spans[t][0], "left")
    high = np.searchsorted(below.place, chain.spans[t][1], "left")
    places: list[Positions] = []
    parents: list[Positions] = []
    levels: list[list[Wide]] = []
    work = most * _LOOKS
    for stop, position in enumerate(stops.tolist()):
        pool = np.arange(low[stop], high[stop])
        work -= len(pool)
        begins = starts[below.place[pool]]
        sums = []
        for base, figure in zip(bases, figures, strict=True):
            total = base.take(pool).plus(figure.below[t][position])
            total = total.plus(figure.waiting(t, begins, np.full(len(pool), position)))
            total = total.plus(np.where(begins < position, figure.fee(t), 0.0))
            sums.append(total if t == len(figure.link) else total.plus(figure.link[t][position]))
        kept = _kept(sums, bounds, t, stop)
        kept = kept[nondominated([total.take(kept).ranks() for total in sums])]
        most -= len(kept)
        if most < 0 or work < 0:
            raise TooManyLabelsError
        places.append(np.full(len(kept), stop))
        parents.append(pool[kept])
        levels.append([total.take(kept) for total in sums])
    joined = [
        Wide(*(np.concatenate(parts) for parts in zip(*column, strict=True)))
        for column in zip(*levels, strict=True)
    ]
    return _Level(np.concatenate(places), joined, np.concatenate(parents))


def _kept(sums: list[Wide], bounds: Sequence[Bound], t: int, stop: int) -> Positions:
    """The labels at a stop that stay within every bound."""
    ok: NDArray[np.bool_] = np.ones(len(sums[0].hi), dtype=np.bool_)
    for bound in bounds:
        if t < len(bound.rest):
            terms = zip(bound.weights, sums, strict=True)
            total = sum(weight * term.hi for weight, term in terms if weight)
            ok &= total + bound.rest[t][stop] <= bound.limit
    return np.flatnonzero(ok)


def _within(
    bases: list[Wide],
    front: Positions,
    figures: Sequence[Additive],
    bounds: Sequence[Bound],
    t: int,
    stop: int,
    position: int,
) -> Positions:
    """The labels that stay within every bound if this tier stops here."""
    if t == len(figures[0].link):
        return front
    sums = [
        base.hi[front] + (figure.below[t][position] + figure.link[t][position])
        for base, figure in zip(bases, figures, strict=True)
    ]
    ok: NDArray[np.bool_] = np.ones(len(front), dtype=np.bool_)
    for bound in bounds:
        total = sum(weight * term for weight, term in zip(bound.weights, sums, strict=True) if weight)
        ok &= total + bound.rest[t][stop] <= bound.limit
    return front[ok]
