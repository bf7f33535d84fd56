"""Planners side by side: what each finds, how far from the best, and at what effort.

Every planner's cuts are priced by the one objective, with live values, whatever the planner
itself believed: a plan that looked good only to its own accounting shows its true value.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dnnsplit_onnx.errors import DnnsplitError
from dnnsplit_onnx.planners import get_planner
from dnnsplit_onnx.planners.problem import Problem


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one planner did.

    Attributes:
        planner: Its name.
        cuts: The cuts it chose, None if it found none.
        value: Their true value in the objective's unit (seconds, USD, requests per
            second, joules).
        gap: How much worse than the best of all rows, 0.1 being ten percent.
        feasible: Whether the plan keeps to the limits.
        optimality: What the planner proves.
        evaluated: Cuts, or combinations of cuts, it looked at.
        seconds: Time it took.
        reason: Why there is no plan.
    """

    planner: str
    cuts: tuple[int, ...] | None
    value: float | None
    gap: float | None
    feasible: bool
    optimality: str
    evaluated: int
    seconds: float
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON-ready data."""
        return asdict(self)


def compare(problem: Problem, planners: Sequence[str]) -> tuple[Comparison, ...]:
    """Runs planners on one problem.

    Args:
        problem: What is to be planned; planners see its accounting.
        planners: Names in `planners.PLANNERS`.

    Raises:
        InputError: A name is unknown.
    """
    rows = [_run(problem, name) for name in planners]
    values = [row.value for row in rows if row.value is not None and row.feasible]
    if not values:
        return tuple(rows)
    maximise = problem.objective == "throughput"
    best = max(values) if maximise else min(values)
    return tuple(_with_gap(row, best, maximise) for row in rows)


def _run(problem: Problem, name: str) -> Comparison:
    planner = get_planner(name)
    start = time.perf_counter()
    try:
        solution = planner(problem)
    except DnnsplitError as error:
        took = time.perf_counter() - start
        return Comparison(name, None, None, None, False, "none", 0, took, error.message)
    took = time.perf_counter() - start
    figures = problem.figures(solution.cuts)
    value = figures.value(problem.objective)
    return Comparison(
        planner=name,
        cuts=solution.cuts,
        value=value if math.isfinite(value) else None,
        gap=None,
        feasible=not problem.violations(figures),
        optimality=solution.optimality,
        evaluated=solution.evaluated,
        seconds=took,
    )


def _with_gap(row: Comparison, best: float, maximise: bool) -> Comparison:
    if row.value is None or best == 0 or row.value == 0:
        return row
    ratio = best / row.value if maximise else row.value / best
    return Comparison(**(asdict(row) | {"cuts": row.cuts, "gap": ratio - 1}))
