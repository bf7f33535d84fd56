"""Planners side by side, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnsplit_onnx.planning.comparing import Comparison, Row
from dnnsplit_onnx.planning.figures import Objective
from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.console import NARROW, grid

if TYPE_CHECKING:
    from rich.console import Console

# Two values this close are the same one.
_SAME = 1e-9
# A plan this many times worse than the best is shown as a factor.
_MANY_TIMES = 10.0


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Prints what each planner found, and what it said of it."""
    wide = console.width >= NARROW
    aim = comparison.objective
    table = grid("planner", f">{aim}", ">gap", "=cuts at", *([">evaluated"] if wide else []), ">time")
    for row in comparison.rows:
        if row.cuts is None:
            table.add_row(row.planner, "none", style="dim")
            continue
        cuts = ", ".join(map(str, row.cuts)) + ("" if row.is_prefix else " *")
        cells = [row.planner, figure(aim, row.value), gap(row), cuts]
        table.add_row(*cells, *([f"{row.evaluated:,}"] if wide else []), units.seconds(row.seconds))
    console.print(table)
    console.print()
    for line in _remarks(comparison):
        console.print(line, style="dim")


def figure(objective: Objective, value: float | None) -> str:
    """A value of an objective, with its unit."""
    if objective == "weighted" or objective == "custom":
        return units.UNKNOWN if value is None else f"{value:.4g}"
    write = {
        "latency": units.seconds,
        "cost": units.usd,
        "throughput": units.per_second,
        "energy": units.joules,
        "ttft": units.seconds,
        "tpot": units.seconds,
    }[objective]
    return write(value)


def gap(row: Row) -> str:
    """How far a row is from the best, in a word."""
    return gap_text(row.gap, feasible=row.feasible, broken=bool(row.violations))


def gap_text(gap: float | None, *, feasible: bool, broken: bool) -> str:
    """How far something is from the best, in a word."""
    if not feasible:
        return "breaks a limit" if broken else units.UNKNOWN
    if gap is None:
        return units.UNKNOWN
    if abs(gap) <= _SAME:
        return "best"
    return units.times(1 + gap) if gap >= _MANY_TIMES else f"+{units.three_digits(100 * gap)}%"


def _remarks(comparison: Comparison) -> list[str]:
    """The bound, why planners found nothing, and what those say that did."""
    lines = [f"Too little is known for a verdict: {units.clean(what)}." for what in comparison.unknowns]
    if comparison.bound_gap == 0:
        known = "as far as is known" if lines else "proven"
        lines.append(f"No cut of the graph, in whatever order, is better than the best of these ({known}).")
    elif comparison.bound_gap is not None:
        gap = units.percent(comparison.bound_gap, 1)
        lines.append(
            f"No cut of the graph, in whatever order, is more than {gap} better than the best of these."
        )
    if comparison.accounting != "live":
        lines.append(
            "Planners were shown one layer's input as the price of a cut; figures are with live values."
        )
    if any(not row.is_prefix for row in comparison.rows):
        lines.append("* a set of nodes that is no prefix of the order: how many nodes run below the link.")
    for row in comparison.rows:
        said = [row.reason] if row.reason else [*row.violations, *row.notes]
        lines += [f"{row.planner}: {units.clean(sentence)}" for sentence in said]
    return lines
