"""Placing layers as a game: what planner `ddpqn` plays, and what happened when it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.planning.figures import Measure
from dnnsplit_onnx.planning.problem import Problem

Tiers = NDArray[np.intp]
_Floats = NDArray[np.float64]
#: From a layer and the tiers that the last layer of each episode runs on, the next tiers.
Policy = Callable[[int, Tiers], Tiers]


@dataclass(frozen=True)
class Episodes:
    """What happened in some episodes, E of them, of n layers each.

    Attributes:
        tiers: Shape (E, n): where each layer was put.
        rewards: Shape (E, n): what each choice was rewarded with.
        taken: Shape (E,): the objective of the plans; infinite if they are impossible.
    """

    tiers: Tiers
    rewards: _Floats
    taken: _Floats


@dataclass(frozen=True)
class World:
    """Layers to place on K tiers, one after the other. A state is (layer, tier of the last one).

    Attributes:
        features: Shape (n, F): what a policy sees of each layer.
        can_go: Shape (n, K, K): whether a layer may run on a tier, given that of the last.
        costs: Shape (n, K, K): what the objective grows by then.
        ends: Shape (K,): what it grows by at the end, given the tier of the last layer.
        unit: What the best single tier takes; rewards are in it.
    """

    features: _Floats
    can_go: NDArray[np.bool_]
    costs: _Floats
    ends: _Floats
    unit: float

    @property
    def size(self) -> int:
        """Number of layers, n."""
        return len(self.features)

    @property
    def tiers(self) -> int:
        """Number of tiers, K."""
        return len(self.ends)

    @classmethod
    def of(cls, problem: Problem, measure: Measure) -> World:
        """The world of a problem."""
        figure, size, tiers = problem.additive(measure), problem.costs.size, len(problem.topology.tiers)
        link = np.where(problem.open, figure.link, np.inf)
        costs = np.full((size, tiers, tiers), np.inf)
        for last in range(tiers):
            crossed = np.zeros(size)
            for tier in range(last, tiers):
                costs[:, last, tier] = crossed + np.diff(figure.below[tier])
                if tier < tiers - 1:
                    crossed = crossed + link[tier, :-1]
        ends = np.array([link[last:, -1].sum() for last in range(tiers)])
        singles = [problem.figures(cuts).value(measure) for cuts in problem.single_tier]
        unit = min((value for value in singles if 0 < value < np.inf), default=1.0)
        left = figure.below[:, -1:] - figure.below[:, :-1]
        nbytes = np.maximum(problem.costs.up_nbytes[:-1], 0)
        seen = (np.arange(size) / size, nbytes / max(int(nbytes.max()), 1), left.T / (left.max() or 1.0))
        features = np.column_stack(seen)
        return cls(features, np.isfinite(costs), costs, ends, unit)

    def run(self, policy: Policy, count: int) -> Episodes:
        """Places all layers, as a policy says, `count` times over."""
        last = np.zeros(count, dtype=np.intp)
        tiers = np.zeros((count, self.size), dtype=np.intp)
        grown = np.zeros((count, self.size))
        for layer in range(self.size):
            chosen = policy(layer, last)
            grown[:, layer] = self.costs[layer, last, chosen]
            tiers[:, layer] = last = chosen
        grown[:, -1] += self.ends[last]
        # What is impossible is as bad as a hundred plans.
        rewards = -np.minimum(grown / self.unit, 100.0)
        return Episodes(tiers, rewards, grown.sum(axis=1))
