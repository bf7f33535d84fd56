"""Planner `dads`: minimum cuts of the layer graph, Hu et al., INFOCOM 2019.

C. Hu, W. Bao, D. Wang and F. Liu, "Dynamic adaptive DNN surgery for inference acceleration on
the edge", IEEE INFOCOM 2019, pages 1423-1431. Layer v_i takes t^e_i on the edge, t^c_i in the
cloud, and t^t_i = d_i / B to send its output. T_e, T_t and T_c are their sums over the layers
on the edge, sent, and in the cloud.

- Light load, algorithm 1 (DSL): least T_e + T_t + T_c. It is a minimum cut of a graph with an
  edge v_i -> c of t^e_i, an edge e -> v_i of t^c_i, and edges of t^t_i between layers (eq. 4); a
  layer with several readers sends through one auxiliary vertex, to pay once.
- Heavy load, algorithm 2 (DSH): least max(T_e, T_t, T_c). NP-hard, so DSL runs for many costs
  alpha t^e, t^t, gamma t^c (eq. 5) and the best of its cuts is kept: first on a coarse grid of
  (alpha, gamma), then on finer ones around the best, until that gains less than epsilon. As
  alpha = gamma = 1 is on the grid, it is at most 3 times the optimum (theorem 1).
- Algorithm 3 takes DSL where it keeps up with the sampling rate Q, else DSH.

What is assumed:

1. Q is the workload's `requests_per_s`. Without it, objective `latency` is light load; objective
   `throughput` is heavy load in any case.
2. Model inputs are born on the edge, and sending one costs as sending a layer's output does.
3. A layer on the edge needs its inputs there: edges back of infinite capacity keep sets
   downward-closed. (Where the cloud is faster in every layer, as in the paper, no cut is
   cheaper without them.)
4. The grid. Algorithm 2 steps by 1 up to the sum of t^e over the least t^t: millions of
   cuts. Here it is 5 by 5 powers of 10, from 1/100 to 100, and finer ones of 3 by 3 whose step
   is the square root of the one before, K in the paper; epsilon is 0.1%.
5. Delays, prices, limits and returning outputs are no part of it: its plan is judged with
   them. Rules on nodes are refused, as they have no place in the cut.
6. Without a graph (`Problem.analysis`) the order is taken for a chain.

Its cut need be no prefix of the order: the solution then brings an order of its own. More
than two tiers: see `published`; data that passes through a tier pays each link.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.planning.planners.published.pairs import need_objective, nowhere
from dnnsplit_onnx.planning.problem import Problem, Solution
from dnnsplit_onnx.work.cuts import UNKNOWN
from dnnsplit_onnx.work.envelope import contract
from dnnsplit_onnx.work.maxflow import Network

#: Networks of more layers and values take seconds each.
MOST = 20_000
#: The coarse grid, where the refinement stops, and its threshold.
_EXPONENTS, _FINEST, _EPSILON = (-2.0, -1.0, 0.0, 1.0, 2.0), 0.05, 1e-3

_NAME = "dads"
#: Bytes (None if unknown), the layer that makes it (None for an input), and its readers.
_Value = tuple[int | None, int | None, tuple[int, ...]]
_Score = Callable[["_Cut"], float]


def plan(problem: Problem) -> Solution:
    """The minimum cut for latency (DSL), or the search over many of them for throughput (DSH).

    Raises:
        InputError: The objective is another, nodes are pinned, or the graph is too large.
        InfeasibleError: Values of unknown size cross every cut.
    """
    need_objective(problem, _NAME, "latency", "throughput")
    if problem.permitted is not None:
        raise InputError(f"planner `{_NAME}` knows no rules on nodes (`pin`, `private`, prefixes)")
    values = _values(problem)
    if problem.costs.size + len(values) > MOST:
        raise InputError(
            f"planner `{_NAME}` solves minimum cuts of up to {MOST:,} layers and values",
            hint="use planner `exact`: it takes time linear in the nodes",
        )
    if not problem.topology.links:
        return Solution((), "none", 1)
    is_light = problem.objective == "latency"
    rate = problem.topology.workload.requests_per_s
    best, links = None, len(problem.topology.links)
    solved = 0
    for upper in range(1, links + 1):
        layers = _Layers(problem, upper, values)
        found = layers.light() if is_light else layers.heavy()
        if is_light and rate is not None and found is not None and rate * found.score(is_light=False) > 1:
            found = layers.heavy()  # algorithm 3: light load's cut does not keep up
        solved += layers.solved
        if found is not None and (best is None or found.score(is_light) < best[1].score(is_light)):
            best = upper, found
    if best is None:
        raise nowhere(_NAME)
    upper, found = best
    everything = frozenset(range(problem.costs.size))
    sets = [found.below] * upper + [everything] * (links - upper)
    return Solution.of_sets(sets, problem.costs.size, solved)


def minimum_cuts(problem: Problem, prices: Sequence[float]) -> Iterator[Solution]:
    """Algorithm 1 for each tier above, at each price of the cloud's seconds beside the edge's."""
    values, size, links = _values(problem), problem.costs.size, len(problem.topology.links)
    if size + len(values) > MOST:
        return
    everything = frozenset(range(size))
    for upper in range(1, links + 1):
        layers = _Layers(problem, upper, values)
        for price in prices:
            found = layers.light(gamma=price)
            if found is not None:
                sets = [found.below] * upper + [everything] * (links - upper)
                yield Solution.of_sets(sets, size, 1)


def _values(problem: Problem) -> tuple[_Value, ...]:
    """What can be sent; a chain's if that is all there is."""
    if problem.analysis is not None:
        return contract(problem.analysis, merge=False).values
    return tuple(
        (None if nbytes == UNKNOWN else nbytes, at - 1 if at else None, (at,))
        for at, nbytes in enumerate(problem.costs.up_nbytes[:-1].tolist())
    )


