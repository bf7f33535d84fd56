"""Where a request's time goes: a bar for each tier and link, one after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dnnsplit_onnx.planning.figures import Figures
from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.page.axes import Scale, bottom_axis
from dnnsplit_onnx.reporting.page.chart import Drawing, chart, colour, is_small
from dnnsplit_onnx.reporting.page.markup import Markup, tag
from dnnsplit_onnx.reporting.page.words import short

_STEP, _BAR, _TOP = 42, 16, 4


@dataclass(frozen=True, slots=True)
class Part:
    """A bar.

    Attributes:
        said: What it stands for.
        seconds: How long it is.
        start: When it begins, in seconds.
        kind: The class that it is drawn with.
    """

    said: str
    seconds: float
    start: float
    kind: str


def parts_of(figures: Figures) -> list[Part]:
    """The bars of a request: what each tier computes, then what its link transfers."""
    found: list[Part] = []
    elapsed = 0.0
    for t, stage in enumerate(figures.stages):
        said = f"{stage.tier}: {_computes(stage.stop - stage.start, stage.seconds)}"
        steps = [(said, stage.seconds, f"fill {colour(t)}")]
        if t < len(figures.links):
            link = figures.links[t]
            sends = f"sends {units.nbytes(link.nbytes)} in {units.seconds(link.seconds)}"
            is_idle = link.seconds == 0
            steps.append(
                (f"{link.source} → {link.target}: {'idle' if is_idle else sends}", link.seconds, "sent")
            )
        for words, seconds, kind in steps:
            found.append(Part(words, seconds, elapsed, kind))
            elapsed += 0.0 if math.isnan(seconds) else seconds
    return found


def timeline(figures: Figures) -> list[Markup]:
    """The chart; unknown times have no bar."""
    parts = parts_of(figures)
    total = math.fsum(part.seconds for part in parts if not math.isnan(part.seconds))
    said = "; ".join(part.said for part in parts)
    return chart(lambda width: _drawn(parts, total, width), f"A request takes {units.seconds(total)}. {said}")


def _computes(nodes: int, seconds: float) -> str:
    return f"{units.count(nodes, 'node')} in {units.seconds(seconds)}" if nodes else "no work"


def _drawn(parts: list[Part], total: float, width: int) -> Drawing:
    scale = Scale(0.0, total or 1.0, 2.0, width - 30.0)
    drawn = []
    for row, part in enumerate(parts):
        y = _TOP + row * _STEP
        drawn.append(
            tag("text", short(part.said, 52 if is_small(width) else 120), x=2, y=y + 14, class_="said")
        )
        if not math.isnan(part.seconds) and part.seconds > 0:
            x = scale(part.start)
            long = max(scale(part.start + part.seconds) - x, 1.5)
            drawn.append(tag("rect", x=x, y=y + 20, width=long, height=_BAR, class_=part.kind))
    bottom = _TOP + len(parts) * _STEP + 4
    axis = bottom_axis(scale, bottom, 3 if is_small(width) else 7, _tick, _TOP)
    return Drawing(bottom + 24, [*axis, *drawn])


def _tick(seconds: float) -> str:
    return units.seconds(seconds)
