"""Planners side by side as a picture: what each found beside the best, and its time."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from dnnsplit_onnx.planning.comparing import Comparison, Row
from dnnsplit_onnx.reporting.colours import COLOURS
from dnnsplit_onnx.reporting.comparison import gap
from dnnsplit_onnx.reporting.figure import VALUE_LABELS, panels, plain, scale

_BLUE, _ORANGE, _GREEN = COLOURS[0], COLOURS[1], COLOURS[2]
_HEAD_INCHES, _ROW_INCHES = 1.4, 0.3
# A bound farther away than this says nothing of the plans, and would squeeze them together.
_LOOSE = 0.5


def plot_comparison(path: Path, comparison: Comparison, *, force: bool = False) -> None:
    """Draws the value of each planner's plan beside the best, and its planning time.

    Dots, not bars: they are read by position, so a logarithmic axis does not deceive.

    Args:
        path: A file whose name ends in `.png` or `.svg`.
        comparison: What the planners found.
        force: Whether an existing file may be replaced.

    Raises:
        InputError: The name ends in something else.
        MissingExtraError: matplotlib is not installed.
        OutputError: The file exists, or cannot be written.
    """
    height = _HEAD_INCHES + _ROW_INCHES * len(comparison.rows)
    layout = {"ncols": 2, "sharey": True, "width_ratios": (3, 2)}
    with panels(path, force=force, width=8.0, height=height, **layout) as (values, times):
        _draw_values(values, comparison)
        _draw_times(times, comparison)
        values.set_yticks(range(len(comparison.rows)), [plain(row.planner) for row in comparison.rows])
        values.set_ylim(len(comparison.rows) - 0.5, -0.5)  # the first planner on top
        values.figure.legend(
            *values.get_legend_handles_labels(), fontsize="small", frameon=False, ncols=4,
            loc="outside lower center",
        )  # fmt: skip


def _draw_values(axes: Any, comparison: Comparison) -> None:
    """The figure that was to be best; what breaks a limit or is missing says so."""
    best = comparison.best
    if best is not None and best.value is not None:
        label = "optimum (proven)" if comparison.bound_gap == 0 and not comparison.unknowns else "best found"
        axes.axvline(best.value, color=_GREEN, linewidth=1.2, zorder=1, label=label)
    bound = _bound(comparison)
    if bound is not None:
        axes.axvline(bound, color="0.4", linestyle=":", linewidth=1.2, zorder=1, label="bound for any plan")
    known = [(at, row) for at, row in enumerate(comparison.rows) if row.value is not None]
    kept = [(at, row) for at, row in known if row.feasible]
    broken = [(at, row) for at, row in known if not row.feasible]
    _dots(axes, kept, "keeps the limits", marker="o", color=_BLUE)
    _dots(axes, broken, "breaks a limit", marker="X", color=_ORANGE)
    scale(axes.set_xscale, [row.value for _, row in known if row.value is not None])
    for at, row in enumerate(comparison.rows):
        _note(axes, at, row)
    axes.set(xlabel=VALUE_LABELS[comparison.objective])
    axes.margins(x=0.15)
    if axes.get_xscale() == "linear":
        axes.set_xlim(left=0)  # so that a gap looks as large as it is
        axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4), useMathText=True)
    _tidy(axes)


def _bound(comparison: Comparison) -> float | None:
    """The bound in the unit of the values, where it says something that the best does not."""
    bound = comparison.lower_bound
    if bound is None or bound <= 0 or not comparison.bound_gap or comparison.bound_gap > _LOOSE:
        return None
    return 1 / bound if comparison.objective == "throughput" else bound


def _note(axes: Any, at: int, row: Row) -> None:
    """What a dot does not say: how far it is from the best, or why it is missing."""
    style = {"va": "center", "fontsize": "small", "zorder": 4}
    if row.value is None:
        text = "no plan" if row.cuts is None else "value unknown"
        behind = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        axes.text(0.02, at, text, transform=axes.get_yaxis_transform(), bbox=behind, color="0.35", **style)
    elif row.feasible and row.gap:
        axes.annotate(gap(row), (row.value, at), xytext=(7, 0), textcoords="offset points", **style)


def _draw_times(axes: Any, comparison: Comparison) -> None:
    rows = list(enumerate(comparison.rows))
    axes.scatter([row.seconds for _, row in rows], [at for at, _ in rows], s=28, color=_BLUE, zorder=3)
    if all(row.seconds > 0 for _, row in rows):
        axes.set_xscale("log")
        axes.xaxis.get_major_locator().set_params(numticks=5)  # more would run into each other
    axes.xaxis.set_major_formatter(import_module("matplotlib.ticker").EngFormatter(unit="s"))
    axes.set(xlabel="planning time (s)")
    axes.margins(x=0.1)
    _tidy(axes)


def _dots(axes: Any, rows: list[tuple[int, Row]], label: str, **style: Any) -> None:
    if rows:
        at = [at for at, _ in rows]
        axes.scatter([row.value for _, row in rows], at, s=36, zorder=3, label=label, **style)


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.tick_params(axis="y", length=0)
