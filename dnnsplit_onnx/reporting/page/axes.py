"""Scales of charts: from figures to coordinates, and where their ticks are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dnnsplit_onnx.reporting.page.markup import Markup, tag

# Figures that span more than this are shown on a logarithmic scale.
_WIDE = 30.0
# A tick nearer than this to the left edge is labelled to its right.
_EDGE = 16.0


@dataclass(frozen=True, slots=True)
class Scale:
    """A line from `low` to `high`, drawn from `start` to `stop`.

    Attributes:
        low, high: Figures at its ends; both above 0 if it is logarithmic.
        start, stop: Coordinates of its ends.
        is_log: Whether equal factors, not equal steps, are equally long.
    """

    low: float
    high: float
    start: float
    stop: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """The coordinate of a figure; those beyond an end are put there."""
        value = min(max(value, self.low), self.high)
        if self.is_log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def ticks(self, most: int) -> list[float]:
        """Round figures along it, as many as fit."""
        return _decades(self.low, self.high, most) if self.is_log else _steps(self.low, self.high, most)


def fitted(values: Iterable[float], start: float, stop: float, *, spread: float = 0.08) -> Scale:
    """A scale that shows all of these figures, logarithmic if they are far apart.

    Args:
        values: Finite figures, at least one.
        start: Coordinate of its lower end.
        stop: Coordinate of its upper end.
        spread: Room beyond the outermost ones, in parts of the whole.
    """
    found = list(values)
    low, high = min(found), max(found)
    if low > 0 and high / low > _WIDE:
        room = (high / low) ** spread
        return Scale(low / room, high * room, start, stop, is_log=True)
    room = (high - low) * spread or abs(high) * 0.5 or 1.0
    least = max(0.0, low - room) if low >= 0 else low - room
    return Scale(least, high + room, start, stop)


def bottom_axis(scale: Scale, y: float, most: int, write: Callable[[float], str], top: float) -> list[Markup]:
    """Ticks with labels below a chart, and a grid line at each up to `top`."""
    parts = []
    for value in scale.ticks(most):
        x = scale(value)
        anchor = "start" if x < _EDGE else "middle"  # or its left half would be cut off
        parts += [
            tag("line", x1=x, y1=top, x2=x, y2=y + 4, class_="grid"),
            tag("text", write(value), x=x, y=y + 17, text_anchor=anchor, class_="tick"),
        ]
    return parts


def left_axis(scale: Scale, x: float, most: int, write: Callable[[float], str], right: float) -> list[Markup]:
    """Ticks with labels left of a chart, and a grid line at each up to `right`."""
    parts = []
    for value in scale.ticks(most):
        y = scale(value)
        parts += [
            tag("line", x1=x - 4, y1=y, x2=right, y2=y, class_="grid"),
            tag("text", write(value), x=x - 7, y=y + 4, text_anchor="end", class_="tick"),
        ]
    return parts


def _decades(low: float, high: float, most: int) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = max(1, math.ceil((last - first + 1) / max(1, most)))
    found = [10.0**power for power in range(first, last + 1, every)]
    if len(found) < 2:
        digits = [m * 10.0**p for p in range(first - 1, last + 2) for m in (1, 2, 5)]
        found = [value for value in digits if low <= value <= high]
    return found


def _steps(low: float, high: float, most: int) -> list[float]:
    if high <= low:
        return [low]
    rough = (high - low) / max(1, most)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= rough * (1 - 1e-9))
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
