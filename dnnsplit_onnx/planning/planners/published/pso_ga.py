"""Planner `pso-ga`: the swarm of Lin et al., IEEE Trans. Industrial Informatics 2020.

B. Lin, Y. Huang, J. Zhang, J. Hu, X. Chen and J. Li, "Cost-driven offloading for DNN-based
applications over cloud, edge, and end devices", IEEE Transactions on Industrial Informatics
16(8), 2020 (arXiv:1907.13306). A self-adaptive discrete particle swarm with the operators of a
genetic algorithm: a particle X says for every layer which server runs it, and moves by

    X' = c2 (+) Cg( c1 (+) Cp( w (+) Mu(X), pBest ), gBest )

where Mu changes the server of a random layer, with probability w; Cp and Cg take a random
segment of layers from the particle's best and the swarm's best, with probabilities c1 and c2.
Of two particles that keep the deadline the cheaper is fitter, one that keeps it is fitter
than one that does not, and of two that do not, the one that takes less time. The inertia
follows the difference d of X from gBest, w = w_max - (w_max - w_min) exp(d / (d - 1.01)), so that
what is far from the best moves more; c1 falls and c2 rises linearly over the iterations.

What is assumed:

1. The constants, of which the public abstract says nothing: w from 0.4 to 0.9, c1 from 0.9 to
   0.2, c2 from 0.4 to 0.9; 100 particles, at most 300 iterations, fewer once 60 in a row
   found nothing better. The seed is fixed, so that a problem has one answer.
2. Here data moves up a line of tiers only, so a particle is nondecreasing along the order.
   Mu brings the layers before and after its own into line with it, crossover lets each layer
   run no lower than those before it, and first particles are random cuts.
3. Any objective stands for the cost, and all limits for the deadline.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.planning.planners.published.fitness import Fitness, breaks_limits, slowest, total
from dnnsplit_onnx.planning.planners.published.pairs import need_objective, nowhere, until_still
from dnnsplit_onnx.planning.problem import Problem, Solution

_PARTICLES, _ITERATIONS, _PATIENCE, _SEED = 100, 300, 60, 0
_W, _C1, _C2 = (0.4, 0.9), (0.9, 0.2), (0.4, 0.9)
#: Layers of all particles together, to bound memory on large graphs.
_MOST_CELLS = 20_000_000

_NAME = "pso-ga"
_Tiers = NDArray[np.int8]
_Floats = NDArray[np.float64]


def plan(problem: Problem) -> Solution:
    """The best plan that the swarm meets.

    Raises:
        InputError: The objective is a function of the user's own.
        InfeasibleError: Every plan that it met is impossible.
    """
    need_objective(problem, _NAME, "latency", "cost", "throughput", "energy", "weighted")
    if not problem.topology.links or not problem.costs.size:
        return Solution((0,) * len(problem.topology.links), "none", 1)
    swarm = _Swarm(problem, np.random.default_rng(_SEED))
    until_still(swarm.move, _ITERATIONS, _PATIENCE)
    if not np.isfinite(swarm.best_fitness.value[0]):
        raise nowhere(_NAME)
    cuts = tuple(_cuts(swarm.best, len(problem.topology.links))[0].tolist())
    return Solution(cuts, "none", swarm.evaluated, (f"a random search, seed {_SEED}",))


class _Swarm:
    """Particles, the best place that each has met, and the best of all."""

    def __init__(self, problem: Problem, rng: np.random.Generator) -> None:
        self.problem, self.rng = problem, rng
        size, links = problem.costs.size, len(problem.topology.links)
        count = max(2, min(_PARTICLES, _MOST_CELLS // size))
        cuts = np.sort(rng.integers(0, size + 1, (count, links)), axis=1)
        self.places = (np.arange(size) >= cuts[:, :, None]).sum(axis=1).astype(np.int8)
        self.evaluated = 0
        fitness = self._fitness(self.places)
        self.own, self.own_fitness = self.places.copy(), fitness
        at = fitness.first()
        self.best, self.best_fitness = self.places[[at]].copy(), fitness.take(at)

    def move(self, elapsed: float) -> bool:
        """Moves all particles once; returns whether the best of all got better."""
        c1 = _C1[0] + (_C1[1] - _C1[0]) * elapsed
        c2 = _C2[0] + (_C2[1] - _C2[0]) * elapsed
        self._mutate()
        self._cross(self.own, c1)
        self._cross(np.broadcast_to(self.best, self.places.shape), c2)
        fitness = self._fitness(self.places)
        better = fitness.is_better_than(self.own_fitness)
        self.own[better] = self.places[better]
        self.own_fitness.put(better, fitness)
        at = self.own_fitness.first()
        found = self.own_fitness.take(at)
        if not found.is_better_than(self.best_fitness)[0]:
            return False
        self.best, self.best_fitness = self.own[[at]].copy(), found
        return True

    def _mutate(self) -> None:
        """Mu, with probability w."""
        count, size = self.places.shape
        d = (self.places != self.best).mean(axis=1)
        w = _W[1] - (_W[1] - _W[0]) * np.exp(d / (d - 1.01))
        chosen = np.flatnonzero(self.rng.random(count) < w)
        layer = self.rng.integers(0, size, len(chosen))[:, None]
        tier = self.rng.integers(0, len(self.problem.topology.tiers), len(chosen))[:, None].astype(np.int8)
        moved, along = self.places[chosen], np.arange(size)
        moved = np.where(along <= layer, np.minimum(moved, tier), moved)
        self.places[chosen] = np.where(along >= layer, np.maximum(moved, tier), moved)

    def _cross(self, others: _Tiers, probability: float) -> None:
        """Cp or Cg: a segment of layers runs where it does in another particle."""
        count, size = self.places.shape
        chosen = np.flatnonzero(self.rng.random(count) < probability)
        ends = np.sort(self.rng.integers(0, size + 1, (len(chosen), 2)), axis=1)
        along = np.arange(size)
        within = (along >= ends[:, :1]) & (along < ends[:, 1:])
        crossed = np.where(within, others[chosen], self.places[chosen])
        self.places[chosen] = np.maximum.accumulate(crossed, axis=1)

    def _fitness(self, places: _Tiers) -> Fitness:
        problem = self.problem
        self.evaluated += len(places)
        cuts = _cuts(places, len(problem.topology.links))
        breaks = breaks_limits(problem, cuts)
        latency = total(problem, cuts, "latency")
        if problem.objective == "throughput":
            value = slowest(problem, cuts)
        else:
            assert problem.objective != "custom", "refused above"
            value = latency if problem.objective == "latency" else total(problem, cuts, problem.objective)
        return Fitness(breaks, np.where(breaks, latency, value))


def _cuts(places: _Tiers, links: int) -> NDArray[np.intp]:
    """Shape (particles, links): how many layers run below each link."""
    return np.stack([(places <= t).sum(axis=1) for t in range(links)], axis=1)
