"""The best partner of each place, where what a pair takes is more than a sum of two terms.

At an offered rate a stage's waiting is a convex function of its seconds, so that for starts
i <= i' and stops j <= j' the pairs (i, j) and (i', j') take no more together than (i, j') and
(i', j): the best start never moves back as the stop moves on (Monge 1781; Yao 1980). The best
of each place is then found by halving: n places take log2(n) sweeps over the others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.intp]
Floats = NDArray[np.float64]


def monotone_argmin(
    low: Positions, high: Positions, value: Callable[[Positions, Positions], Floats]
) -> Positions:
    """For each row the column of least value, the first of equals.

    Args:
        low: The first column of each row, ascending.
        high: One past the last, ascending; no row is empty.
        value: What rows and columns take, element by element; the best column must not move
            back from row to row.
    """
    count = len(low)
    best = np.zeros(count, dtype=np.intp)
    stride = 1
    while stride < count:
        stride *= 2
    while stride >= 1:
        rows = np.arange(stride - 1, count, 2 * stride)
        if len(rows):
            before, after = rows - stride, rows + stride
            least = np.where(before >= 0, np.maximum(low[rows], best[before]), low[rows])
            known = after < count
            most = np.where(
                known, np.minimum(high[rows] - 1, best[np.minimum(after, count - 1)]), high[rows] - 1
            )
            most = np.maximum(most, least)  # rounding may make neighbours disagree
            best[rows] = _first_least(rows, np.minimum(least, high[rows] - 1), most, value)
        stride //= 2
    return best


def _first_least(
    rows: Positions, low: Positions, last: Positions, value: Callable[[Positions, Positions], Floats]
) -> Positions:
    """The first of the least columns from `low` to `last` of each row."""
    last = np.maximum(last, low)
    widths = last - low + 1
    ends = np.cumsum(widths)
    begins = ends - widths
    columns = np.arange(ends[-1]) - np.repeat(begins - low, widths)
    values = value(np.repeat(rows, widths), columns)
    least = np.minimum.reduceat(values, begins)
    at = np.flatnonzero(values == np.repeat(least, widths))
    first: Positions = columns[at[np.searchsorted(at, begins)]]
    return first
