"""Planner `dina`: a matching game between partitions and fog nodes, Mohammed et al., INFOCOM 2020.

T. Mohammed, C. Joe-Wong, R. Babbar and M. Di Francesco, "Distributed inference acceleration with
adaptive DNN partitioning and offloading", IEEE INFOCOM 2020. A network is divided into "multiple
partitions that can be processed locally by end devices or offloaded to one or multiple powerful
nodes, such as in fog networks", by an adaptive partitioning scheme and "a distributed algorithm to
offload computations based on a matching game approach", for the least total latency.

Public are the abstract and the introduction. What is assumed:

1. Partitions are the runs of nodes between cuts that every link allows: the staircase of live
   bytes, and where a tier has a limit of memory all open positions.
2. Fog nodes are the tiers above tier 0, each a pool of its replicas; requesters are the
   workload's clients, which all run the same plan. A request prefers a matching by the delay of
   `crowd`: all clients ask at once, or at the offered rate.
3. A fog node accepts what keeps its quota: its memory, and with a rate a utilisation under 1.
4. Everything starts on tier 0, or where that may not be, on the best single tier. In turns each
   border between two nodes proposes: a run of partitions moves from one node to the other, over all
   nodes between that then run nothing. The proposal that gains most is accepted, until no pair of
   neighbours gains by one: a matching that is pairwise stable, which need not be the best.
5. Limits are kept where a proposal can: of two matchings, one that keeps them is preferred.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.planning.planners.published.crowd import delays
from dnnsplit_onnx.planning.planners.published.fitness import Fitness, breaks_limits
from dnnsplit_onnx.planning.planners.published.pairs import need_objective, nowhere
from dnnsplit_onnx.planning.problem import Problem, Solution

_NAME = "dina"
#: Proposals in a round; of more positions, evenly spread ones stand for all.
_MOST_PLACES = 2_000
_MOST_ROUNDS = 1_000
_Cuts = NDArray[np.intp]


def plan(problem: Problem) -> Solution:
    """The matching that no proposal betters.

    Raises:
        InputError: The objective is not latency.
        InfeasibleError: Every matching that it met is impossible.
    """
    need_objective(problem, _NAME, "latency")
    if not problem.topology.links or not problem.costs.size:
        return Solution((0,) * len(problem.topology.links), "none", 1)
    places = _borders(problem)
    singles = np.array(problem.single_tier[::-1], dtype=np.intp)  # tier 0 is the last of equals
    at = singles[[_judge(problem, singles).first()]] if not _fits(problem, singles[[-1]]) else singles[[-1]]
    here, looked, rounds = _judge(problem, at), len(singles), 0
    while rounds < _MOST_ROUNDS:
        offers = np.concatenate(list(_proposals(at[0], places)))
        judged = _judge(problem, offers)
        looked += len(offers)
        best = judged.first()
        if not judged.take(best).is_better_than(here)[0]:
            break
        at, here, rounds = offers[[best]], judged.take(best), rounds + 1
    if not np.isfinite(here.value[0]):
        raise nowhere(_NAME)
    clients = problem.topology.workload.clients
    note = f"stable after {rounds} accepted proposals, for {clients} client{'s' * (clients != 1)}"
    return Solution(tuple(at[0].tolist()), "none", looked, (note,))


def _fits(problem: Problem, cuts: _Cuts) -> bool:
    judged = _judge(problem, cuts)
    return bool(np.isfinite(judged.value[0]) and not judged.breaks[0])


def _judge(problem: Problem, cuts: _Cuts) -> Fitness:
    return Fitness(breaks_limits(problem, cuts), delays(problem, cuts))


def _borders(problem: Problem) -> _Cuts:
    """Positions between partitions, both ends included."""
    is_limited = any(tier.memory_gb is not None for tier in problem.topology.tiers)
    open_somewhere = np.flatnonzero(problem.open.any(axis=0))
    places = open_somewhere if is_limited else np.array(problem.candidates)
    places = np.unique(np.concatenate(([0], places, [problem.costs.size])))
    if len(places) > _MOST_PLACES:
        places = places[np.unique(np.linspace(0, len(places) - 1, _MOST_PLACES).astype(np.intp))]
    return places.astype(np.intp)


def _proposals(cuts: _Cuts, places: _Cuts) -> Iterator[_Cuts]:
    """For each border every other place, the borders that it passes moving along."""
    for t in range(len(cuts)):
        offers = np.tile(cuts, (len(places), 1))
        offers[:, t] = places
        offers[:, :t] = np.minimum(offers[:, :t], places[:, None])
        offers[:, t + 1 :] = np.maximum(offers[:, t + 1 :], places[:, None])
        yield offers
