"""What published planners share: which objectives they know, and tiers taken two at a time.

Most of them know a device, where the data is born, and one machine above it. On a longer
line the device is tier 0 and the other any tier above: each such pair is planned as
published, data passing through the tiers between, and the best pair is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.errors import InfeasibleError, InputError
from dnnsplit_onnx.planning.figures import Measure, Objective
from dnnsplit_onnx.planning.problem import Problem, Solution

_Floats = NDArray[np.float64]


def need_objective(problem: Problem, planner: str, *known: Objective) -> None:
    """Refuses an objective that a paper does not have.

    Raises:
        InputError: The problem's objective is not among those known.
    """
    if problem.objective not in known:
        listed = " or ".join(filter(None, (", ".join(known[:-1]), known[-1])))
        raise InputError(
            f"planner `{planner}` chooses by {listed}, as published, not by {problem.objective}",
            hint="use planner `exact`: it knows every objective",
        )


def until_still(move: Callable[[float], bool], iterations: int, patience: int) -> None:
    """Moves a swarm until its best place stays what it is.

    Args:
        move: Makes one move, given the share of the iterations that is over; says whether the
            best place has become better.
        iterations: The most moves.
        patience: After so many moves that bettered nothing, it ends.
    """
    waited = 0
    for step in range(iterations):
        waited = 0 if move(step / iterations) else waited + 1
        if waited == patience:
            break


@dataclass(frozen=True)
class Pair:
    """Tier 0 and a tier above it, the only two with work.

    Attributes:
        problem: All tiers.
        upper: Index of the tier above.
    """

    problem: Problem
    upper: int

    def cuts(self, position: int) -> tuple[int, ...]:
        """The plan that gives the first nodes to tier 0 and the rest to the upper tier."""
        size, links = self.problem.costs.size, len(self.problem.topology.links)
        return (position,) * self.upper + (size,) * (links - self.upper)

    @property
    def is_open(self) -> NDArray[np.bool_]:
        """Shape (n + 1,): whether the order may be cut there for these two tiers."""
        rows = self.problem.open
        ok: NDArray[np.bool_] = np.logical_and.reduce(rows[: self.upper], axis=0)
        return np.logical_and(ok, rows[self.upper :, -1].all())

    def sent(self, measure: Measure) -> _Floats:
        """Shape (n + 1,): what the links between take at each cut."""
        total: _Floats = self.problem.additive(measure).link[: self.upper].sum(axis=0)
        return total

    def computed(self, measure: Measure) -> tuple[_Floats, _Floats]:
        """Shape (n + 1,) each: what tier 0 takes below each cut, and the upper tier above it."""
        below = self.problem.additive(measure).below
        return below[0], below[self.upper, -1] - below[self.upper]

    @property
    def transfer(self) -> _Floats:
        """Shape (n + 1,): seconds of the links between, without waiting."""
        total: _Floats = self.problem.link_seconds[: self.upper].sum(axis=0)
        return total

    def total(self, measure: Measure) -> _Floats:
        """Shape (n + 1,): an additive figure of each cut."""
        low, high = self.computed(measure)
        return low + high + self.sent(measure)

    @property
    def delay(self) -> _Floats:
        """Shape (n + 1,): latency of each cut, waiting for the two tiers included."""
        figure, size = self.problem.additive("latency"), self.problem.costs.size
        cuts = np.arange(size + 1)
        waiting = figure.waiting(0, np.zeros_like(cuts), cuts)
        waiting = waiting + figure.waiting(self.upper, cuts, np.full(size + 1, size))
        return self.total("latency") + waiting

    @property
    def slowest(self) -> _Floats:
        """Shape (n + 1,): seconds of the slowest stage or transfer of each cut."""
        low, high = self.computed("latency")
        links = self.problem.link_seconds[: self.upper].max(axis=0, initial=0.0)
        slowest: _Floats = np.maximum(np.maximum(low, high), links)
        return slowest


def pairs(problem: Problem) -> Iterator[Pair]:
    """Tier 0 with each tier above it."""
    for upper in range(1, len(problem.topology.tiers)):
        yield Pair(problem, upper)


def scan(
    problem: Problem, planner: str, score: Callable[[Pair], _Floats], notes: Sequence[str] = ()
) -> Solution:
    """The cut and the pair of tiers of least score, every position of the order looked at.

    Args:
        problem: The problem.
        planner: The planner's name, for errors.
        score: What a pair's cuts are worth, shape (n + 1,); less is better.
        notes: What to say of the plan.

    Raises:
        InfeasibleError: There is no position to cut at.
    """
    if not problem.topology.links:
        return Solution((), "none", 1, tuple(notes))
    best, least, looked = None, np.inf, 0
    for pair in pairs(problem):
        worth = np.where(pair.is_open, score(pair), np.inf)
        at = int(worth.argmin())
        looked += len(worth)
        if worth[at] < least:
            best, least = pair.cuts(at), worth[at]
    if best is None:
        raise nowhere(planner)
    return Solution(best, "none", looked, tuple(notes))


def nowhere(planner: str) -> InfeasibleError:
    """The error where rules or unknown sizes close every cut that a planner knows."""
    return InfeasibleError(
        f"planner `{planner}` may cut nowhere: rules or unknown sizes close all cuts that it knows",
        hint="planner `exact` says why",
    )
