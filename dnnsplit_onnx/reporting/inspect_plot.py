"""A model as a curve: what a cut would send at each position, and the work below it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.reporting.colours import COLOURS
from dnnsplit_onnx.reporting.figure import panels, plain
from dnnsplit_onnx.work.inspection import Inspection

_BLUE, _VERMILION = COLOURS[0], COLOURS[6]
_SIZE_LABELS = {"live": "live values (bytes)", "layer-input": "input of one layer (bytes)"}


def plot_inspection(path: Path, inspection: Inspection, *, force: bool = False) -> None:
    """Draws the size of the cut and the share of the work below it, at each position.

    Candidate cuts are marked in both panels; those on the envelope, filled. Where a size is
    unknown or nothing crosses, the curve has a gap.

    Args:
        path: A file whose name ends in `.png` or `.svg`.
        inspection: The model; its accounting is the one that is drawn.
        force: Whether an existing file may be replaced.

    Raises:
        InputError: The name ends in something else.
        MissingExtraError: matplotlib is not installed.
        OutputError: The file exists, or cannot be written.
    """
    with panels(path, force=force, height=5.0, nrows=2, sharex=True, height_ratios=(3, 2)) as (sizes, work):
        _draw_sizes(sizes, inspection)
        _draw_work(work, inspection)
        sizes.figure.align_ylabels()


def _draw_sizes(axes: Any, inspection: Inspection) -> None:
    """The bytes at each cut as steps: a position stands between two nodes."""
    nbytes = inspection.cut_nbytes.astype(np.float64)
    nbytes[nbytes <= 0] = np.nan  # unknown, or nothing crosses: no place on a logarithmic axis
    positions = np.arange(len(nbytes))
    axes.step(positions, nbytes, where="mid", color="0.35", linewidth=1)
    _mark_candidates(axes, inspection, nbytes)
    if np.isfinite(nbytes).any():
        axes.set_yscale("log")
    else:
        axes.text(0.5, 0.5, "no cut has a known size", transform=axes.transAxes, ha="center", color="0.35")
    axes.yaxis.set_major_formatter(import_module("matplotlib.ticker").EngFormatter(unit="B"))
    graph = inspection.analysis.graph
    axes.set(ylabel=_SIZE_LABELS[inspection.accounting], title=plain(graph.file.path.name))
    axes.title.set_fontsize("medium")
    _tidy(axes)
    if inspection.candidates:
        axes.legend(fontsize="small", frameon=False)


def _draw_work(axes: Any, inspection: Inspection) -> None:
    """FLOPs below each cut."""
    analysis = inspection.analysis
    below = analysis.flops_below.astype(np.float64)
    axes.step(np.arange(len(below)), below, where="mid", color="0.35", linewidth=1)
    _mark_candidates(axes, inspection, below)
    axes.yaxis.set_major_formatter(import_module("matplotlib.ticker").EngFormatter())
    counted = "counted work below" if analysis.uncounted else "work below"
    axes.set(xlabel="position of the cut (nodes below it)", ylabel=f"{counted} (FLOP)")
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    _tidy(axes)


def _mark_candidates(axes: Any, inspection: Inspection, heights: NDArray[np.float64]) -> None:
    best = set(inspection.envelope)
    on_envelope = [at for at in inspection.candidates if at in best]
    others = [at for at in inspection.candidates if at not in best]
    _mark(axes, others, heights, "candidate", marker="o", facecolors="white", edgecolors=_BLUE)
    label = "candidate on the envelope"
    _mark(axes, on_envelope, heights, label, marker="D", facecolors=_VERMILION, edgecolors="black")


def _mark(axes: Any, at: Sequence[int], heights: NDArray[np.float64], label: str, **style: Any) -> None:
    if at:
        axes.scatter(at, heights[list(at)], s=28, linewidths=1, zorder=3, clip_on=False, label=label, **style)


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.margins(x=0.02)
