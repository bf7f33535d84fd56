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
from dnnsplit_onnx.work.cuts import UNKNOWN
from dnnsplit_onnx.work.envelope import readers_over_runs

#: Graphs with more ideals are planned along orders.
MOST = 20_000
#: Ideals are numbers of as many bits as there are nodes; all of them together have no more.
_MOST_BITS = 20_000_000
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
    high = lattice.slowest if own is None else 1 / problem.figures(own.cuts).throughput_per_s
    # Seconds of ideals add up in another order than those of positions, and round otherwise.
    sets = lattice.sets(high * (1 + _SLACK))
    if sets is None:
        return None
    low, high = 0.0, lattice.pace(sets)
    is_new = True
    for _ in range(_STEPS):
        least = high * (1 - ROUNDING)
        if least <= low:
            break
        # A pace that was found is first tried to be the best; if it is not, halving is sooner there.
        middle = least if is_new else (low + high) / 2
        found = lattice.sets(middle)
        is_new = found is not None and not is_new
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
        covers: Ideals, and ideals one node smaller inside these, smaller ones first.
        below: Shape (K, ideals): seconds of each tier for an ideal.
        links: Shape (K - 1, ideals): seconds of each link; infinite where it may not be cut.
    """

    problem: Problem
    masks: list[int]
    covers: list[tuple[int, int]]
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
        best: list[float] = own.tolist()
        for ideal, smaller in self.covers:  # some to a size: sooner done one by one than as arrays
            if best[smaller] > best[ideal]:
                best[ideal] = best[smaller]
        return np.array(best)

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
    size = len(graph.nodes)
    most = min(MOST, _MOST_BITS // max(size, 1))
    if most <= size:  # a graph has more ideals than nodes
        return None
    makers = [{graph.producer[v] for v in node.inputs if v in graph.producer} for node in graph.nodes]
    needs = [sum(1 << at for at in before) for before in makers]
    after: list[list[int]] = [[] for _ in range(size)]
    for at, before in enumerate(makers):
        for maker in before:
            after[maker].append(at)
    place, masks, added = {0: 0}, [0], [-1]
    ready = [[at for at, need in enumerate(needs) if not need]]
    covers: list[tuple[int, int]] = []
    j = 0
    while j < len(masks):  # of each size, all are there before the first is looked at
        mask = masks[j]
        for at in ready[j]:
            bigger = mask | 1 << at
            if bigger not in place:
                if len(masks) >= most:
                    return None
                place[bigger] = len(masks)
                masks.append(bigger)
                added.append(at)
                rest = [other for other in ready[j] if other != at]
                ready.append(rest + [later for later in after[at] if not needs[later] & ~bigger])
            covers.append((place[bigger], j))
        j += 1
    came = [place[mask ^ 1 << at] if at >= 0 else 0 for mask, at in zip(masks, added, strict=True)]
    below = _seconds(problem, added, came)
    return _Lattice(problem, masks, covers, below, _links(problem, analysis, masks, added, came))


def _seconds(problem: Problem, added: list[int], came: list[int]) -> NDArray[np.float64]:
    """Shape (K, ideals): each ideal is one that came before, and a node."""
    each = np.diff(problem.costs.seconds_below, axis=1)
    below = np.zeros((len(each), len(added)))
    for j in range(1, len(added)):
        below[:, j] = below[:, came[j]] + each[:, added[j]]
    return below


def _links(
    problem: Problem, analysis: Analysis, masks: list[int], added: list[int], came: list[int]
) -> NDArray[np.float64]:
    """Seconds of each link at each ideal, by the very function that prices positions."""
    up, down = _nbytes(analysis, masks, added, came)
    at_ideals = replace(problem.costs, up_nbytes=up, down_nbytes=down)
    back = problem.topology.limits.returns
    rows = np.array([link_seconds(link, at_ideals, back) for link in problem.topology.links])
    rows[np.isnan(rows)] = math.inf
    graph = analysis.graph
    # Who needs a state in the next run is below only with its maker, wherever the order has them.
    fed = [
        (sum(1 << at for at in users), 1 << graph.producer[value])
        for value, users in graph.next_readers.items()
        if value in graph.producer
    ]
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


def _nbytes(
    analysis: Analysis, masks: list[int], added: list[int], came: list[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bytes that cross each ideal upwards, and bytes of outputs made above it."""
    graph, types = analysis.graph, analysis.types
    # What crosses changes only with values that the added node makes or reads.
    crossing = _Sums(len(graph.nodes))
    for value, readers in readers_over_runs(graph).items():
        made = 1 << graph.producer[value] if value in graph.producer else 0
        crossing.add(analysis.link_nbytes(value), made, sum(1 << at for at in set(readers)))
    everything = (1 << len(graph.nodes)) - 1
    outputs = _Sums(len(graph.nodes))
    for value in graph.results:
        if value in graph.producer:  # as if it were read by all but its maker, and made by nobody
            outputs.add(types.nbytes(value), 0, 1 << graph.producer[value])
    assert masks[-1] == everything, "the last ideal has all nodes"
    return crossing.along(masks, added, came), outputs.along(masks, added, came)


class _Sums:
    """Bytes of values with a node below and another above, for ideals that grow by a node each."""

    def __init__(self, size: int) -> None:
        self._all: list[tuple[int | None, int, int]] = []
        self._touched: list[list[tuple[int | None, int, int]]] = [[] for _ in range(size)]

    def add(self, nbytes: int | None, made: int, used: int) -> None:
        """A value that counts where all of `made` is below, and not all of `used`."""
        value = nbytes, made, used
        self._all.append(value)
        nodes = made | used
        while nodes:
            self._touched[(nodes & -nodes).bit_length() - 1].append(value)
            nodes &= nodes - 1

    def along(self, masks: list[int], added: list[int], came: list[int]) -> NDArray[np.int64]:
        """The sum at each ideal; `UNKNOWN` where a value of unknown size counts."""
        sums, unknown = [0], [0]
        for j, mask in enumerate(masks):
            if j:
                sums.append(sums[came[j]])
                unknown.append(unknown[came[j]])
            before = masks[came[j]] if j else None
            for nbytes, made, used in self._touched[added[j]] if j else self._all:
                counts = (made & mask == made and used & ~mask != 0) - (
                    before is not None and made & before == made and used & ~before != 0
                )
                sums[j] += counts * (nbytes or 0)
                unknown[j] += counts * (nbytes is None)
        return np.where(unknown, UNKNOWN, np.array(sums, dtype=np.int64))
