"""The network of planner `ddpqn`, and how it learns: the one planner that needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from dnnsplit_onnx.errors import MissingExtraError
from dnnsplit_onnx.planning.planners.published.episodes import Episodes, Tiers, World

_HIDDEN, _BATCH, _LEARNING_RATE, _COPY_EVERY = 64, 128, 1e-3, 100
#: Transitions kept; batches learned from after each round, at least and at most.
_MEMORY, _BATCHES = 50_000, (50, 500)
_ALPHA, _BETA = 0.6, 0.4
#: What an action that is not possible is worth.
_NEVER = -1e9


def _torch() -> Any:
    try:
        return import_module("torch")
    except ImportError:
        raise MissingExtraError(
            "planner `ddpqn` needs torch, which is not installed", hint="pip install 'dnnsplit-onnx[ddpqn]'"
        ) from None


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch compute on one thread: for small networks more are slower, and less repeatable.

    Raises:
        MissingExtraError: torch is not installed.
    """
    torch = _torch()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Learner:
    """A dueling network, its older copy, and the transitions it learns from.

    Args:
        world: What is played.
        seed: Of the first weights and of what is drawn from memory.

    Raises:
        MissingExtraError: torch is not installed.
    """

    def __init__(self, world: World, seed: int) -> None:
        self.torch, self.world = _torch(), world
        self.rng = np.random.default_rng(seed)
        with self.torch.random.fork_rng(devices=[]):
            self.torch.manual_seed(seed)
            self.net, self.older = self._network(), self._network()
        self.older.load_state_dict(self.net.state_dict())
        self.optimizer = self.torch.optim.Adam(self.net.parameters(), lr=_LEARNING_RATE)
        self.features = self.torch.tensor(world.features, dtype=self.torch.float32)
        self.can_go = self.torch.tensor(world.can_go)
        self.learned = 0
        # A transition is (layer, last tier, tier), its reward and its priority.
        self.moves = np.zeros((0, 3), dtype=np.intp)
        self.rewards = np.zeros(0)
        self.priorities = np.zeros(0)

    def policy(self, layer: int, last: Tiers) -> Tiers:
        """The tier of the next layer that promises most."""
        with self.torch.no_grad():
            best: Tiers = self._q(self.net, np.full(len(last), layer), last).argmax(dim=1).numpy()
        return best

    def learn(self, episodes: Episodes, elapsed: float) -> None:
        """Remembers episodes, and learns from what is remembered.

        Args:
            episodes: New ones.
            elapsed: How much of all learning is done, 0 to 1.
        """
        self._remember(episodes)
        low, high = _BATCHES
        for _ in range(min(max(self.world.size, low), high)):
            self._learn_a_batch(_BETA + (1 - _BETA) * elapsed)
            self.learned += 1
            if self.learned % _COPY_EVERY == 0:
                self.older.load_state_dict(self.net.state_dict())

    def _network(self) -> Any:
        nn, world = self.torch.nn, self.world
        seen = world.features.shape[1] + world.tiers
        return nn.ModuleDict(
            {
                "trunk": nn.Sequential(
                    nn.Linear(seen, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU()
                ),
                "value": nn.Linear(_HIDDEN, 1),
                "advantage": nn.Linear(_HIDDEN, world.tiers),
            }
        )

    def _q(self, net: Any, layer: Tiers, last: Tiers) -> Any:
        """Q(s, a), shape (N, K); actions that are not possible are worth `_NEVER`."""
        layers, lasts = self.torch.from_numpy(layer), self.torch.from_numpy(last)
        place = self.torch.nn.functional.one_hot(lasts, self.world.tiers).float()
        seen = net["trunk"](self.torch.cat((self.features[layers], place), dim=1))
        advantage = net["advantage"](seen)
        worth = net["value"](seen) + advantage - advantage.mean(dim=1, keepdim=True)
        return worth.masked_fill(~self.can_go[layers, lasts], _NEVER)

    def _remember(self, episodes: Episodes) -> None:
        count, size = episodes.tiers.shape
        last = np.concatenate((np.zeros((count, 1), dtype=np.intp), episodes.tiers[:, :-1]), axis=1)
        layers = np.broadcast_to(np.arange(size), (count, size))
        moves = np.stack((layers, last, episodes.tiers), axis=2).reshape(-1, 3)
        most_urgent = self.priorities.max(initial=1e-6)
        self.moves = np.concatenate((self.moves, moves))[-_MEMORY:]
        self.rewards = np.concatenate((self.rewards, episodes.rewards.ravel()))[-_MEMORY:]
        self.priorities = np.concatenate((self.priorities, np.full(len(moves), most_urgent)))[-_MEMORY:]

    def _learn_a_batch(self, beta: float) -> None:
        torch = self.torch
        chance = self.priorities**_ALPHA
        chance /= chance.sum()
        drawn = self.rng.choice(len(chance), min(_BATCH, len(chance)), p=chance)
        weight = (len(chance) * chance[drawn]) ** -beta
        layer, last, tier = self.moves[drawn].T.copy()
        target = torch.from_numpy(self.rewards[drawn]).float() + self._promised(layer + 1, tier)
        worth = self._q(self.net, layer, last).gather(1, torch.from_numpy(tier)[:, None])[:, 0]
        error = target - worth
        loss = (torch.from_numpy(weight / weight.max()).float() * error**2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.priorities[drawn] = np.abs(error.detach().numpy()) + 1e-6

    def _promised(self, layer: Tiers, last: Tiers) -> Any:
        """Q'(s', argmax of Q(s', a)); nothing once all layers are placed."""
        goes_on = self.torch.from_numpy(layer < self.world.size)
        layer = np.minimum(layer, self.world.size - 1)
        with self.torch.no_grad():
            chosen = self._q(self.net, layer, last).argmax(dim=1, keepdim=True)
            return self._q(self.older, layer, last).gather(1, chosen)[:, 0] * goes_on
