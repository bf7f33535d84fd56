"""The best throughput over the DAG, by all its downward-closed sets, where these can be listed.

Tarnawski et al. (NeurIPS 2020, "Efficient algorithms for device placement of DNN graph
operators") plan pipelines by dynamic programming over the ideals of the graph, its
downward-closed sets, of which layered networks have some hundreds to tens of thousands. Here
stages stand in a line and their seconds are sums over nodes, so whether a pace can be kept is
one sweep over the lattice of ideals for each tier: of the ideals inside J that the tiers below
can reach, the one on which this tier would take longest leaves it least to do, and it is known
from those one node smaller than J.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.planning.objective import link_seconds
from dnnsplit_onnx.planning.planners.dag import ROUNDING
from dnnsplit_onnx.planning.problem import Problem, Solution
from dnnsplit_onnx.planning.waiting import link_station, tier_station
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.cuts import UNKNOWN, fed_back
from dnnsplit_onnx.work.envelope import readers_over_runs

#: Graphs with more ideals are planned along orders.
MOST = 20_000
# Each ideal is tried with each node: a graph of so many nodes that this would take seconds is
# planned along orders too.
_MOST_TRIED = 10_000_000
_STEPS = 80
_SLACK = 1e-9


def widest_of_ideals(problem: Problem, own: Solution | None) -> Solution | None:
    """The plan of best throughput over the DAG; None if there are too many ideals, or no plan.

    Args:
        problem: A problem without limits on sums, memory, caps or numbers of nodes.
        own: The best plan along the problem's order, if there is one.
    """
    assert problem.analysis is not None, "ideals are those of a graph"
    lattice = _lattice(problem, problem.analysis)
    if lattice is None:
        return None
    low = 0.0
    high = lattice.slowest if own is None else 1 / problem.figures(own.cuts).throughput_per_s
    # Seconds of ideals add up in another order than those of positions, and round otherwise.
    sets = lattice.sets(high * (1 + _SLACK))
    if sets is None:
        return None
    high = lattice.pace(sets)
    for _ in range(_STEPS):
        if high <= low * (1 + ROUNDING) or high == 0:
            break
        middle = (low + high) / 2
        found = lattice.sets(middle)
        if found is None:
            low = middle
        else:
            sets, high = found, min(middle, lattice.pace(found))
    best = _solution(problem, lattice, sets, low)
    if own is None or best is None:
        return best
    figures = problem.in_order(best.order).figures(best.cuts)
    mine = problem.figures(own.cuts).throughput_per_s
    if figures.throughput_per_s <= mine * (1 + ROUNDING):
        return replace(own, optimality="dag", bound=best.bound)
    return best


def _solution(problem: Problem, lattice: _Lattice, sets: list[int], low: float) -> Solution | None:
    size = problem.costs.size
    chosen = [frozenset(at for at in range(size) if lattice.masks[j] >> at & 1) for j in sets]
    best = Solution.of_sets(chosen, size, len(lattice.masks))
    there = problem.in_order(best.order)
    if there.violations(there.figures(best.cuts)):
        return None
    return replace(best, optimality="dag", bound=low * (1 - ROUNDING))


@dataclass(frozen=True)
class _Lattice:
    """All ideals, smaller ones first, and what each costs.

    Attributes:
        problem: What is asked.
        masks: Their nodes, as bits of a number; the last has all.
        levels: Where each size of ideal begins, and the end.
        covers: For each size, ideals of it and the ideals one node smaller inside these.
        below: Shape (K, ideals): seconds of each tier for an ideal.
        links: Shape (K - 1, ideals): seconds of each link; infinite where it may not be cut.
    """

    problem: Problem
    masks: list[int]
    levels: list[int]
    covers: list[tuple[NDArray[np.intp], NDArray[np.intp]]]
    below: NDArray[np.float64]
    links: NDArray[np.float64]

    @property
    def slowest(self) -> float:
        """Seconds between requests that every plan keeps, if its links may be cut where they are."""
        topology = self.problem.topology
        steps = [tier_station(topology, t).step(below[-1]) for t, below in enumerate(self.below)]
        for t, seconds in enumerate(self.links):
            steps.append(link_station(topology, t).step(seconds[np.isfinite(seconds)].max(initial=0.0)))
        return float(max(steps))

    def sets(self, pace: float) -> list[int] | None:
        """For each link an ideal, such that every stage and transfer keeps the pace."""
        tiers, links = self.problem.longest(pace)
        reached = np.zeros(len(self.masks), dtype=np.bool_)
        reached[0] = True
        came = []
        for t, below in enumerate(self.below):
            best = self._longest(np.where(reached, below, -math.inf))
            came.append((reached, best))
            reached = below - best <= tiers[t]
            if t < len(links):
                reached &= self.links[t] <= links[t]
        if not reached[-1]:
            return None
        sets = [len(self.masks) - 1]
        for t in range(len(self.below) - 1, 0, -1):
            sets.append(self._inside(sets[-1], t, *came[t]))
        return sets[:0:-1]

    def _longest(self, own: NDArray[np.float64]) -> NDArray[np.float64]:
        """For each ideal, the greatest value of those inside it."""
        best = own.copy()
        for ideals, smaller in self.covers:
            np.maximum.at(best, ideals, best[smaller])
        return best

    def _inside(self, ideal: int, t: int, reached: NDArray[np.bool_], best: NDArray[np.float64]) -> int:
        """The ideal inside one that left tier t least to do."""
        places = np.flatnonzero(reached & (self.below[t] == best[ideal]))
        return next(j for j in places.tolist() if self.masks[j] & ~self.masks[ideal] == 0)

    def pace(self, sets: list[int]) -> float:
        """Seconds between requests that a plan keeps."""
        topology, ends = self.problem.topology, [0, *sets, len(self.masks) - 1]
        steps = [
            float(tier_station(topology, t).step(self.below[t, high] - self.below[t, low]))
            for t, (low, high) in enumerate(pairwise(ends))
        ]
        steps += [float(link_station(topology, t).step(self.links[t, j])) for t, j in enumerate(sets)]
        return max(steps)


def _lattice(problem: Problem, analysis: Analysis) -> _Lattice | None:
    graph = analysis.graph
    most = min(MOST, _MOST_TRIED // max(len(graph.nodes), 1))
    if most <= len(graph.nodes):  # a graph has more ideals than nodes
        return None
    needs = [
        sum(1 << at for at in {graph.producer[v] for v in node.inputs if v in graph.producer})
        for node in graph.nodes
    ]
    place, levels = {0: 0}, [0]
    masks, added = [0], [-1]
    covers: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
    while levels[-1] < len(masks):
        begin, end = levels[-1], len(masks)
        levels.append(end)
        pairs: list[tuple[int, int]] = []
        for j in range(begin, end):
            mask = masks[j]
            for at, need in enumerate(needs):
                if mask >> at & 1 or need & ~mask:
                    continue
                bigger = mask | 1 << at
                if bigger not in place:
                    if len(masks) >= most:
                        return None
                    place[bigger] = len(masks)
                    masks.append(bigger)
                    added.append(at)
                pairs.append((place[bigger], j))
        if pairs:
            columns = np.array(pairs, dtype=np.intp)
            covers.append((columns[:, 0], columns[:, 1]))
    below = _seconds(problem, masks, added, place)
    return _Lattice(problem, masks, levels, covers, below, _links(problem, analysis, masks))


def _seconds(
    problem: Problem, masks: list[int], added: list[int], place: dict[int, int]
) -> NDArray[np.float64]:
    each = np.diff(problem.costs.seconds_below, axis=1)
    below = np.zeros((len(each), len(masks)))
    for j in range(1, len(masks)):
        below[:, j] = below[:, place[masks[j] ^ 1 << added[j]]] + each[:, added[j]]
    return below


def _links(problem: Problem, analysis: Analysis, masks: list[int]) -> NDArray[np.float64]:
    """Seconds of each link at each ideal, by the very function that prices positions."""
    up, down = _nbytes(analysis, masks)
    at_ideals = replace(problem.costs, up_nbytes=up, down_nbytes=down)
    back = problem.topology.limits.return_output
    rows = np.array([link_seconds(link, at_ideals, back) for link in problem.topology.links])
    rows[np.isnan(rows)] = math.inf
    fed = [(sum(1 << at for at in users), 1 << maker) for _, users, maker in fed_back(analysis.graph)]
    rules = problem.rules
    for j, mask in enumerate(masks):
        if any(mask & users and not mask & maker for users, maker in fed):
            rows[:, j] = math.inf
    for t in range(len(rows) if rules is not None else 0):
        assert rules is not None, "there are rules"
        must = sum(1 << at for at in rules.below[t])
        may_not = sum(1 << at for at in rules.above[t])
        for j, mask in enumerate(masks):
            if must & ~mask or may_not & mask:
                rows[t, j] = math.inf
    return rows


def _nbytes(analysis: Analysis, masks: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bytes that cross each ideal upwards, and bytes of outputs made above it."""
    graph, types = analysis.graph, analysis.types
    values = [
        (
            analysis.link_nbytes(value),
            1 << graph.producer[value] if value in graph.producer else 0,
            sum(1 << at for at in set(readers)),
        )
        for value, readers in readers_over_runs(graph).items()
    ]
    outputs = [(types.nbytes(v), 1 << graph.producer[v]) for v in graph.results if v in graph.producer]
    up, down = np.zeros(len(masks), dtype=np.int64), np.zeros(len(masks), dtype=np.int64)
    for j, mask in enumerate(masks):
        sizes = [size for size, made, used in values if made & mask == made and used & ~mask]
        up[j] = UNKNOWN if None in sizes else sum(size or 0 for size in sizes)
        sizes = [size for size, made in outputs if not made & mask]
        down[j] = UNKNOWN if None in sizes else sum(size or 0 for size in sizes)
    return up, down
