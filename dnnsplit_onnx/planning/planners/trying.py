"""Plans for an objective of the user's own: a function, of which nothing is known.

No bound and no dominance holds for an arbitrary function, so plans can only be tried:

1. Up to `MOST` combinations of cuts: all of them. The best is best over the order.
2. More: each cut alone is moved to its best position, in turn, until none moves. It starts
   from the best plans for latency, cost, throughput and energy, from each single tier, and
   from combinations drawn at random with a fixed seed. Nothing is proven.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import combinations_with_replacement
from math import comb
from typing import Literal

import numpy as np

from dnnsplit_onnx.errors import InfeasibleError, TopologyError
from dnnsplit_onnx.planning.figures import Figures, Objective
from dnnsplit_onnx.planning.problem import Planner, Problem, Solution

#: Combinations that take about a second, unless the function is slow.
MOST = 20_000
_DRAWN, _SEED = 8, 0

_USUAL: tuple[Objective, ...] = ("cost", "throughput", "energy")
_Cuts = tuple[int, ...]


def try_out(problem: Problem, solve: Planner) -> Solution:
    """The best plan that trying finds.

    Args:
        problem: The problem, with an objective of the user's own.
        solve: What plans for sums and for throughput, exactly.

    Raises:
        InputError: The function returns no number.
        InfeasibleError: No plan keeps to the limits, or the function rules out all that were
            tried.
    """
    size, links = problem.costs.size, len(problem.topology.links)
    trial = _Trial(problem)
    fastest = solve(replace(problem, objective="latency", function=None))  # says why there is none
    if comb(size + links, links) <= MOST:
        trial.add(combinations_with_replacement(range(size + 1), links))
        return trial.solution("order", "every combination of cuts was tried for the objective of your own")
    trial.add([fastest.cuts, *_starts(problem, solve)])
    for start in [cuts for cuts, figures in trial.tried.items() if figures is not None]:
        trial.descend(start)
    return trial.solution(
        "none", "the objective is of your own: cuts were moved one by one while that helped"
    )


class _Trial:
    """The plans that were tried, each priced once.

    Attributes:
        tried: What each takes; None where it is impossible or breaks a limit.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.tried: dict[_Cuts, Figures | None] = {}

    def add(self, plans: Iterable[_Cuts]) -> _Cuts | None:
        """Tries plans; returns the best of them, the first of equals."""
        known = [cuts for cuts in plans if self._figures(cuts) is not None]
        return min(known, key=self._value, default=None)

    def descend(self, cuts: _Cuts) -> None:
        """Moves one cut after the other to where it is best, until none moves."""
        moved = True
        while moved:
            moved = False
            for t in range(len(cuts)):
                best = self.add([cuts, *self._moves(cuts, t)])
                if best is not None and best != cuts:
                    cuts, moved = best, True

    def solution(self, optimality: Literal["order", "none"], note: str) -> Solution:
        """The best of all that was tried."""
        best = self.add(list(self.tried))
        if best is None:
            raise InfeasibleError(
                "the objective of your own is infinite for every plan that was tried",
                hint="return math.inf only for plans that are out of the question",
            )
        return Solution(best, optimality, len(self.tried), (note,))

    def _moves(self, cuts: _Cuts, t: int) -> Iterator[_Cuts]:
        low = cuts[t - 1] if t else 0
        high = cuts[t + 1] if t + 1 < len(cuts) else self.problem.costs.size
        for at in np.flatnonzero(self.problem.open[t, low : high + 1]).tolist():
            yield (*cuts[:t], low + at, *cuts[t + 1 :])

    def _figures(self, cuts: _Cuts) -> Figures | None:
        if cuts not in self.tried:
            self.tried[cuts] = self._kept(cuts)
        return self.tried[cuts]

    def _kept(self, cuts: _Cuts) -> Figures | None:
        if not all(self.problem.open[t, cut] for t, cut in enumerate(cuts)):
            return None
        figures = self.problem.figures(cuts)
        is_out = self.problem.violations(figures) or figures.value(self.problem.objective) == math.inf
        return None if is_out else figures

    def _value(self, cuts: _Cuts) -> float:
        figures = self.tried[cuts]
        return math.inf if figures is None else figures.value(self.problem.objective)


def _starts(problem: Problem, solve: Planner) -> Iterator[_Cuts]:
    """Plans to start from: best ones for the usual objectives, single tiers, random ones."""
    for objective in _USUAL:
        with suppress(InfeasibleError, TopologyError):  # a figure of its own may be unknown
            yield solve(replace(problem, objective=objective, function=None)).cuts
    yield from problem.single_tier
    rng = np.random.default_rng(_SEED)
    links = len(problem.topology.links)
    for cuts in np.sort(rng.integers(0, problem.costs.size + 1, (_DRAWN, links)), axis=1).tolist():
        yield tuple(cuts)
