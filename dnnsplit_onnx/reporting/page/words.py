"""Words that several parts of the page use."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.work.analysis import Analysis


def short(said: str, most: int) -> str:
    """Text of at most so many letters, the end cut off where there are more."""
    said = units.clean(said)
    return said if len(said) <= most else f"{said[: most - 1]}…"


def shape_of(operators: Sequence[str]) -> str:
    """Operators in a row, repetitions counted: `Conv, 2 Relu`."""
    runs = [(name, len(list(same))) for name, same in groupby(operators)]
    return ", ".join(name if count == 1 else f"{count} {name}" for name, count in runs)


def made_by(analysis: Analysis, at: int) -> str:
    """A node in a line: its position, operator, name, work and bytes."""
    node, work = analysis.graph.nodes[at], analysis.work[at]
    flops = "work unknown" if work is None else units.flops(work.flops)
    made, weights = analysis.output_nbytes(at), analysis.weight_nbytes(at)
    return f"{at}: {node.op_type} {node.name}, {flops}, makes {units.nbytes(made)}" + (
        f", {units.nbytes(weights)} of weights" if weights else ""
    )


def mbps(value: float) -> str:
    """A bandwidth: `3.07 Mbit/s`, `1.2 Gbit/s`, `40 kbit/s`."""
    for limit, factor, unit in ((1.0, 1e3, "kbit/s"), (1e3, 1.0, "Mbit/s"), (float("inf"), 1e-3, "Gbit/s")):
        if value < limit:
            return f"{value * factor:.3g} {unit}"
    raise AssertionError("every bandwidth is below infinity")


def cuts_text(cuts: Sequence[int] | None) -> str:
    """The cuts of a plan."""
    if cuts is None:
        return "no plan keeps to the limits"
    return ", ".join(map(str, cuts)) if cuts else "none"


def tiers_text(tiers: Sequence[str]) -> str:
    """The tiers at work."""
    return " → ".join(tiers) if tiers else "none"
