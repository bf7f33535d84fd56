"""A sweep as a picture: the objective along one axis, or a map of decisions over two."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.planning.figures import Objective
from dnnsplit_onnx.planning.sweeping import Axis, SweepPoint
from dnnsplit_onnx.reporting.colours import COLOURS, plan_colours
from dnnsplit_onnx.reporting.figure import HATCHES, VALUE_LABELS, is_log, picture, scale, with_unit
from dnnsplit_onnx.reporting.sweep_view import colour_keys, decision

_MARKS = "osD^vP*X"
# Where no plan keeps the limits.
_NO_PLAN = "0.9"


def plot_sweep(
    path: Path,
    axes: Sequence[Axis],
    points: Sequence[SweepPoint],
    objective: Objective,
    *,
    force: bool = False,
) -> None:
    """Draws a sweep over one or two axes.

    Args:
        path: A file whose name ends in `.png` or `.svg`.
        axes: What was swept.
        points: The points, as `sweep` gives them.
        objective: What was to be best.
        force: Whether an existing file may be replaced.

    Raises:
        InputError: There are more axes, or the name ends in something else.
        MissingExtraError: matplotlib is not installed.
    """
    check_axes(axes)
    with picture(path, force=force) as drawing:
        (_draw_line if len(axes) == 1 else _draw_map)(drawing, axes, points, objective)


def check_axes(axes: Sequence[Axis]) -> None:
    """Refuses what cannot be drawn.

    Raises:
        InputError: There are more than two axes.
    """
    if len(axes) > 2:
        raise InputError(
            f"a plot shows one axis or two, not {len(axes)}", hint="leave out --plot, or sweep fewer keys"
        )


def _draw_line(
    drawing: Any, axes: Sequence[Axis], points: Sequence[SweepPoint], objective: Objective
) -> None:
    """The objective of the plan, marked by its decision, and of each single tier."""
    (axis,) = axes
    ordered = sorted(zip(axis.values, points, strict=True), key=lambda pair: pair[0])
    planned = [(x, point.plan) for x, point in ordered if point.plan is not None]
    singles: dict[str, list[tuple[float, float]]] = {}
    for x, plan in planned:
        for single in plan.single_tier:
            value = single.value(objective)
            if math.isfinite(value):
                singles.setdefault(single.tier, []).append((x, value))
    styles = ("--", ":", "-.")
    for at, (tier, line) in enumerate(singles.items()):
        drawing.plot(
            *zip(*line, strict=True), styles[at % 3], color="0.5", linewidth=1, label=f"all on {tier}"
        )
    values = [plan.figures.value(objective) for _, plan in planned]
    drawing.plot([x for x, _ in planned], values, color="0.2", linewidth=1, zorder=2)
    keys = colour_keys(plan for _, plan in planned)
    colours = plan_colours(keys.values())
    for at, name in enumerate(keys):
        here = [(x, v) for (x, plan), v in zip(planned, values, strict=True) if decision(plan) == name]
        style = {"color": COLOURS[colours[keys[name]][0]], "marker": _MARKS[at % len(_MARKS)]}
        drawing.scatter(
            *zip(*here, strict=True), label=name, zorder=3, edgecolors="0.2", linewidths=0.5, **style
        )
    scale(drawing.set_xscale, axis.values)
    scale(drawing.set_yscale, [v for _, v in (pair for line in singles.values() for pair in line)] + values)
    drawing.set(xlabel=with_unit(axis.key), ylabel=VALUE_LABELS[objective])
    drawing.grid(alpha=0.3, linewidth=0.5)
    drawing.legend(
        fontsize="small", title="lines: one tier alone; marks: the best plan", title_fontsize="small"
    )


def _draw_map(drawing: Any, axes: Sequence[Axis], points: Sequence[SweepPoint], objective: Objective) -> None:
    """Areas of one decision, each in a colour and, once colours come again, a hatch."""
    rows, columns = axes
    across = len(columns.values)
    keys = colour_keys(point.plan for point in points)
    colours = plan_colours(keys[name] for name in keys if keys[name])
    by_row = sorted(range(len(rows.values)), key=lambda at: rows.values[at])
    by_column = sorted(range(across), key=lambda at: columns.values[at])
    x = _edges([columns.values[at] for at in by_column])
    y = _edges([rows.values[at] for at in by_row])
    for name, key in keys.items():
        colour, before = colours[key] if key else (None, 0)
        style = {
            "facecolor": _NO_PLAN if colour is None else COLOURS[colour],
            "hatch": HATCHES[before % len(HATCHES)],
        }
        is_here = [[decision(points[r * across + c].plan) == name for c in by_column] for r in by_row]
        label = name
        for row, (start, stop) in _runs(is_here):
            sides = [x[start], x[stop]]
            drawing.fill_between(sides, y[row], y[row + 1], linewidth=0, label=label, **style)
            label = "_"  # one entry in the legend is enough
    scale(drawing.set_xscale, columns.values)
    scale(drawing.set_yscale, rows.values)
    drawing.set(
        xlabel=with_unit(columns.key), ylabel=with_unit(rows.key), title=f"best {objective}",
        xlim=(x[0], x[-1]), ylim=(y[0], y[-1]),
    )  # fmt: skip
    drawing.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1.0))


def _runs(grid: Sequence[Sequence[bool]]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Neighbours in a row that are all true: the row, and where they start and stop."""
    for row, cells in enumerate(grid):
        column = 0
        for is_in, run in groupby(cells):
            start, column = column, column + len(list(run))
            if is_in:
                yield row, (start, column)


def _edges(values: Sequence[float]) -> list[float]:
    """Where cells around ascending values begin and end, on the scale that they are drawn on."""
    if len(values) == 1:
        return [values[0] * 0.9 if values[0] else -0.5, values[0] * 1.1 if values[0] else 0.5]
    to, back = (math.log, math.exp) if is_log(values) else (float, float)
    scaled = [to(value) for value in values]
    inner = [(low + high) / 2 for low, high in pairwise(scaled)]
    ends = [scaled[0] - (inner[0] - scaled[0]), *inner, scaled[-1] + (scaled[-1] - inner[-1])]
    return [back(end) for end in ends]
