"""Planner `ipsga`: a swarm with a genetic algorithm for vehicles that share servers, Li et al. 2023.

C. Li, L. Chai, K. Jiang, Y. Zhang, J. Liu and S. Wan, "DNN partition and offloading strategy with
improved particle swarm genetic algorithm in VEC", IEEE Transactions on Intelligent Vehicles, 2023.
Partition points are chosen by the computing capability at hand, then tasks are distributed between
edge server and service vehicles, for the least delay of the system. The search "uses the variable
acceleration coefficient with the number of iterations and the inertia weight with the success rate
as the feedback parameters", and improves the genetic algorithm "with the adaptive crossover
probability and the adaptive mutation probability".

Public is the abstract. What is assumed:

1. Vehicles are the workload's clients, servers the tiers above with their replicas, and every
   client runs the same plan. What is minimised is the delay of `crowd`: all clients ask at once, or
   at the offered rate. Of plans, one that keeps the limits is fitter than one that does not.
2. Success rate: the share of particles that bettered their own best in the last iteration, and the
   inertia w = 0.4 + 0.5 times it. Acceleration: c1 falls from 2.5 to 0.5 and c2 rises from 0.5 to
   2.5, linearly (Ratnaweera et al., IEEE Trans. Evol. Comput. 2004).
3. Probabilities of Srinivas and Patnaik (IEEE Trans. SMC 1994): a particle better than the average
   is crossed and mutated with a probability in proportion to how far it is from the best, at most 1
   and 0.5; a worse one with these.
4. A particle is a real position for each link, sorted, rounded to a cut. 40 particles, at most 200
   iterations, fewer once 40 in a row found nothing better. The seed is fixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.planning.planners.published.crowd import delays
from dnnsplit_onnx.planning.planners.published.fitness import Fitness, breaks_limits
from dnnsplit_onnx.planning.planners.published.pairs import need_objective, nowhere, until_still
from dnnsplit_onnx.planning.problem import Problem, Solution

_PARTICLES, _ITERATIONS, _PATIENCE, _SEED = 40, 200, 40, 0
_W, _C1, _C2 = (0.4, 0.9), (2.5, 0.5), (0.5, 2.5)
_CROSS, _MUTATE = 1.0, 0.5

_NAME = "ipsga"
_Floats = NDArray[np.float64]


def plan(problem: Problem) -> Solution:
    """The plan of least delay that the swarm meets.

    Raises:
        InputError: The objective is not latency.
        InfeasibleError: Every plan that it met is impossible.
    """
    need_objective(problem, _NAME, "latency")
    if not problem.topology.links or not problem.costs.size:
        return Solution((0,) * len(problem.topology.links), "none", 1)
    swarm = _Swarm.of(problem, np.random.default_rng(_SEED))
    until_still(swarm.move, _ITERATIONS, _PATIENCE)
    if not np.isfinite(swarm.best_fitness.value[0]):
        raise nowhere(_NAME)
    cuts = tuple(_cuts(swarm.best, problem.costs.size)[0].tolist())
    clients = problem.topology.workload.clients
    note = f"a random search for {clients} client{'s' * (clients != 1)}, seed {_SEED}"
    return Solution(cuts, "none", swarm.evaluated, (note,))


@dataclass
class _Swarm:
    """Particles, where each has been best, and the best of all; rows are particles."""

    problem: Problem
    rng: np.random.Generator
    places: _Floats
    speeds: _Floats
    fitness: Fitness
    own: _Floats
    own_fitness: Fitness
    best: _Floats
    best_fitness: Fitness
    success: float = 1.0
    evaluated: int = 0

    @classmethod
    def of(cls, problem: Problem, rng: np.random.Generator) -> _Swarm:
        """Particles at random, and one on each single tier."""
        links, size = len(problem.topology.links), problem.costs.size
        places = np.sort(rng.uniform(0, size, (_PARTICLES, links)), axis=1)
        singles = np.array(problem.single_tier, dtype=np.float64)[:_PARTICLES]
        places[: len(singles)] = singles
        fitness = _fitness(problem, places)
        at = fitness.first()
        return cls(
            problem,
            rng,
            places,
            np.zeros_like(places),
            fitness,
            places.copy(),
            fitness.copy(),
            places[[at]].copy(),
            fitness.take(at),
            evaluated=_PARTICLES,
        )

    def move(self, elapsed: float) -> bool:
        """Moves all particles once; returns whether the best of all got better."""
        w = _W[0] + (_W[1] - _W[0]) * self.success
        c1, c2 = (low + (high - low) * elapsed for low, high in (_C1, _C2))
        r1, r2 = self.rng.random((2, *self.places.shape))
        self.speeds = (
            w * self.speeds + c1 * r1 * (self.own - self.places) + c2 * r2 * (self.best - self.places)
        )
        self._settle(self.places + self.speeds)
        self._breed()
        better = self.fitness.is_better_than(self.own_fitness)
        self.success = float(better.mean())
        self.own[better] = self.places[better]
        self.own_fitness.put(better, self.fitness)
        at = self.own_fitness.first()
        found = self.own_fitness.take(at)
        if not found.is_better_than(self.best_fitness)[0]:
            return False
        self.best, self.best_fitness = self.own[[at]].copy(), found
        return True

    def _settle(self, places: _Floats) -> None:
        self.places = np.sort(np.clip(places, 0, self.problem.costs.size), axis=1)
        self.fitness = _fitness(self.problem, self.places)
        self.evaluated += len(places)

    def _breed(self) -> None:
        """Crossover with the best of random particles, and mutation, by adaptive probabilities."""
        count, links = self.places.shape
        chance = self._adaptive()
        crossed = self.rng.random(count) < _CROSS * chance
        partners = self.own[self.rng.permutation(count)]
        taken = self.rng.random((count, links)) < 0.5
        children = np.where(crossed[:, None] & taken, partners, self.places)
        mutated = self.rng.random(count) < _MUTATE * chance
        genes: NDArray[np.int64] = self.rng.integers(0, links, (count,))
        fresh: _Floats = self.rng.uniform(0.0, float(self.problem.costs.size), (count,))
        children[mutated, genes[mutated]] = fresh[mutated]
        before, kept = self.places, self.fitness
        self._settle(children)
        worse = kept.is_better_than(self.fitness)  # a child takes the place of a parent that is no better
        self.places[worse] = before[worse]
        self.fitness.put(worse, kept)

    def _adaptive(self) -> _Floats:
        """For each particle, how much of the highest probabilities it takes."""
        value = np.where(np.isfinite(self.fitness.value), self.fitness.value, np.nan)
        if np.isnan(value).all():
            return np.ones(len(value))
        least, mean = np.nanmin(value), np.nanmean(value)
        if mean <= least:
            return np.ones(len(value))
        shares: _Floats = np.nan_to_num(np.clip((value - least) / (mean - least), 0, 1), nan=1.0)
        return shares


def _cuts(places: _Floats, size: int) -> NDArray[np.intp]:
    return np.clip(np.rint(places), 0, size).astype(np.intp)


def _fitness(problem: Problem, places: _Floats) -> Fitness:
    cuts = _cuts(places, problem.costs.size)
    return Fitness(breaks_limits(problem, cuts), delays(problem, cuts))
