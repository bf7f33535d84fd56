"""Where blocks of a model end: positions at which as few values cross as anywhere.

A chain of residual blocks, inception modules or transformer layers is joined by single values; one
whose norms were fused with the sums before them, by two. So these positions separate its repeated structure,
whatever its nodes are called, and are where plans cut that the candidates do not serve: under limits
of memory, for throughput, with pins, or where no byte is saved.

States cross no cut. What accompanies the chain from end to end, such as a mask or positions that every
layer reads, crosses everywhere and tells nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.cuts import UNKNOWN, lifetimes

#: No more segments than these are made; each opens a session.
MOST_SEGMENTS = 16
#: Segments of fewer nodes stay whole: their time is mostly that of starting a run.
FEWEST_NODES = 8
# What so many nodes read over more than this share of the chain accompanies it, and is none of its links.
_MANY_READERS, _LONGEST_SHARE = 3, 0.5


def with_blocks(analysis: Analysis, cuts: Iterable[int]) -> list[int]:
    """Cuts, and block boundaries between them until no segment has more than a sixteenth of the work.

    Args:
        analysis: The model.
        cuts: Positions strictly between the first node and the last, ascending.
    """
    chosen, ends = sorted(set(cuts)), block_ends(analysis)
    below = analysis.flops_below.astype(np.float64)
    while len(chosen) + 1 < MOST_SEGMENTS:
        bounds = [0, *chosen, len(analysis.graph.nodes)]
        split = (_middle(below, ends, start, stop) for start, stop in pairwise(bounds))
        best = max((found for found in split if found is not None), default=None)
        if best is None or best[0] * MOST_SEGMENTS <= below[-1]:
            break
        chosen = sorted({*chosen, best[1]})
    return chosen


def block_ends(analysis: Analysis) -> list[int]:
    """The inner positions at which fewest values cross, those aside that all layers read; ascending."""
    graph, size = analysis.graph, len(analysis.graph.nodes)
    change = np.zeros(size + 2, dtype=np.int64)
    readers = Counter(value for node in graph.nodes for value in set(node.inputs))
    for value, born, last in lifetimes(graph):
        if readers[value] < _MANY_READERS or last - born <= _LONGEST_SHARE * size:
            change[born] += 1
            change[last + 1] -= 1
    crossing, nbytes = np.cumsum(change), analysis.cut_nbytes()
    inner = [at for at in range(1, size) if nbytes[at] != UNKNOWN and crossing[at] > 0]
    fewest = min((int(crossing[at]) for at in inner), default=0)
    return [at for at in inner if crossing[at] == fewest]


def _middle(below: np.ndarray, ends: list[int], start: int, stop: int) -> tuple[float, int] | None:
    """A segment's work, and the block's end nearest to its middle; None if it stays whole."""
    inside = ends[bisect_left(ends, start + 1) : bisect_left(ends, stop)]
    if stop - start < FEWEST_NODES or not inside:
        return None
    middle = (below[start] + below[stop]) / 2
    return float(below[stop] - below[start]), min(inside, key=lambda at: abs(below[at] - middle))
