"""Which of many points no other beats: the Pareto filter under planners and reports.

Few points are compared all with all, in blocks. Where there are many, three columns take one
sweep over a staircase, and four the halving of Kung, Luccio and Preparata (1975), whose halves
meet in such a sweep; so time stays near the number of points however many are on the front.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 256
_MANY = 4 * _BLOCK
#: Up to here comparing all with all in blocks is faster than halving.
_SWEPT = 16 * _BLOCK
_FEW = 8


def nondominated(columns: Sequence[NDArray[Any]]) -> NDArray[np.intp]:
    """The points that no other is at least as good as, in every column; smaller is better.

    Args:
        columns: One array a figure, all of the same length.

    Returns:
        Places of the front in ascending lexicographic order of the columns; of equal
        points, the first alone.
    """
    if len(columns) < 3 or len(columns[0]) < _MANY:
        return _front(columns)
    left = _not_beaten_by_a_few(columns)
    return left[_front([column[left] for column in columns])]


def _front(columns: Sequence[NDArray[Any]]) -> NDArray[np.intp]:
    order = np.lexsort(tuple(reversed(columns)))
    if not len(order):
        return order
    if len(columns) == 1:
        return order[:1]
    if len(columns) == 2:
        second = columns[1][order]
        lowest = np.minimum.accumulate(second)
        better = np.ones(len(order), dtype=np.bool_)
        better[1:] = second[1:] < lowest[:-1]
        return order[better]
    points = np.stack([column[order] for column in columns])
    if len(columns) == 3 and len(order) > _MANY:
        return order[_along_stairs(points)]
    if len(columns) == 4 and len(order) > _MANY:
        return order[_halved(points, np.arange(len(order)))]
    return order[_sweep(points)]


def _not_beaten_by_a_few(columns: Sequence[NDArray[Any]]) -> NDArray[np.intp]:
    """The points that are left, in their order, once a few good ones have beaten theirs.

    The good ones are those least in their sum of ranks; most points fall to them.
    """
    ranks = np.zeros(len(columns[0]))
    for column in columns:
        ranks += np.searchsorted(np.sort(column), column)
    few = np.argpartition(ranks, _FEW)[:_FEW]
    left = np.arange(len(ranks))
    for good in few:
        beaten, ties = np.ones(len(left), dtype=np.bool_), np.ones(len(left), dtype=np.bool_)
        for column in columns:
            beaten &= column[left] >= column[good]
            ties &= column[left] == column[good]
        left = left[~beaten | ties]
    return left


class _Stairs:
    """Pairs none of which is at least as good as another: ascending in x, descending in y."""

    def __init__(self) -> None:
        self.x: list[float] = []
        self.y: list[float] = []

    def cover(self, x: float, y: float) -> bool:
        """Whether some pair is at least as good as this one."""
        at = bisect_right(self.x, x)
        return at > 0 and self.y[at - 1] <= y

    def add(self, x: float, y: float) -> None:
        """Adds a pair that is not covered; those that it is at least as good as go."""
        first = last = bisect_left(self.x, x)
        while last < len(self.y) and self.y[last] >= y:
            last += 1
        self.x[first:last] = [x]
        self.y[first:last] = [y]


def _along_stairs(points: NDArray[Any]) -> NDArray[np.intp]:
    """Places of the front of points of three figures, in lexicographic order."""
    stairs, kept = _Stairs(), []
    for at, (x, y) in enumerate(zip(points[1].tolist(), points[2].tolist(), strict=True)):
        if not stairs.cover(x, y):
            stairs.add(x, y)
            kept.append(at)
    return np.array(kept, dtype=np.intp)


def _halved(points: NDArray[Any], places: NDArray[np.intp]) -> NDArray[np.intp]:
    """Of some places in lexicographic order of four figures, those on their front."""
    if len(places) <= _SWEPT:
        return places[_sweep(points[:, places])]
    middle = len(places) // 2
    good, others = _halved(points, places[:middle]), _halved(points, places[middle:])
    return np.concatenate((good, others[~_covered(points[1:, good], points[1:, others])]))


def _covered(good: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of the others some good point is at least as good as, in three figures."""
    joined = np.concatenate((good, others), axis=1)
    covered = np.zeros(joined.shape[1], dtype=np.bool_)
    stairs, goods = _Stairs(), good.shape[1]
    is_other = np.arange(joined.shape[1]) >= goods
    # Of equal ones the good come first, so that they are on the stairs when others ask.
    order = np.lexsort((is_other, joined[2], joined[1], joined[0]))
    ys, zs = joined[1].tolist(), joined[2].tolist()
    for at in order.tolist():
        if stairs.cover(ys[at], zs[at]):
            covered[at] = True
        elif at < goods:
            stairs.add(ys[at], zs[at])
    return covered[goods:]


def _sweep(points: NDArray[Any]) -> NDArray[np.intp]:
    """Places of the front of points in lexicographic order: only earlier ones can dominate."""
    kept: list[NDArray[np.intp]] = []
    front = points[1:, :0]
    for start in range(0, points.shape[1], _BLOCK):
        block = points[1:, start : start + _BLOCK]
        alive = np.flatnonzero(~_beaten(front, block))
        block = block[:, alive]
        alive = alive[~np.triu(_as_good(block, block), 1).any(axis=0)]
        kept.append(start + alive)
        front = np.concatenate((front, points[1:, start + alive]), axis=1)
    return np.concatenate(kept)


def _beaten(front: NDArray[Any], block: NDArray[Any]) -> NDArray[np.bool_]:
    beaten = np.zeros(block.shape[1], dtype=np.bool_)
    for start in range(0, front.shape[1], _BLOCK):
        beaten |= _as_good(front[:, start : start + _BLOCK], block).any(axis=0)
    return beaten


def _as_good(points: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
    """Shape (points, others): whether each is at least as good as each other one.

    The first figure is left out: points in lexicographic order are as good in it as all behind them.
    """
    good: NDArray[np.bool_] = points[0][:, None] <= others[0][None]
    for mine, theirs in zip(points[1:], others[1:], strict=True):
        good &= mine[:, None] <= theirs[None]
    return good
