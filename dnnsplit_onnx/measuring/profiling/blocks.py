"""Where blocks of a model end: positions at which one value crosses and nothing else.

A chain of residual blocks, inception modules or transformer layers is joined by single values. So these
positions separate its repeated structure, whatever its nodes are called, and are where plans cut
that the candidates do not serve: under limits of memory, for throughput, with pins.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.cuts import UNKNOWN

#: No more segments than these are made; each opens a session.
MOST_SEGMENTS = 16
#: Segments of fewer nodes stay whole: their time is mostly that of starting a run.
FEWEST_NODES = 8


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
    """The inner positions at which one value crosses, ascending."""
    graph, size = analysis.graph, len(analysis.graph.nodes)
    change = np.zeros(size + 2, dtype=np.int64)
    for value, last in graph.last_use.items():
        made = graph.producer.get(value, -1)
        change[made + 1] += 1
        change[last + 1] -= 1
    crossing, nbytes = np.cumsum(change), analysis.cut_nbytes()
    return [at for at in range(1, size) if crossing[at] == 1 and nbytes[at] != UNKNOWN]


def _middle(below: np.ndarray, ends: list[int], start: int, stop: int) -> tuple[float, int] | None:
    """A segment's work, and the block's end nearest to its middle; None if it stays whole."""
    inside = ends[bisect_left(ends, start + 1) : bisect_left(ends, stop)]
    if stop - start < FEWEST_NODES or not inside:
        return None
    middle = (below[start] + below[stop]) / 2
    return float(below[stop] - below[start]), min(inside, key=lambda at: abs(below[at] - middle))
