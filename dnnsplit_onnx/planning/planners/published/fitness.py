"""How good many plans are at once: what searches by swarms and by proposals compare."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.planning.figures import Measure
from dnnsplit_onnx.planning.problem import Problem
from dnnsplit_onnx.planning.waiting import link_station, tier_station

_Floats = NDArray[np.float64]


@dataclass
class Fitness:
    """How good particles are: first whether they keep the limits, then a value; less is better."""

    breaks: NDArray[np.bool_]
    value: _Floats

    def is_better_than(self, other: Fitness) -> NDArray[np.bool_]:
        """Place by place."""
        return np.where(self.breaks == other.breaks, self.value < other.value, other.breaks)

    def take(self, at: NDArray[np.intp] | int) -> Fitness:
        """That of some particles."""
        return Fitness(self.breaks[np.atleast_1d(at)], self.value[np.atleast_1d(at)])

    def put(self, at: NDArray[np.bool_], other: Fitness) -> None:
        """Takes that of others, place by place."""
        self.breaks[at], self.value[at] = other.breaks[at], other.value[at]

    def copy(self) -> Fitness:
        """Another that can be changed by itself."""
        return Fitness(self.breaks.copy(), self.value.copy())

    def first(self) -> int:
        """The place of the best."""
        return int(np.lexsort((self.value, self.breaks))[0])


def _bounds(problem: Problem, cuts: NDArray[np.intp]) -> NDArray[np.intp]:
    """Shape (particles, K + 1): where stages start and stop."""
    size = np.full((len(cuts), 1), problem.costs.size)
    return np.concatenate((np.zeros_like(size), cuts, size), axis=1)


def total(problem: Problem, cuts: NDArray[np.intp], measure: Measure) -> _Floats:
    """An additive figure of each plan, what tiers take for requests at all and waiting included.

    Args:
        problem: The problem.
        cuts: Shape (plans, K - 1): ascending along each row.
        measure: The figure.
    """
    figure = problem.additive(measure)
    bounds = _bounds(problem, cuts)
    found = np.zeros(len(cuts))
    for t, below in enumerate(figure.below):
        starts, stops = bounds[:, t], bounds[:, t + 1]
        found += below[stops] - below[starts] + figure.extra(t, starts, stops)
    for t, link in enumerate(figure.link):
        found += link[cuts[:, t]]
    return found


def slowest(problem: Problem, cuts: NDArray[np.intp]) -> _Floats:
    """Seconds between requests that the slowest stage or transfer of each plan sustains."""
    bounds, topology = _bounds(problem, cuts), problem.topology
    found = np.zeros(len(cuts))
    for t, below in enumerate(problem.costs.seconds_below):
        seconds = below[bounds[:, t + 1]] - below[bounds[:, t]]
        np.maximum(found, tier_station(topology, t).step(seconds), out=found)
    for t, link in enumerate(problem.link_seconds):
        np.maximum(found, link_station(topology, t).step(link[cuts[:, t]]), out=found)
    return found


def breaks_limits(problem: Problem, cuts: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Plans that break a limit: on a sum, on memory, on the pace, or on where links may be cut."""
    bounds = _bounds(problem, cuts)
    breaks = np.zeros(len(cuts), dtype=np.bool_)
    for t, row in enumerate(problem.open):
        breaks |= ~row[cuts[:, t]]
    windows = problem.windows(
        () if problem.objective == "throughput" or problem.objective == "custom" else (problem.objective,)
    )
    for t, window in enumerate(windows):
        if window is not None:
            breaks |= bounds[:, t] < window[bounds[:, t + 1]]
    for measure, limit in problem.limits.items():
        breaks |= total(problem, cuts, measure) > limit * (1 + 1e-12)
    pace = problem.pace
    if (rate := problem.topology.workload.requests_per_s) is not None:
        pace = min(pace, 1 / rate)
    return breaks | (slowest(problem, cuts) > pace)
