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

import numpy as np

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.planning.planners.published.episodes import Episodes, Policy, Tiers, World
from dnnsplit_onnx.planning.planners.published.pairs import need_objective, nowhere
from dnnsplit_onnx.planning.planners.published.qlearning import Learner, one_thread
from dnnsplit_onnx.planning.problem import Problem, Solution

#: Learning takes seconds for each thousand layers.
MOST_NODES = 3_000

_NAME = "ddpqn"
_SEED, _ROUNDS, _EPISODES, _LEAST_EPSILON = 0, 12, 16, 0.05


def plan(problem: Problem) -> Solution:
    """The best plan that the policy finds while and after it learns.

    Raises:
        InputError: The objective is throughput, or the graph is too large.
        InfeasibleError: Every plan that it met is impossible.
        MissingExtraError: torch is not installed.
    """
    need_objective(problem, _NAME, "latency", "cost", "energy", "weighted")
    assert problem.objective != "throughput", "refused above"
    assert problem.objective != "custom", "refused above"
    size, links = problem.costs.size, len(problem.topology.links)
    if size > MOST_NODES:
        raise InputError(
            f"planner `{_NAME}` learns on up to {MOST_NODES:,} nodes", hint="use planner `exact`"
        )
    if not links or not size:
        return Solution((0,) * links, "none", 1)
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

    def choose(layer: int, last: Tiers) -> Tiers:
        wanted = np.maximum(last, (cuts <= layer).sum(axis=1))
        ok = world.can_go[layer, last, wanted]
        return np.where(explores, np.where(ok, wanted, last), policy(layer, last))

    return choose
