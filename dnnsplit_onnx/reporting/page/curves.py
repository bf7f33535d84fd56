"""The model along its order: the bytes that are live at each cut, and the work below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.page.axes import Scale, bottom_axis, left_axis
from dnnsplit_onnx.reporting.page.chart import Drawing, chart, colour, is_small
from dnnsplit_onnx.reporting.page.facts import Facts
from dnnsplit_onnx.reporting.page.markup import Markup, number, tag
from dnnsplit_onnx.reporting.page.words import short
from dnnsplit_onnx.work.cuts import UNKNOWN

# Units: height of the curve of bytes and of that of work, and the room around them.
_BYTES, _WORK, _TOP, _GAP, _BOTTOM = 220, 110, 34, 30, 44
_LEFT = 58


def curves(facts: Facts) -> list[Markup]:
    """The chart: bytes on a logarithmic axis above, cumulative work below."""
    cuts = ", ".join(
        f"{link.position} ({link.source} → {link.target}, {units.nbytes(link.nbytes)})"
        for link in facts.plan.figures.links
    )
    nbytes = facts.cut_nbytes[facts.cut_nbytes > 0]
    span = (
        f"{units.nbytes(int(nbytes.min()))} to {units.nbytes(int(nbytes.max()))}" if len(nbytes) else "none"
    )
    label = (
        f"Live bytes at each of {len(facts.cut_nbytes):,} cuts, from {span}, and cumulative FLOPs along the "
        f"order. {len(facts.inspection.candidates)} candidate cuts. Chosen cuts: {cuts or 'none'}"
    )
    return chart(lambda width: _drawn(facts, width), label)


def _drawn(facts: Facts, width: int) -> Drawing:
    nbytes, below = facts.cut_nbytes, facts.inspection.analysis.flops_below
    size, right = len(nbytes) - 1, width - 8.0
    across = Scale(0.0, max(size, 1), _LEFT, right)
    top, middle = float(_TOP), float(_TOP + _BYTES)
    work_top, bottom = middle + _GAP, middle + _GAP + _WORK
    coded = facts.coded_nbytes
    known = np.concatenate([one[one > 0] for one in (nbytes, *coded.values())])
    low, high = (float(known.min()), float(known.max())) if len(known) else (1.0, 10.0)
    up = Scale(low / 2, max(high * 2, low * 10), middle, top, is_log=True)
    total = float(below[-1]) or 1.0
    work = Scale(0.0, 100.0, bottom, work_top)
    few = is_small(width)
    return Drawing(
        bottom + _BOTTOM,
        [
            *_bands(facts, across, top, bottom),
            *left_axis(up, _LEFT, 5, lambda value: units.nbytes(round(value)), right),
            *left_axis(work, _LEFT, 2, lambda value: f"{value:.0f}%", right),
            *bottom_axis(across, bottom, 4 if few else 10, lambda value: f"{value:,.0f}", top),
            tag("path", d=_steps(nbytes, across, up), class_="curve"),
            *(tag("path", d=_steps(one, across, up), class_="curve coded") for one in coded.values()),
            tag("path", d=_steps(100 * below / total, across, work), class_="curve"),
            *_candidates(facts, across, up),
            *_chosen(facts, across, top, bottom, few=few),
            tag("text", _live(coded), x=_LEFT, y=12, class_="said"),
            tag(
                "text", f"work below the cut, of {units.flops(total)}", x=_LEFT, y=middle + 20, class_="said"
            ),
            tag("text", "position in the order", x=right, y=bottom + 36, text_anchor="end", class_="said"),
        ],
        {
            "data_cut_left": across.start,
            "data_cut_right": right,
            "data_cut_top": top,
            "data_cut_bottom": bottom,
        },
    )


def _live(coded: Mapping[str, NDArray[np.int64]]) -> str:
    """What the curves of bytes are."""
    dashed = f"; dashed, written as {' or '.join(coded)}" if coded else ""
    return f"live bytes at each cut{dashed}"


def _bands(facts: Facts, across: Scale, top: float, bottom: float) -> list[Markup]:
    """A tint behind each tier's nodes."""
    return [
        tag(
            "rect",
            tag("title", f"{stage.tier}: positions {stage.start} to {stage.stop}"),
            x=across(stage.start),
            y=top,
            width=across(stage.stop) - across(stage.start),
            height=bottom - top,
            class_=f"band {colour(t)}",
        )
        for t, stage in enumerate(facts.plan.figures.stages)
        if stage.stop > stage.start
    ]


def _steps(figures: NDArray[np.int64] | NDArray[np.float64], across: Scale, up: Scale) -> str:
    """A curve as a path: up and down at each position, no more than the picture can show.

    Of positions that fall on one unit of width, the least and the largest figure are kept.
    """
    columns: dict[int, list[tuple[int, float]]] = {}
    for at, figure in enumerate(figures.tolist()):
        columns.setdefault(round(across(at)), []).append((at, figure))
    path, is_down = [], False
    for points in columns.values():
        kept = points if len(points) <= 2 else sorted({min(points, key=_size), max(points, key=_size)})
        for at, figure in kept:
            if figure == UNKNOWN:
                is_down = False
                continue
            x, y = number(across(at)), number(up(figure))
            path.append(f"H{x}V{y}" if is_down else f"M{x} {y}")
            is_down = True
    return "".join(path)


def _size(point: tuple[int, float]) -> float:
    return point[1]


def _candidates(facts: Facts, across: Scale, up: Scale) -> list[Markup]:
    return [
        tag(
            "circle",
            tag("title", f"candidate {at}: {units.nbytes(int(facts.cut_nbytes[at]))}"),
            cx=across(at),
            cy=up(float(facts.cut_nbytes[at])),
            r=3.5,
            class_="candidate",
        )
        for at in facts.inspection.candidates
        if facts.cut_nbytes[at] > 0
    ]


def _chosen(facts: Facts, across: Scale, top: float, bottom: float, *, few: bool) -> list[Markup]:
    """A line for each cut of the plan; cuts in one place share it."""
    found: dict[int, list[str]] = {}
    for link in facts.plan.figures.links:
        found.setdefault(link.position, []).append(f"{link.source} → {link.target}")
    parts = []
    for order, (at, links) in enumerate(found.items()):
        x = across(at)
        anchor = _anchor(x, across)
        y = top - 6 if order % 2 == 0 else top + 12
        said = f"cut {at}" if few else short(f"cut {at}: {', '.join(links)}", 44)
        parts += [
            tag(
                "line",
                tag("title", f"cut {at}: {', '.join(links)}"),
                x1=x,
                y1=top - 2,
                x2=x,
                y2=bottom,
                class_="cut",
            ),
            tag("text", said, x=x, y=y, text_anchor=anchor, class_="cut-label"),
        ]
    return parts


def _anchor(x: float, across: Scale) -> str:
    share = (x - across.start) / (across.stop - across.start)
    return "start" if share < 0.2 else "end" if share > 0.8 else "middle"


def positions_shown(candidates: Sequence[int], chosen: Sequence[int]) -> list[int]:
    """The positions that a table of the curve lists: the candidates and the chosen cuts."""
    return sorted({*candidates, *chosen})
