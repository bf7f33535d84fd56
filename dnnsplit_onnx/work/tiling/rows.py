"""Which rows of an input some rows of an output depend on.

All of it is arithmetic on half-open intervals. A sliding window reads, for the outputs
[a, b), the inputs [a s - p, (b - 1) s - p + e): s its stride, p the padding in front, e the
rows that it spans, dilation included. What of it lies outside the input is padding, and only
there, so a tile in the middle of a feature map has none. An operator that makes more rows
than it reads (Resize, DepthToSpace) makes f rows of each, so a tile makes whole multiples of
f and some are cut off again.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Rows:
    """Rows [start, stop) of a value, counted in the whole value."""

    start: int
    stop: int

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def hull(self, other: Rows | None) -> Rows:
        """The least interval that holds both."""
        if other is None:
            return self
        return Rows(min(self.start, other.start), max(self.stop, other.stop))

    def within(self, height: int) -> Rows:
        """What of it lies in [0, height)."""
        return Rows(min(max(self.start, 0), height), max(min(self.stop, height), 0))


@dataclass(frozen=True, slots=True)
class Reading:
    """What making some rows of an output takes.

    Attributes:
        rows: The rows of the input that are read.
        before, after: Rows of padding in front of them and behind.
        made: The rows of the output that this makes; those wanted, or more.
    """

    rows: Rows
    before: int
    after: int
    made: Rows


@dataclass(frozen=True, slots=True)
class Window:
    """A window that slides over rows: that of convolutions, pools and padding.

    `Window()` is that of operators that make row i of row i alone.

    Attributes:
        stride: Input rows from one output row to the next.
        extent: Input rows that one output row spans.
        before, after: Padding of the whole, in front and behind. What a window reads beyond
            the padding behind it (`ceil_mode`) is none.
    """

    stride: int = 1
    extent: int = 1
    before: int = 0
    after: int = 0

    def reads(self, wanted: Rows, height: int) -> Reading:
        """What these rows take of an input of this height.

        Where all that they read is padding, they are made together with the nearest row that
        reads more, because no operator makes something of an input without rows.
        """
        made = wanted
        if self._stop(wanted.stop) <= 0:
            made = Rows(wanted.start, (self.before - self.extent) // self.stride + 2)
        elif self._start(wanted.start) >= height:
            made = Rows((height - 1 + self.before) // self.stride, wanted.stop)
        start, stop = self._start(made.start), self._stop(made.stop)
        rows = Rows(start, stop).within(height)
        return Reading(rows, rows.start - start, max(0, min(stop - rows.stop, self.after)), made)

    def _start(self, row: int) -> int:
        """The first input row that an output row reads."""
        return row * self.stride - self.before

    def _stop(self, row: int) -> int:
        """One past the last input row that the row before this one reads."""
        return self._start(row - 1) + self.extent


@dataclass(frozen=True, slots=True)
class Growth:
    """Each input row becomes `factor` output rows, which may depend on its neighbours as well.

    Attributes:
        factor: Output rows of one input row.
        halo: Neighbours on either side that an output row may read.
    """

    factor: int
    halo: int = 0

    def reads(self, wanted: Rows, height: int) -> Reading:
        """What these rows take of an input of this height."""
        first, last = wanted.start // self.factor, (wanted.stop - 1) // self.factor
        rows = Rows(first - self.halo, last + 1 + self.halo).within(height)
        return Reading(rows, 0, 0, Rows(rows.start * self.factor, rows.stop * self.factor))


Motion = Window | Growth
