"""Planners side by side: what each finds, how far from the best, and at what effort.

Every planner's cuts are priced by the one objective with live values, whatever the planner
itself believed: planners may be shown another accounting, the paper's `layer-input` say, and a
plan that looked good only to that shows its true value.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dnnsplit_onnx.errors import DnnsplitError, InputError, MissingExtraError
from dnnsplit_onnx.machines.tiers_file import topology_of
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.accepting import Accept, accepted, codes_used
from dnnsplit_onnx.planning.choosing import problem_of
from dnnsplit_onnx.planning.costs import Costs
from dnnsplit_onnx.planning.figures import Objective
from dnnsplit_onnx.planning.objective import ObjectiveFunction
from dnnsplit_onnx.planning.planners import Planner, planner_names, planner_of, usable_planners
from dnnsplit_onnx.planning.planners.bounds import lower_bound
from dnnsplit_onnx.planning.planners.dag import relative_gap
from dnnsplit_onnx.planning.problem import Problem
from dnnsplit_onnx.planning.unknowns import too_little
from dnnsplit_onnx.planning.weights import Weights
from dnnsplit_onnx.views import Tabled
from dnnsplit_onnx.work.analysing import Source
from dnnsplit_onnx.work.cuts import Accounting
from dnnsplit_onnx.work.pictured import analysis_for


@dataclass(frozen=True, slots=True)
class Row:
    """What one planner did.

    Attributes:
        planner: Its name.
        cuts: The cuts it chose, None if it found none; positions of the given order.
        is_prefix: Whether they are prefixes of that order. If not, `cuts` only says how
            many nodes run below each link.
        value: Their true value in the objective's unit (seconds, USD, requests per
            second, joules, or the weighted sum); None if it is unknown.
        gap: How much worse than the best feasible row, 0.1 being ten percent; below 0 for
            a plan that is better only by breaking a limit.
        feasible: Whether the plan keeps to the limits.
        violations: The limits it breaks, each a sentence.
        optimality: What the planner proves, in the accounting it was shown.
        evaluated: Cuts, or combinations of cuts, that it looked at.
        seconds: Time it took.
        notes: What it says of its plan.
        reason: Why there is no plan.
    """

    planner: str
    cuts: tuple[int, ...] | None
    is_prefix: bool
    value: float | None
    gap: float | None
    feasible: bool
    violations: tuple[str, ...]
    optimality: str
    evaluated: int
    seconds: float
    notes: tuple[str, ...] = ()
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON-ready data."""
        return {
            "planner": self.planner,
            "cuts": None if self.cuts is None else list(self.cuts),
            "is_prefix": self.is_prefix,
            "value": self.value,
            "gap": self.gap,
            "feasible": self.feasible,
            "violations": list(self.violations),
            "optimality": self.optimality,
            "evaluated": self.evaluated,
            "seconds": self.seconds,
            "notes": list(self.notes),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Comparison(Tabled):
    """Planners on one problem.

    Attributes:
        objective: What was to be best.
        rows: One a planner.
        lower_bound: What no plan over the DAG falls below; for throughput, in the seconds
            of its slowest step. None if it is not known.
        bound_gap: How far the best feasible row is above that bound, relative to the row; 0
            if it is proven best.
        accounting: What the planners were shown; rows are priced by `live`.
        weights: What the objective `weighted` was.
        model: The model's file.
        order: Name of the order that positions count in.
        unknowns: Why nothing of this is proven: see `Plan.unknowns`.
    """

    objective: Objective
    rows: tuple[Row, ...]
    lower_bound: float | None = None
    bound_gap: float | None = None
    accounting: str = "live"
    weights: Weights | None = None
    model: str | None = None
    order: str | None = None
    unknowns: tuple[str, ...] = ()

    @property
    def best(self) -> Row | None:
        """The best row that keeps the limits; of equals, the first."""
        kept = [row for row in self.rows if row.feasible and row.value is not None]
        sign = -1.0 if self.objective == "throughput" else 1.0
        return min(kept, key=lambda row: sign * (row.value or 0.0), default=None)

    def records(self) -> list[dict[str, Any]]:
        """A row for each planner."""
        return [row.to_dict() for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON-ready data."""
        return {
            "model": self.model,
            "order": self.order,
            "objective": self.objective,
            "weights": None if self.weights is None else self.weights.to_dict(),
            "accounting": self.accounting,
            "lower_bound": self.lower_bound,
            "bound_gap": self.bound_gap,
            "best": None if self.best is None else self.best.planner,
            "unknowns": list(self.unknowns),
            "planners": [row.to_dict() for row in self.rows],
        }


def compare(
    model: Source,
    topology: Topology | str | os.PathLike[str],
    planners: Sequence[str | Planner] | None = None,
    *,
    objective: Objective | ObjectiveFunction = "latency",
    costs: Costs | None = None,
    weights: Weights | Mapping[str, float] | None = None,
    accounting: Accounting = "live",
    bindings: Mapping[str, int] | None = None,
    accept: Accept | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Comparison:
    """Runs planners on one model and topology.

    Args:
        model: An analysis, or what `analyse` takes.
        topology: Tiers, links and limits, or the file that has them.
        planners: Names, or functions `Problem -> Solution`; None is all that are known by a name.
        objective: What is to be best: a name, or a function of `Figures` to be minimised.
        costs: Seconds of each node on each tier in place of the tiers' own; see `costs.cost_table`.
        weights: What the objective `weighted` is.
        accounting: What planners believe a cut to cost; rows are priced by live values.
        bindings: Numbers for symbolic dimensions.
        accept: Says what is wrong with the cuts and codes of a plan, or None; see `plan`.
        progress: Called with planners done, planners in all, and the next one's name.

    Raises:
        InputError: A name is unknown, or none is given.
    """
    chosen = usable_planners() if planners is None else tuple(dict.fromkeys(planners))
    if not chosen:
        raise InputError("no planner to compare", hint=f"known planners: {', '.join(planner_names())}")
    names = [planner_of(planner)[0] for planner in chosen]  # refuses an unknown one before others take time
    topology = topology_of(topology)
    analysis = analysis_for(model, topology, bindings)
    truth = problem_of(analysis, topology, objective, "live", weights, costs)
    shown = truth
    if accounting != "live":
        shown = problem_of(analysis, topology, objective, accounting, weights, costs)
    rows = []
    for done, planner in enumerate(chosen):
        if progress:
            progress(done, len(names), names[done])
        rows.append(run_planner(planner, replace(shown), truth, accept))
    return compared(rows, truth, accounting)


def run_planner(planner: str | Planner, shown: Problem, truth: Problem, accept: Accept | None = None) -> Row:
    """Runs one planner, and prices what it chose by the true problem.

    Args:
        planner: Its name, or the function.
        shown: The problem as the planner sees it.
        truth: The problem as it is, in the same order.
        accept: Says what is wrong with codes.
    """
    name, planned_by = planner_of(planner)
    start = time.perf_counter()
    try:
        judged = accept is not None and name == "exact" and bool(shown.costs.codes)
        solution = accepted(shown, accept) if judged and accept is not None else planned_by(shown)
    except DnnsplitError as error:
        took = time.perf_counter() - start
        return Row(name, None, True, None, None, False, (), "none", 0, took, reason=_reason(error))
    took = time.perf_counter() - start
    planned = truth.in_order(solution.order).with_rows(solution.rows)
    figures = planned.figures(solution.cuts, solution.codes)
    broken = planned.violations(figures)
    if accept is not None and not judged and codes_used(solution.cuts, solution.codes):
        reason = accept(solution.cuts, solution.codes)
        broken = broken if reason is None else (*broken, reason)
    value = figures.value(truth.objective)
    is_known = math.isfinite(value) and not (truth.objective == "throughput" and value == 0)
    return Row(
        planner=name,
        cuts=solution.cuts,
        is_prefix=solution.order is None,
        value=value if is_known else None,
        gap=None,
        feasible=is_known and not broken,
        violations=broken,
        optimality=solution.optimality,
        evaluated=solution.evaluated,
        seconds=took,
        notes=solution.notes,
    )


def compared(rows: Sequence[Row], truth: Problem, accounting: Accounting = "live") -> Comparison:
    """Rows with their gaps to the best of them, and the bound that no plan falls below."""
    bound = None if truth.analysis is None else lower_bound(truth, truth.analysis)
    plain = Comparison(truth.objective, tuple(rows), bound, None, accounting, truth.weights)
    if truth.analysis is not None:
        path = str(truth.analysis.graph.file.path)
        unknown = too_little(truth)
        plain = replace(plain, model=path, order=truth.analysis.order, unknowns=(unknown,) if unknown else ())
    best = plain.best
    if best is None or best.value is None:
        return plain
    with_gaps = tuple(_with_gap(row, best.value, truth.objective) for row in rows)
    gap = None if bound is None else relative_gap(bound, truth.objective, best.value)
    return replace(plain, rows=with_gaps, bound_gap=gap)


def _with_gap(row: Row, best: float, objective: Objective) -> Row:
    if row.value is None:
        return row
    gap = worse_by(row.value, best, objective)
    return row if gap is None else replace(row, gap=gap)


def worse_by(value: float, best: float, objective: Objective) -> float | None:
    """How much worse than the best a figure is, 0.1 being ten percent; None where there is no ratio."""
    mine, theirs = (best, value) if objective == "throughput" else (value, best)
    if theirs == 0:  # no ratio, but for two of nothing
        return 0.0 if mine == 0 else None
    return (mine / theirs - 1) * math.copysign(1, theirs)


def _reason(error: DnnsplitError) -> str:
    is_fixed_by_hint = isinstance(error, MissingExtraError) and error.hint
    return f"{error.message}: {error.hint}" if is_fixed_by_hint else error.message
