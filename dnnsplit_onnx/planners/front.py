"""Which of many points no other beats: the Pareto filter under planners and reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 256
_MANY = 4 * _BLOCK
_FEW = 32


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
    return _sweep(np.stack([column[order] for column in columns]), order)


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


def _sweep(points: NDArray[Any], order: NDArray[np.intp]) -> NDArray[np.intp]:
    """The front of points in lexicographic order: only earlier ones can dominate."""
    kept: list[NDArray[np.intp]] = []
    front = points[:, :0]
    for start in range(0, points.shape[1], _BLOCK):
        block = points[:, start : start + _BLOCK]
        alive = np.flatnonzero(~_beaten(front, block))
        block = block[:, alive]
        within = np.all(block[:, :, None] <= block[:, None, :], axis=0)
        alive = alive[~np.triu(within, 1).any(axis=0)]
        kept.append(order[start + alive])
        front = np.concatenate((front, points[:, start + alive]), axis=1)
    return np.concatenate(kept)


def _beaten(front: NDArray[Any], block: NDArray[Any]) -> NDArray[np.bool_]:
    beaten = np.zeros(block.shape[1], dtype=np.bool_)
    for start in range(0, front.shape[1], _BLOCK):
        part = front[:, start : start + _BLOCK]
        beaten |= np.all(part[:, :, None] <= block[:, None, :], axis=0).any(axis=0)
    return beaten
