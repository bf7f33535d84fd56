"""What is best over a grid of conditions: a table, a map of decisions, and rows for a file."""

from __future__ import annotations

import csv
import io
import string
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dnnsplit_onnx.planning.figures import Objective
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.planning.sweeping import Axis, SweepPoint, unknowns_of
from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.colours import TERMINAL_COLOURS, plan_colours, plan_key
from dnnsplit_onnx.reporting.comparison import figure
from dnnsplit_onnx.reporting.console import Glyphs, glyphs, grid
from dnnsplit_onnx.work.codes import RAW

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

_ROWS = 40
_LETTERS = string.ascii_uppercase + string.ascii_lowercase
_MOST_UNKNOWNS = 3
_NO_PLAN = "no plan keeps the limits"


def print_sweep(
    console: Console, axes: Sequence[Axis], points: Sequence[SweepPoint], objective: Objective
) -> None:
    """Prints what is decided where; a map for two axes, else a table."""
    marks = glyphs(console)
    is_map = len(axes) == 2 and all(len(axis.values) > 1 for axis in axes)
    if is_map:
        _print_map(console, axes, points, marks)
    else:
        console.print(_table(axes, points, objective, marks))
        if len(points) > _ROWS:
            console.print(f"... ({len(points) - _ROWS:,} more with --json or -o FILE.csv)", style="dim")
    console.print()
    console.print(_summary(points, marks, lettered=is_map))
    enough = all(point.plan is None or point.plan.knows_enough for point in points)
    said = "Not known" if enough else "Too little is known for a verdict"
    for what in unknowns_of(points)[:_MOST_UNKNOWNS]:
        console.print(f"{said}: {units.clean(what)}.", style="dim", soft_wrap=True)


def decision(plan: Plan | None, arrow: str = "->") -> str:
    """What a plan decides: which tiers work, and where the graph is cut for them."""
    if plan is None:
        return _NO_PLAN
    working = [stage for stage in plan.figures.stages if stage.stop > stage.start]
    names = f" {arrow} ".join(units.clean(stage.tier) for stage in working)
    codes = dict.fromkeys(link.code for link in plan.figures.links if link.code != RAW)
    written = f" as {', '.join(codes)}" if codes else ""
    if len(working) < 2:
        return f"all on {names}{written}" if working else "nothing to run"
    return f"{names} at {', '.join(str(stage.stop) for stage in working[:-1])}{written}"


def colour_keys(plans: Iterable[Plan | None], arrow: str = "->") -> dict[str, str]:
    """What each decision is called for its colour, in the order they come; `""` where there is no plan."""
    keys = {}
    for plan in plans:
        key = ""
        if plan is not None:
            working = [stage.tier for stage in plan.figures.stages if stage.stop > stage.start]
            codes = dict.fromkeys(link.code for link in plan.figures.links if link.code != RAW)
            key = " as ".join((plan_key(plan.cuts, working), *codes))
        keys[decision(plan, arrow)] = key
    return keys


def sweep_csv(axes: Sequence[Axis], points: Sequence[SweepPoint]) -> str:
    """The points as CSV: a column an axis, then a plan's figures."""
    keys = [axis.key for axis in axes]
    # A point without a plan has fewer keys; every file has the same columns.
    names = [
        *keys, "feasible", "cuts", "codes", "tiers", "latency_s", "cost_usd", "throughput_per_s", "energy_j",
        "weighted", "best_single_tier", "speedup_vs_best_single_tier", "reason",
    ]  # fmt: skip
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for point in points:
        writer.writerow({name: _cell(value) for name, value in point.to_dict().items()})
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else value


def _table(
    axes: Sequence[Axis], points: Sequence[SweepPoint], objective: Objective, marks: Glyphs
) -> RenderableType:
    table = grid(*(f">{axis.key}" for axis in axes), "=best", f">{objective}", ">vs one tier")
    for point in points[:_ROWS]:
        settings = [f"{value:g}" for value in point.settings.values()]
        if point.plan is None:
            table.add_row(*settings, _NO_PLAN, style="dim")
            continue
        gain = point.plan.speedup_vs_best_single_tier
        value = figure(objective, point.plan.figures.value(objective))
        table.add_row(
            *settings, decision(point.plan, marks.arrow), value, "" if gain is None else units.times(gain)
        )
    return table


def _print_map(console: Console, axes: Sequence[Axis], points: Sequence[SweepPoint], marks: Glyphs) -> None:
    """A letter a point: rows are the first axis, columns the second."""
    from rich.text import Text

    letters = _letters(points, marks)
    rows, columns = axes
    across = len(columns.values)
    headings = [f"{value:g}" for value in columns.values]
    console.print(f"rows: {rows.key}, columns: {columns.key}")
    if (
        max(len(f"{value:g}") for value in rows.values) + sum(len(h) + 2 for h in headings)
        > console.width - 4
    ):
        headings = [""] * across  # too narrow for numbers: letters alone
        console.print(f"columns from {columns.values[0]:g} to {columns.values[-1]:g}")
    table = grid("=", *(f">{heading}" for heading in headings), header=any(headings))
    if not any(headings):
        table = grid("=", "=", header=False)
    for at, value in enumerate(rows.values):
        found = [letters[decision(p.plan, marks.arrow)] for p in points[at * across : (at + 1) * across]]
        table.add_row(f"{value:g}", *(found if any(headings) else [Text.assemble(*found)]))
    console.print(table)


def _letters(points: Sequence[SweepPoint], marks: Glyphs) -> dict[str, Text]:
    """A letter in the plan's colour for each decision, in the order they come; those too many share one."""
    from rich.text import Text

    keys = colour_keys((point.plan for point in points), marks.arrow)
    colours = plan_colours(key for key in keys.values() if key)
    found: dict[str, Text] = {}
    for name, key in keys.items():
        if not key:
            found[name] = Text(marks.dot)
            continue
        count = len(found) - (_NO_PLAN in found)
        letter = _LETTERS[count] if count < len(_LETTERS) else "#"
        found[name] = Text(letter, style=TERMINAL_COLOURS[colours[key][0]])
    return found


def _summary(points: Sequence[SweepPoint], marks: Glyphs, *, lettered: bool) -> RenderableType:
    """The decisions, and at how many points each is best."""
    counts: dict[str, int] = {}
    for point in points:
        name = decision(point.plan, marks.arrow)
        counts[name] = counts.get(name, 0) + 1
    letters = _letters(points, marks)
    table = grid(*([""] if lettered else []), "=decision", ">points", ">share")
    for name, count in sorted(counts.items(), key=lambda item: -item[1])[:_ROWS]:
        row = [name, f"{count:,}", units.percent(count, len(points))]
        table.add_row(*([letters[name]] if lettered else []), *row)
    return table