@dataclass(frozen=True)
class _Cut:
    """V_E, and T_e, T_t and T_c."""

    below: frozenset[int]
    edge: float
    sent: float
    cloud: float

    def score(self, is_light: bool) -> float:
        """What light load, or heavy load, minimises."""
        stages = (self.edge, self.sent, self.cloud)
        return math.fsum(stages) if is_light else max(stages)


class _Layers:
    """The graph G of two tiers, and its minimum cuts."""

    def __init__(self, problem: Problem, upper: int, values: tuple[_Value, ...]) -> None:
        each = np.diff(problem.costs.seconds_below, axis=1)
        self.edge, self.cloud = each[0].tolist(), each[upper].tolist()  # t^e and t^c
        rates = [8 / (link.bandwidth_mbps * 1e6) for link in problem.topology.links[:upper]]
        self.per_byte, self.slowest_per_byte = math.fsum(rates), max(rates)
        self.is_light = problem.objective == "latency"
        self.values = values
        self.solved = 0

    def light(self, alpha: float = 1.0, gamma: float = 1.0) -> _Cut | None:
        """Algorithm 1 on the costs of eq. 5; None if no cut has a known size."""
        self.solved += 1
        size = len(self.edge)
        nbytes = [value[0] for value in self.values]
        edge, cloud = [alpha * t for t in self.edge], [gamma * t for t in self.cloud]
        sent = [None if b is None else b * self.per_byte for b in nbytes]
        # Whole numbers, so that flow and cut can be equal: 2^-60 of the whole is rounding.
        unit = 2.0**60 / (math.fsum((*edge, *cloud, *(t or 0.0 for t in sent))) or 1.0)
        network = Network([0, 0, *(2 * at for at in range(size)), *self._value_ranks()])
        for at in range(size):
            network.add(2 + at, Network.SINK, round(edge[at] * unit))
            network.add(Network.SOURCE, 2 + at, round(cloud[at] * unit))
        for place, (_, maker, readers) in enumerate(self.values, start=2 + size):
            taken = sent[place - 2 - size]
            tail = Network.SOURCE if maker is None else 2 + maker
            network.add(tail, place, None if taken is None else round(taken * unit))
            for reader in readers:
                network.add(place, 2 + reader, None)
                if maker is not None:
                    network.add(2 + reader, tail, None)
        try:
            _, below = network.minimum_cut()
        except ValueError:
            return None
        return self._cut(frozenset(at for at in range(size) if below[2 + at]))

    def heavy(self) -> _Cut | None:
        """Algorithm 2, on a grid of powers of 10."""
        tried: dict[tuple[float, float], _Cut | None] = {}
        centre, step, least = (0.0, 0.0), 1.0, math.inf
        exponents: Sequence[float] = _EXPONENTS
        while step > _FINEST:
            for alpha, gamma in self._grid(centre, exponents):
                if (alpha, gamma) not in tried:
                    tried[alpha, gamma] = self.light(10**alpha, 10**gamma)
            known = {point: cut for point, cut in tried.items() if cut is not None}
            if not known:
                return None
            centre = min(known, key=lambda point: known[point].score(is_light=False))
            found = known[centre].score(is_light=False)
            if least - found <= _EPSILON * found and step < 1:
                break
            least, step = found, step / 2
            exponents = (-step, 0.0, step)
        return known[centre]

    @staticmethod
    def _grid(centre: tuple[float, float], exponents: Sequence[float]) -> Iterator[tuple[float, float]]:
        for alpha in exponents:
            for gamma in exponents:
                yield centre[0] + alpha, centre[1] + gamma

    def _value_ranks(self) -> list[int]:
        return [-1 if maker is None else 2 * maker + 1 for _, maker, _ in self.values]

    def _cut(self, below: frozenset[int]) -> _Cut:
        nbytes = sum(
            size or 0
            for size, maker, readers in self.values
            if (maker is None or maker in below) and not below.issuperset(readers)
        )
        # In heavy load each link is a stage of its own.
        per_byte = self.per_byte if self.is_light else self.slowest_per_byte
        return _Cut(
            below,
            math.fsum(self.edge[at] for at in below),
            nbytes * per_byte,
            math.fsum(t for at, t in enumerate(self.cloud) if at not in below),
        )
