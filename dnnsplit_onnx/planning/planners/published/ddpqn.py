"""Planner `ddpqn`: a learned policy, Xue et al., IEEE Trans. Services Computing 2022.

M. Xue, H. Wu, G. Peng and K. Wolter, "DDPQN: An efficient DNN offloading strategy in
local-edge-cloud collaborative environments", IEEE Transactions on Services Computing 15(2),
2022. A double, dueling deep Q-network with prioritised replay learns where each layer of a
network should run, for low delay, low energy and low cost:

- double (van Hasselt et al., AAAI 2016): y = r + Q'(s', argmax over a of Q(s', a)), Q' an older copy;
- dueling (Wang et al., ICML 2016): Q(s, a) = V(s) + A(s, a) - mean over a of A(s, a);
- prioritised (Schaul et al., ICLR 2016): transitions are drawn with probability in proportion to
  |y - Q|^0.6, and weighed by (N p)^-beta, beta from 0.4 to 1.

Its full text is not public. What is assumed:

1. An episode places the layers along the order. State: how far it is, the tier that the last
   layer runs on, the bytes that would cross here, what is left to do on each tier. Action: the
   tier of the next layer, not below the last one's. Reward: less what the objective grows by,
   in units of what the best single tier takes.
2. Objectives are delay, energy, cost, or their weighted sum. The paper's further terms, a
   coupling coordination degree and a node balance degree, are left out: how they are defined
   is not public. So is throughput, which is none of its aims.
3. The network: two layers of 64 rectified units. 192 episodes, 16 at a time; exploring, an
   episode follows a random plan, with a probability that falls from 1 to 0.05. Seed fixed.
4. The plan is the best of the greedy episode at the end and all that were met before it.
   Limits are unknown to it: its plan may break them, and then says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.planning.planners.published.pairs import need_objective, nowhere
from dnnsplit_onnx.planning.plans import Measure
from dnnsplit_onnx.planning.problem import Problem, Solution

#: Learning takes seconds for each thousand layers.
MOST_NODES = 3_000

_NAME = "ddpqn"
_SEED, _ROUNDS, _EPISODES, _LEAST_EPSILON = 0, 12, 16, 0.05

_Tiers = NDArray[np.intp]
_Floats = NDArray[np.float64]
#: From a layer and the tiers that the last layer of each episode runs on, the next tiers.
Policy = Callable[[int, _Tiers], _Tiers]


def plan(problem: Problem) -> Solution:
    """The best plan that the policy finds while and after it learns.

    Raises:
        InputError: The objective is throughput, or the graph is too large.
        InfeasibleError: Every plan that it met is impossible.
        MissingExtraError: torch is not installed.
    """
    need_objective(problem, _NAME, "latency", "cost", "energy", "weighted")
    assert problem.objective != "throughput", "refused above"
    size, links = problem.costs.size, len(problem.topology.links)
    if size > MOST_NODES:
        raise InputError(
            f"planner `{_NAME}` learns on up to {MOST_NODES:,} nodes", hint="use planner `exact`"
        )
    if not links or not size:
        return Solution((0,) * links, "none", 1)
    from dnnsplit_onnx.planning.planners.published.qlearning import one_thread

    world = World.of(problem, problem.objective)
    with one_thread():
        met = _played(world)
    tiers = np.concatenate([episodes.tiers for episodes in met])
    taken = np.concatenate([episodes.taken for episodes in met])
    best = int(taken.argmin())
    if not np.isfinite(taken[best]):
        raise nowhere(_NAME)
    cuts = tuple(int((tiers[best] <= t).sum()) for t in range(links))
    return Solution(cuts, "none", len(taken), (f"a learned policy, seed {_SEED}",))


def _played(world: World) -> list[Episodes]:
    """The episodes of learning, and the one that follows what was learned."""
    from dnnsplit_onnx.planning.planners.published.qlearning import Learner

    rng = np.random.default_rng(_SEED)
    learner = Learner(world, _SEED)
    met = []
    for done in range(_ROUNDS):
        elapsed = done / (_ROUNDS - 1)
        epsilon = max(_LEAST_EPSILON, 1 - elapsed)
        episodes = world.run(_exploring(world, learner.policy, rng, epsilon), _EPISODES)
        met.append(episodes)
        learner.learn(episodes, elapsed)
    return [*met, world.run(learner.policy, 1)]


def _exploring(world: World, policy: Policy, rng: np.random.Generator, epsilon: float) -> Policy:
    """A policy of which each episode follows a random plan instead, with a probability."""
    cuts = np.sort(rng.integers(0, world.size + 1, (_EPISODES, world.tiers - 1)), axis=1)
    explores = rng.random(_EPISODES) < epsilon

    def choose(layer: int, last: _Tiers) -> _Tiers:
        wanted = np.maximum(last, (cuts <= layer).sum(axis=1))
        ok = world.can_go[layer, last, wanted]
        return np.where(explores, np.where(ok, wanted, last), policy(layer, last))

    return choose


@dataclass(frozen=True)
class Episodes:
    """What happened in some episodes, E of them, of n layers each.

    Attributes:
        tiers: Shape (E, n): where each layer was put.
        rewards: Shape (E, n): what each choice was rewarded with.
        taken: Shape (E,): the objective of the plans; infinite if they are impossible.
    """

    tiers: _Tiers
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
