"""Multipliers for limits: bounds and good plans for the label search, fast.

Whatever lambda >= 0, no plan within the limits takes less than

    min over plans of (objective + sum of lambda_r * (figure_r - limit_r)),

which is a dynamic program without limits. The lambda that makes this greatest is found one
limit at a time, by cutting where the lines of two plans meet, one that breaks the limit and
one that keeps it, until no plan lies below (Handler and Zang 1980; LARAC). The plans met on
the way that keep all limits give an incumbent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dnnsplit_onnx.planning.additive import Additive
from dnnsplit_onnx.planning.planners.chain import Chain, about_least
from dnnsplit_onnx.planning.planners.labels import combine

#: How often each limit is taken in turn where there are several, and lines are cut for one.
_ROUNDS, _STEPS = 3, 25
_CLOSE = 1e-9

#: The figures of cuts, the objective first, and whether they keep every limit.
Judge = Callable[[tuple[int, ...]], tuple[list[float], bool]]


@dataclass
class Duals:
    """What the multipliers told.

    Attributes:
        weights: Of the objective (1) and each limited figure, where the bound is greatest.
        lower: The greatest bound.
        cuts: The best plan met that keeps the limits, None if none was met.
        upper: Its objective.
    """

    weights: list[float]
    lower: float = -np.inf
    cuts: tuple[int, ...] | None = None
    upper: float = np.inf


@dataclass(frozen=True)
class Relaxation:
    """A problem whose limits are priced instead of kept.

    Attributes:
        chain: The plans.
        figures: The objective, then each limited figure.
        limits: Of each limited figure.
        judge: What cuts take, and whether they keep every limit.
    """

    chain: Chain
    figures: Sequence[Additive]
    limits: Sequence[float]
    judge: Judge

    def duals(self) -> Duals:
        """Good multipliers for the limits."""
        found = Duals([1.0] + [0.0] * len(self.limits))
        for _ in range(_ROUNDS if len(self.limits) > 1 else 1):
            for r in range(1, len(self.figures)):
                self._improve(found, r)
        return found

    def _improve(self, found: Duals, r: int) -> None:
        """Finds the best multiplier of figure r, the others as they are."""
        weights = list(found.weights)
        weights[r] = 0.0
        fixed = list(weights)
        over = self._plan(found, weights)
        under = self._plan(found, [float(s == r) for s in range(len(weights))], is_bound=False)
        if over[r] <= self.limits[r - 1] or under[r] > self.limits[r - 1]:
            return
        for _ in range(_STEPS):
            rise = _weigh(fixed, under) - _weigh(fixed, over)
            if rise <= 0 or over[r] <= under[r]:
                return
            weights[r] = rise / (over[r] - under[r])
            line = _weigh(weights, over)
            met = self._plan(found, weights)
            if _weigh(weights, met) >= line - _CLOSE * abs(line):
                return
            if met[r] > self.limits[r - 1]:
                over = met
            else:
                under = met

    def _plan(self, found: Duals, weights: list[float], is_bound: bool = True) -> list[float]:
        """The figures of a plan least in a weighted sum; keeps what is best of all so far."""
        cuts = about_least(self.chain, combine(self.figures, weights))
        values, keeps = self.judge(cuts)
        if keeps and values[0] < found.upper:
            found.cuts, found.upper = cuts, values[0]
        lower = _weigh(weights, values) - sum(
            weight * limit for weight, limit in zip(weights[1:], self.limits, strict=True) if weight
        )
        if is_bound and lower > found.lower:
            found.lower, found.weights = lower, list(weights)
        return values


def _weigh(weights: Sequence[float], values: Sequence[float]) -> float:
    return sum(weight * value for weight, value in zip(weights, values, strict=True) if weight)
