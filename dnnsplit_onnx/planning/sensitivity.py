"""Where the best plan changes as a link gets faster or slower.

Under fixed cuts, latency, energy and cost are straight lines in the seconds a bit takes, one
over the bandwidth, and the best plan follows the lowest of all lines. So the places where it
changes are found exactly, by planning again where two known lines meet until no lower one
turns up (the parametric search of Eisner and Severance, 1976). Where limits or throughput
bend the lines, bandwidths are tried on a grid and each change is narrowed down by halves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

from dnnsplit_onnx.errors import InfeasibleError
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.figures import Figures
from dnnsplit_onnx.planning.planners.replan import Replanner
from dnnsplit_onnx.planning.problem import Problem

# Two figures this close are the same one.
_SAME = 1e-9
# Steps of the grid, and how near, relatively, a change on it is narrowed down to.
_STEPS, _NEAR = 48, 1e-4
# Two changes this close, relatively, are one: rounding tells them apart, not the plans.
_APART = 1e-6

_Cuts = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What is best over a range of bandwidths.

    Attributes:
        low_mbps, high_mbps: The range.
        cuts: The position each link crosses; None if no plan keeps to the limits there.
        tiers: The names of the tiers with work.
    """

    low_mbps: float
    high_mbps: float
    cuts: _Cuts | None
    tiers: tuple[str, ...]


@dataclass(frozen=True)
class Sensitivity:
    """Decisions as the bandwidth of one link changes.

    Attributes:
        link: Its index.
        now_mbps: What its bandwidth is.
        decisions: From the lowest bandwidth to the highest, without gaps.
        is_complete: Whether no other plan is best anywhere in between, proven; else plans
            that are best over less than a step of the grid may have been missed.
    """

    link: int
    now_mbps: float
    decisions: tuple[Decision, ...]
    is_complete: bool

    @property
    def breakpoints_mbps(self) -> tuple[float, ...]:
        """The bandwidths at which the best plan changes."""
        return tuple(decision.low_mbps for decision in self.decisions[1:])


def bandwidth_sensitivity(
    problem: Problem, link: int, low_mbps: float | None = None, high_mbps: float | None = None
) -> Sensitivity:
    """The best plans of a problem over a range of bandwidths of one of its links.

    Plans are those of planner `exact`, over the positions of the problem's order. A link
    that gives `down_mbps` keeps it.

    Args:
        problem: The problem.
        link: Index of the link.
        low_mbps: Where to begin; by default a thousandth of the bandwidth that it has.
        high_mbps: Where to end; by default a thousand times as much.
    """
    now = problem.topology.links[link].bandwidth_mbps
    low, high = low_mbps or now / 1e3, high_mbps or now * 1e3
    here = _Varied(problem, link)
    is_complete = problem.objective != "throughput" and not problem.limits
    if is_complete:
        changes = [1 / slowness for slowness in reversed(here.bends(1 / high, 1 / low))]
    else:
        changes = here.changes(low, high)
    bounds = [low]
    bounds += [at for at in changes if at > bounds[-1] * (1 + _APART)]
    decisions = [here.decision(start, stop) for start, stop in pairwise([*bounds, high])]
    return Sensitivity(link, now, tuple(_merged(decisions)), is_complete)


def topology_at(topology: Topology, link: int, mbps: float) -> Topology:
    """A topology in which one link has another bandwidth."""
    return topology.with_link(link, bandwidth_mbps=mbps)


