"""Cuts and codes together, exact.

A state of the search is a position and a code: place p * C + c for C codes, `raw` the first. A tier
without work passes on what arrives in the code that it has, so which tiers work is settled first:
all ways of it, 2^(K-1), tier 0 always among them. Each leaves a chain of the tiers that work, whose
cuts ascend strictly, and the links between two of them become one that carries one code:

    figure of a merged link = that of its links, + rate below * encode + rate above * decode

which is one more term for each cut. So sums are planned by the searches that plan without codes
(`exact.within`), over a longer axis. Throughput puts the seconds of codes where they are spent, on
the tiers: a sweep for each bound, or labels that carry the slowest step, if sums are limited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.errors import InfeasibleError
from dnnsplit_onnx.planning.additive import Additive
from dnnsplit_onnx.planning.figures import Figures, Measure
from dnnsplit_onnx.planning.objective import weigh
from dnnsplit_onnx.planning.planners.chain import Chain, Positions
from dnnsplit_onnx.planning.planners.front import nondominated
from dnnsplit_onnx.planning.problem import Problem, Solution
from dnnsplit_onnx.work.codes import RAW, base, is_allowed

Floats = NDArray[np.float64]
Within = Callable[[Problem, Measure, "Chain | None"], "Solution | None"]

#: Partial plans that a search for throughput under limits may keep.
MOST_LABELS = 1_000_000


@dataclass(frozen=True)
class StrictChain(Chain):
    """A chain whose stops ascend strictly in position, whatever their codes.

    Attributes:
        codes: How many places a position has.
    """

    codes: int = 1

    def keep(self, alive: Sequence[NDArray[np.bool_]]) -> StrictChain | None:
        """As `Chain.keep`."""
        first = [self.starts(t)[low] for t, (low, _) in enumerate(self.spans)]
        masks = [*alive, np.ones(1, dtype=np.bool_)]
        stops = [stops[mask] for stops, mask in zip(self.stops, masks, strict=True)]
        return strictly(stops, [low[mask] for low, mask in zip(first, masks, strict=True)], self.codes)


def strictly(stops: list[Positions], first: list[Positions], codes: int) -> StrictChain | None:
    """The chain of some stops and first starts, without the stops that no path uses."""
    while True:
        spans = []
        starts = np.zeros(1, dtype=np.intp)
        for t, (ends, low) in enumerate(zip(stops, first, strict=True)):
            before = ends // codes * codes if t else ends + 1
            spans.append((np.searchsorted(starts, low, "left"), np.searchsorted(starts, before, "left")))
            starts = ends
        masks = [low < high for low, high in spans]
        for t, (low, high) in enumerate(spans[1:]):  # leading to the top
            used = np.zeros(len(stops[t]) + 1, dtype=np.intp)
            np.add.at(used, low[low < high], 1)
            np.add.at(used, high[low < high], -1)
            masks[t] &= np.cumsum(used)[:-1] > 0
        if not all(mask.any() for mask in masks):
            return None
        if all(mask.all() for mask in masks):
            return StrictChain(tuple(stops), tuple(spans), codes)
        stops = [ends[mask] for ends, mask in zip(stops, masks, strict=True)]
        first = [low[mask] for low, mask in zip(first, masks, strict=True)]


@dataclass(frozen=True)
class Merged(Problem):
    """A problem whose other tiers have no work, over positions and codes.

    Its cuts are places of the longer axis, one for each tier at work but the last.

    Attributes:
        base: The problem.
        working: The tiers at work, tier 0 first even if it only writes the inputs.
        banned: Positions and codes that are not to be used.
    """

    base: Problem | None = None
    working: tuple[int, ...] = (0,)
    banned: frozenset[tuple[int, str]] = frozenset()

    @property
    def whole(self) -> Problem:
        """The problem that this is a part of."""
        assert self.base is not None, "it is made of one"
        return self.base

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The codes, in the order of places."""
        return (RAW, *self.whole.costs.codes)

    def split(self, cuts: Sequence[int]) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """The cut and the code of each link."""
        size, links = self.whole.costs.size, len(self.topology.links)
        positions, codes = [size] * links, [RAW] * links
        for (low, high), place in zip(pairwise(self.working), cuts, strict=True):
            for link in range(low, high):
                positions[link], codes[link] = place // len(self.names), self.names[place % len(self.names)]
        return tuple(positions), tuple(codes)

    def figures(self, cuts: Sequence[int], codes: Sequence[str] | None = None) -> Figures:
        """What these places take."""
        assert codes is None, "places hold them"
        return self.whole.figures(*self.split(cuts))

    def violations(self, figures: Figures) -> tuple[str, ...]:
        """What the problem says of these figures."""
        return self.whole.violations(figures)

    def spread(self, rows: Mapping[str, Floats]) -> Floats:
        """One row along the longer axis, from one a code."""
        return np.stack([rows[name] for name in self.names], axis=1).reshape(-1)

    def additive(self, measure: Measure) -> Additive:
        """A figure along the longer axis; codes are priced with the merged links."""
        return self._additive[measure]

    @cached_property
    def _additive(self) -> dict[Measure, Additive]:
        wanted: list[Measure] = ["latency", "cost", "energy"]
        if self.weights is not None:
            wanted.append("weighted")
        return {measure: self._sum(measure) for measure in wanted}

    def _sum(self, measure: Measure) -> Additive:
        own = {name: self.whole.in_code(name).additive(measure) for name in self.names}
        rates = [self._rate(tier, measure) for tier in self.working]
        below = np.repeat(own[RAW].below[list(self.working)], len(self.names), axis=1)
        rows = []
        for (low, high), (under, over) in zip(pairwise(self.working), pairwise(rates), strict=True):
            row = self.spread({name: figure.link[low:high].sum(axis=0) for name, figure in own.items()})
            writing = self._priced(low, under, self.encode_s(low), measure)
            rows.append(row + writing + self._priced(high, over, self.decode_s(high), measure))
        return Additive(below, np.array(rows).reshape(len(rows), below.shape[1]))

    def _priced(self, tier: int, rate: float, seconds: Floats, measure: Measure) -> Floats:
        """What seconds of codes take; infinite where a tier without watts would spend energy."""
        if self.topology.tiers[tier].watts is None and self.whole.needs_energy((measure,)):
            return np.where(seconds > 0, np.inf, 0.0)
        return rate * seconds

    def _rate(self, tier: int, measure: Measure) -> float:
        """What a second of a tier takes of a figure."""
        row = self.topology.tiers[tier]
        watts = self.topology.tier_watts[tier] or 0.0
        if measure == "weighted":
            assert self.weights is not None, "the figure is asked for"
            return float(weigh(self.weights, 1.0, row.usd_per_s, watts))
        return {"latency": 1.0, "cost": row.usd_per_s, "energy": watts}[measure]

    def encode_s(self, tier: int) -> Floats:
        """Seconds in which a tier writes what leaves it, along the longer axis."""
        none = np.zeros(self.whole.costs.size + 1)
        costs = self.whole.costs.codes
        return self.spread({RAW: none, **{name: one.encode_s[tier] for name, one in costs.items()}})

    def decode_s(self, tier: int) -> Floats:
        """Seconds in which a tier reads what arrives, along the longer axis."""
        none = np.zeros(self.whole.costs.size + 1)
        costs = self.whole.costs.codes
        return self.spread({RAW: none, **{name: one.decode_s[tier] for name, one in costs.items()}})

    def chain(self, measures: Sequence[Measure]) -> StrictChain | None:
        """All plans in which these tiers work, limits on sums apart."""
        size, count = self.whole.costs.size, len(self.names)
        windows = self.whole.windows(measures)
        top = self.working[-1]
        for link in range(top, len(self.topology.links)):  # links above the last: nothing remains to send
            if not self.whole.open[link, size] or any(
                not np.isfinite(self.whole.additive(measure).link[link, size]) for measure in measures
            ):
                return None
        stops, first = [], []
        for at, tier in enumerate(self.working):
            last = at == len(self.working) - 1
            ends = np.array([size * count]) if last else np.flatnonzero(self._open(at, measures))
            window = windows[tier]
            low = np.zeros(len(ends), dtype=np.intp) if window is None else window[ends // count] * count
            stops.append(ends.astype(np.intp))
            first.append(low.astype(np.intp))
        return strictly(stops, first, count)

    def _open(self, at: int, measures: Sequence[Measure]) -> NDArray[np.bool_]:
        """Which places the links above a tier at work may be cut at; the last position sends nothing."""
        low, high = self.working[at], self.working[at + 1]
        links = self.topology.links[low:high]
        rows = {}
        for name in self.names:
            one = self.whole.in_code(name)
            ok = np.asarray(one.open[low:high].all(axis=0), dtype=np.bool_)
            if name != RAW:
                ok = ok & self.whole.costs.codes[name].applies
                ok = ok & all(is_allowed(name, link.codes) for link in links)
            for position, banned in self.banned:
                ok[position] &= banned != base(name)
            ok[-1] = False
            rows[name] = ok
        ok = np.stack([rows[name] for name in self.names], axis=1).reshape(-1)
        for measure in measures:
            ok &= np.isfinite(self.additive(measure).link[at])
        return np.asarray(ok, dtype=np.bool_)


def plan(
    problem: Problem, within: Within, banned: frozenset[tuple[int, str]] = frozenset()
) -> Solution | None:
    """The best plan over positions and codes, None if none keeps to the limits.

    Args:
        problem: The problem; its objective is no function of the user's own.
        within: Finds the best plan of a chain under the limits on sums.
        banned: Positions and codes that are not to be used.
    """
    best: tuple[Figures, Solution] | None = None
    evaluated = 0
    for working in _ways(len(problem.topology.tiers)):
        merged = Merged(**_fields(problem), base=problem, working=working, banned=banned)
        found = _best_of(merged, within)
        if found is None:
            continue
        evaluated += found.evaluated
        cuts, codes = merged.split(found.cuts)
        figures = problem.figures(cuts, codes)
        if best is None or _is_better(problem, figures, best[0]):
            best = figures, replace(found, cuts=cuts, codes=codes)
    return None if best is None else replace(best[1], evaluated=evaluated)


def _is_better(problem: Problem, one: Figures, other: Figures) -> bool:
    if problem.is_better(one, other):
        return True
    return not problem.is_better(other, one) and one.latency_s < other.latency_s


def _ways(tiers: int) -> Iterator[tuple[int, ...]]:
    """Every choice of tiers at work, tier 0 in all."""
    for count in range(tiers):
        for others in combinations(range(1, tiers), count):
            yield (0, *others)


def _fields(problem: Problem) -> dict[str, Any]:
    return {field.name: getattr(problem, field.name) for field in fields(Problem)}


def _best_of(merged: Merged, within: Within) -> Solution | None:
    if merged.objective == "throughput":
        return _widest(merged)
    assert merged.objective != "custom", "functions are tried, not planned"
    chain = merged.chain((merged.objective, *merged.limits))
    if chain is None:
        return None
    if len(merged.working) == 1:
        alone = Solution((), "order", 1)
        return None if merged.violations(merged.figures(())) else alone
    return within(merged, merged.objective, chain)


def _widest(merged: Merged) -> Solution | None:
    """The plan whose slowest step is fastest; of those, one of least latency.

    Without limits that takes two sweeps: one for the step, one for latency within it. Under limits
    labels carry the limited sums beside the step.
    """
    limits: tuple[Measure, ...] = tuple(merged.limits)
    chain = merged.chain(limits)
    if chain is None:
        return None
    if limits:
        return _Labels(merged, chain, (*limits, "latency")).best()
    fastest = _Labels(merged, chain, ()).best()
    if fastest is None:
        return None
    bound = 1 / merged.figures(fastest.cuts).throughput_per_s * (1 + 1e-12)
    found = _Labels(merged, chain, ("latency",), bound).best() or fastest
    return replace(found, evaluated=fastest.evaluated + found.evaluated)


class _Labels:
    """Partial plans up to a stop, none of which another beats in its sums and its slowest step."""

    def __init__(
        self, merged: Merged, chain: StrictChain, measures: Sequence[Measure], bound: float | None = None
    ) -> None:
        self.merged, self.chain, self.bound = merged, chain, bound
        self.sums = [merged.additive(measure) for measure in measures]
        self.limits = [merged.limits.get(measure, np.inf) for measure in measures]
        count = len(merged.names)
        self.link_s = np.array(
            [
                merged.spread(
                    {
                        name: merged.whole.in_code(name).link_seconds[low:high].max(axis=0)
                        for name in merged.names
                    }
                )
                for low, high in pairwise(merged.working)
            ]
        ).reshape(len(merged.working) - 1, (merged.whole.costs.size + 1) * count)
        self.made = 0

    def best(self) -> Solution | None:
        """The whole plan with the fastest slowest step that keeps the limits."""
        levels = [(np.zeros(1, np.intp), np.zeros((1, len(self.sums))), np.zeros(1), np.zeros(1, np.intp))]
        for t in range(len(self.chain.stops)):
            levels.append(self._step(t, *levels[-1][:3]))
        _, sums, slowest, _ = levels[-1]
        last = sums[:, -1] if len(self.sums) else slowest
        for label in np.lexsort((last, slowest)).tolist():
            places, at = [], label
            for place, _, _, parent in reversed(levels[1:]):
                places.append(int(place[at]))
                at = int(parent[at])
            cuts = self.chain.cuts(places[::-1])
            if not self.merged.violations(self.merged.figures(cuts)):
                return Solution(cuts, "order", self.made)
        return None

    def _step(
        self, t: int, place: Positions, sums: Floats, slowest: Floats
    ) -> tuple[Positions, Floats, Floats, Positions]:
        merged, chain = self.merged, self.chain
        tier = merged.working[t]
        starts, stops = chain.starts(t), chain.stops[t]
        is_last = t == len(chain.stops) - 1
        work = np.repeat(merged.whole.costs.seconds_below[tier], len(merged.names))
        read = merged.decode_s(tier) if t else np.zeros(len(work))
        write = np.zeros(len(work)) if is_last else merged.encode_s(tier)
        low = np.searchsorted(place, chain.spans[t][0], "left")
        high = np.searchsorted(place, chain.spans[t][1], "left")
        rows = []
        for at, stop in enumerate(stops.tolist()):
            pool = np.arange(low[at], high[at])
            origin = starts[place[pool]]
            stage = work[stop] - work[origin] + read[origin] + write[stop]
            step = np.maximum(slowest[pool], stage)
            total = sums[pool].copy()
            for column, figure in enumerate(self.sums):
                total[:, column] += figure.below[t][stop] - figure.below[t][origin]
                if not is_last:
                    total[:, column] += figure.link[t][stop]
            if not is_last:
                step = np.maximum(step, self.link_s[t][stop])
            if self.bound is None:
                keep = nondominated([step, *total.T])
            else:  # the step needs but be kept
                kept = np.flatnonzero(step <= self.bound)
                keep = kept[nondominated(list(total[kept].T))]
            keep = keep[(total[keep] <= np.array(self.limits) * (1 + 1e-9)).all(axis=1)]
            rows.append((np.full(len(keep), at, np.intp), total[keep], step[keep], pool[keep]))
            self.made += len(keep)
            if self.made > MOST_LABELS:
                raise InfeasibleError(
                    "there are too many partial plans with codes to prove which has the best throughput",
                    hint="allow fewer codes, or use fewer tiers",
                )
        place, total, step, parent = (np.concatenate(column) for column in zip(*rows, strict=True))
        return place.astype(np.intp), total, step, parent
