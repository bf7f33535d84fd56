"""Planner `dnnsplit`: algorithms 1-7 of Kayal and Leon-Garcia, IEEE Access 2024.

The paper's greedy: take the best single tier (algorithm 1), then walk its split points SP^m
(eq. 15, our candidates) twice, moving one cut and then the other as long as that improves
(algorithms 2-4 for latency and cost, 5-7 for throughput; the two triples differ in nothing
but the figure compared). The walks are as published; every plan on them is priced by this
package's objective, which corrects eqs. 17, 22 and 23.

Our positions are the paper's layers less one: cutting at position s sends the input of
layer s + 1, and L^m, all layers below, is position n. Where the paper leaves room:

1. Limits are kept if met exactly, as everywhere here; the paper writes `<`.
2. The limit on the objective itself is not tested on the walks, since they only improve it.
   All other limits are, on the split at hand; algorithms 5-7 test the deadline on (si, si)
   in the second walk, which is taken for a misprint.
3. If no single tier keeps all limits, the walk starts from the one with least latency
   (section V-A, algorithm 1; for throughput, section VI, first from one that keeps either),
   and its result may break them: the plan then says so.
4. Two tiers are the edge and one above: one walk moves the one cut. One tier is no choice.

Where eqs. 12-14 fail, the split points are not proven to suffice. The algorithms run all the
same, as published, and the plan says which equation failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.planning.figures import Figures
from dnnsplit_onnx.planning.objective import LIMITED, keeps
from dnnsplit_onnx.planning.problem import Problem, Solution

_Rate = TypeVar("_Rate")


def plan(problem: Problem) -> Solution:
    """The plan that the paper's algorithms choose.

    Raises:
        InputError: There are more than three tiers.
    """
    tiers = len(problem.topology.tiers)
    if tiers > 3:
        raise InputError(
            f"planner `dnnsplit` is defined for at most three tiers, not {tiers}",
            hint="use planner `exact`: it takes any number",
        )
    walk = _Walk(problem)
    optimal_tier = walk.single_tier()
    if tiers == 2:
        walk.improve((si,) for si in walk.split_points)
    elif tiers == 3:
        (walk.edge_is_optimal, walk.near_edge_is_optimal, walk.cloud_is_optimal)[optimal_tier]()
    return Solution(walk.best.cuts, "none", walk.evaluated, assumptions(problem))


class _Walk:
    """OP(L, C, s1, s2), the best plan so far, and the ways the algorithms improve it."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.size = problem.costs.size
        # SP^m (eq. 15); n is L^m, where the algorithms start from, not a split point.
        self.split_points = tuple(s for s in problem.candidates if s < self.size)
        self.best: Figures = problem.figures(problem.single_tier[0])
        self.evaluated = 0

    def look(self, *cuts: int) -> Figures:
        """The figures of a split (eqs. 16, 17 and 23)."""
        self.evaluated += 1
        return self.problem.figures(cuts)

    def single_tier(self) -> int:
        """Algorithm 1: the single tier to start from; sets OP to it."""
        rows = [self.look(*cuts) for cuts in self.problem.single_tier]
        kept = [row for row in rows if not self.problem.violations(row)]
        if not kept and self.problem.objective == "throughput":
            kept = [row for row in rows if len(self.problem.violations(row)) < len(self.problem.limits)]
        if kept:
            self.best = kept[0]
            for row in kept[1:]:
                if self.problem.is_better(row, self.best):
                    self.best = row
        else:
            self.best = min(rows, key=lambda row: row.value("latency"))
        return rows.index(self.best)

    def improve(self, splits: Iterable[tuple[int, ...]]) -> None:
        """Takes each split that is better than OP and keeps the other limits."""
        for cuts in splits:
            if not all(self.problem.open[t, cut] for t, cut in enumerate(cuts)):
                continue
            found = self.look(*cuts)
            if self.problem.is_better(found, self.best) and self._keeps_others(found):
                self.best = found

    def edge_is_optimal(self) -> None:
        """Algorithms 2 and 5: first the rest to the cloud, then what is between to the NE."""
        self.improve(
            (si, si)
            for si in self.split_points
            if self.problem.is_better(self.look(si, si), self.look(si, self.size))
        )
        s2 = self.best.cuts[1]
        self.improve((si, s2) for si in self.split_points if si <= s2)

    def near_edge_is_optimal(self) -> None:
        """Algorithms 3 and 6: first the end to the cloud, then the beginning to the edge."""
        s1 = self.best.cuts[0]
        self.improve((s1, si) for si in self.split_points)
        s2 = self.best.cuts[1]
        self.improve((si, s2) for si in self.split_points if si <= s2)

    def cloud_is_optimal(self) -> None:
        """Algorithms 4 and 7: first the beginning to the edge, then what follows to the NE."""
        self.improve(
            (si, si)
            for si in self.split_points
            if self.problem.is_better(self.look(si, si), self.look(0, si))
        )
        s1 = self.best.cuts[0]
        self.improve((s1, si) for si in self.split_points if si >= s1)

    def _keeps_others(self, figures: Figures) -> bool:
        limits = self.problem.topology.limits
        return all(keeps(figures, limits, m) for m in LIMITED if m != self.problem.objective)


def assumptions(problem: Problem) -> tuple[str, ...]:
    """The paper's assumptions that do not hold, each a sentence (eqs. 12, 13 and 14)."""
    topology = problem.topology
    notes = []
    pairs = list(zip(topology.tiers, topology.tiers[1:], strict=False))
    seconds = problem.costs.seconds_below[:, -1].tolist()
    slower = _first(zip(pairs, seconds, seconds[1:], strict=False), lambda low, high: high >= low)
    if slower is not None:
        notes.append(
            f"eq. 12 of the paper fails: tier `{slower[1].name}` is not faster than `{slower[0].name}`"
        )
    usd = [s * tier.usd_per_s for s, tier in zip(seconds, topology.tiers, strict=True)]
    dearer = _first(zip(pairs, usd, usd[1:], strict=False), lambda low, high: high >= low)
    if dearer is not None:
        notes.append(
            f"eq. 13 of the paper fails: tier `{dearer[1].name}` is not cheaper than `{dearer[0].name}`"
        )
    for t, link in enumerate(topology.links):
        if not (link.usd_per_hour or link.usd_per_gb):
            notes.append(f"eq. 14 of the paper fails: link {t} is free")
            break
    return tuple(notes)


def _first(rows: Iterable[tuple[_Rate, float, float]], fails: Callable[[float, float], bool]) -> _Rate | None:
    return next((pair for pair, low, high in rows if fails(low, high)), None)
