"""Bars: where a request's time goes, each part starting where the one before it stops."""

from __future__ import annotations

import math

from dnnsplit_onnx.planning.figures import Figures
from dnnsplit_onnx.reporting.console import Glyphs


def waterfall(figures: Figures, width: int, glyphs: Glyphs) -> list[str]:
    """A bar a tier: its compute, then the transfer to the next tier.

    Args:
        figures: Stages and transfers.
        width: Columns that stand for the whole latency.
        glyphs: What to draw with.

    Returns:
        As many lines as tiers, none longer than `width`. Whatever takes any time has at
        least one column; parts of unknown length have none.
    """
    seconds = [stage.seconds for stage in figures.stages] + [link.seconds for link in figures.links]
    total = math.fsum(map(_known, seconds))
    lines = []
    elapsed = 0.0
    for at, stage in enumerate(figures.stages):
        line, elapsed = _extend("", elapsed, stage.seconds, total, width, glyphs.compute)
        if at < len(figures.links):
            line, elapsed = _extend(line, elapsed, figures.links[at].seconds, total, width, glyphs.transfer)
        lines.append(line)
    return lines


def _extend(
    line: str, elapsed: float, seconds: float, total: float, width: int, mark: str
) -> tuple[str, float]:
    """The line with a part drawn from `elapsed` on, and the time at the part's end."""
    seconds = _known(seconds)
    end = elapsed + seconds
    if seconds == 0 or total == 0:
        return line, end
    start = min(round(width * elapsed / total), width - 1)
    stop = min(max(round(width * end / total), start + 1, len(line) + 1), width)
    start = max(start, len(line))
    return line.ljust(start) + mark * (stop - start), end


def _known(seconds: float) -> float:
    return 0.0 if math.isnan(seconds) else seconds