class _Varied:
    """A problem with a link of any bandwidth."""

    def __init__(self, problem: Problem, link: int) -> None:
        self.problem, self.link = problem, link
        self._replanner = Replanner(problem)
        self.best: Callable[[float], _Cuts | None] = lru_cache(maxsize=None)(self._best)

    def _best(self, mbps: float) -> _Cuts | None:
        try:
            return self._replanner.plan(topology_at(self.problem.topology, self.link, mbps).links).cuts
        except InfeasibleError:
            return None

    def figures(self, cuts: _Cuts, mbps: float) -> Figures:
        topology = topology_at(self.problem.topology, self.link, mbps)
        return replace(self.problem, topology=topology).figures(cuts)

    def value(self, cuts: _Cuts, mbps: float) -> float:
        return self.figures(cuts, mbps).value(self.problem.objective)

    def bends(self, fast: float, slow: float) -> list[float]:
        """Seconds per megabit, ascending, at which the lowest line is another one."""
        found: list[float] = []
        ends = [(self.best(1 / at), at) for at in (fast, slow)]
        waiting = [(fast, ends[0][0], slow, ends[1][0])]
        while waiting:
            left, one, right, other = waiting.pop()
            if one is None or other is None or one == other:
                continue
            at = self._meeting(one, other, left, right)
            if at is None:
                continue
            lowest = self.best(1 / at)
            if lowest is None or self._is_same(lowest, one, at):
                found.append(at)
            else:
                waiting += [(left, one, at, lowest), (at, lowest, right, other)]
        return sorted(found)

    def _meeting(self, one: _Cuts, other: _Cuts, left: float, right: float) -> float | None:
        """Where the lines of two plans meet inside a range; None if they do not, or are one."""
        gap = [self.value(other, 1 / at) - self.value(one, 1 / at) for at in (left, right)]
        scale = abs(self.value(one, 1 / left)) * _SAME
        if not all(map(math.isfinite, gap)) or gap[0] <= scale or gap[1] >= -scale:
            return None
        at = left + (right - left) * gap[0] / (gap[0] - gap[1])
        return at if left < at < right else None

    def _is_same(self, one: _Cuts, other: _Cuts, slowness: float) -> bool:
        mine, theirs = self.value(one, 1 / slowness), self.value(other, 1 / slowness)
        return math.isclose(mine, theirs, rel_tol=_SAME)

    def changes(self, low: float, high: float) -> list[float]:
        """Bandwidths, ascending, at which another plan is chosen than a step before."""
        ratio = high / low
        grid = [low * ratio ** (step / _STEPS) for step in range(_STEPS + 1)]
        return [self._narrowed(one, two) for one, two in pairwise(grid) if self.best(one) != self.best(two)]

    def _narrowed(self, low: float, high: float) -> float:
        before = self.best(low)
        while high / low > 1 + _NEAR:
            middle = math.sqrt(low * high)
            low, high = (middle, high) if self.best(middle) == before else (low, middle)
        return high

    def decision(self, low: float, high: float) -> Decision:
        cuts = self.best(math.sqrt(low * high))
        if cuts is None:
            return Decision(low, high, None, ())
        stages = self.problem.figures(cuts).stages
        names = tuple(stage.tier for stage in stages if stage.stop > stage.start)
        return Decision(low, high, cuts, names)


def _merged(decisions: Sequence[Decision]) -> list[Decision]:
    """Neighbours that decide the same made one."""
    kept: list[Decision] = []
    for decision in decisions:
        if kept and kept[-1].cuts == decision.cuts:
            kept[-1] = replace(kept[-1], high_mbps=decision.high_mbps)
        else:
            kept.append(decision)
    return kept


@dataclass(frozen=True, slots=True)
class Sample:
    """The best figures at one bandwidth.

    Attributes:
        mbps: The bandwidth.
        value: The objective of the best plan, None if there is none.
        single: The objective of the best single tier that keeps to the limits, None if
            none does.
    """

    mbps: float
    value: float | None
    single: float | None


def samples(problem: Problem, found: Sensitivity, count: int) -> tuple[Sample, ...]:
    """What the decisions of a study are worth, along its bandwidths.

    Args:
        problem: The problem that was studied.
        found: The study.
        count: At how many bandwidths to look, in equal factors; every place where the best
            plan changes is added.
    """
    low, high = found.decisions[0].low_mbps, found.decisions[-1].high_mbps
    steps = [low * (high / low) ** (step / (count - 1)) for step in range(count)]
    made, at = [], 0
    for mbps in sorted({*steps[:-1], high, *found.breakpoints_mbps}):
        while found.decisions[at].high_mbps < mbps:
            at += 1
        made.append(_sample(problem, found.link, mbps, found.decisions[at].cuts))
    return tuple(made)


def _sample(problem: Problem, link: int, mbps: float, cuts: _Cuts | None) -> Sample:
    here = replace(problem, topology=topology_at(problem.topology, link, mbps))
    rows = [here.figures(one) for one in problem.single_tier]
    kept = [row.value(problem.objective) for row in rows if not here.violations(row)]
    pick = max if problem.objective == "throughput" else min
    value = math.inf if cuts is None else here.figures(cuts).value(problem.objective)
    single = pick(kept, default=math.inf)
    return Sample(mbps, _known(value), _known(single))


def _known(figure: float) -> float | None:
    return figure if math.isfinite(figure) else None
