"""How the rows of a region are divided: what is best for each start of the regions of one end.

All divisions are tried where there are few. Otherwise rows are moved from the machine that ends
last to those that end earlier, as long as the makespan falls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.machines.tiers import Lan
from dnnsplit_onnx.planning.figures import MachineShare
from dnnsplit_onnx.planning.sharing.seconds import MachineSeconds
from dnnsplit_onnx.planning.sharing.walks import Reads, Walk, Walks
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.tiling import Region, Rows, shares

Floats = NDArray[np.float64]

#: Where there are no more ways to divide the rows of a region, all are tried.
FEW = 40


class Divisions:
    """Ways to divide the rows of the regions that end at one position.

    Args:
        analysis: The model.
        base: The longest region that the position may end.
        reads: What its nodes read.
        stop: The position.
        machines: What each machine takes.
        lan: Between them.
    """

    def __init__(
        self,
        analysis: Analysis,
        base: Region,
        reads: Sequence[Reads],
        stop: int,
        machines: Sequence[MachineSeconds],
        lan: Lan,
    ) -> None:
        self._analysis, self._base, self._stop, self._lan = analysis, base, stop, lan
        self._machines = machines
        self._walks = Walks(analysis, base, reads, stop)
        self._height = self._walks.height
        self._known: dict[tuple[int, ...], Floats] = {}
        self._last: tuple[int, ...] = ()

    def best(self, start: int) -> tuple[tuple[int, ...], float]:
        """Rows of each machine, and the seconds of the region from a start; infinite if none are."""
        machines = len(self._machines)
        if self._height < 2 or not self._has_rows(start):
            return (), np.inf
        if _ways(self._height, machines) <= FEW:
            every = (one for one in _compositions(self._height, machines) if any(one[1:]))
            counts = min(every, key=lambda one: self._seconds(one, start))
            return counts, self._seconds(counts, start)
        # What is best from a later start is nearly best from this one.
        begin = [self._last] if self._last else []
        begin += [self._in_proportion(start, most) for most in range(2, machines + 1)]
        self._last = self._descend(min(begin, key=lambda one: self._seconds(one, start)), start)
        return self._last, self._seconds(self._last, start)

    def is_beyond(self, start: int) -> bool:
        """Whether each tile would need all rows there: no node before it can be shared."""
        tiles = self._tiles(self._in_proportion(start, len(self._machines)))
        return all(self._walks.of(rows, wholes=wholes).share[start] >= 1.0 for rows, wholes in tiles if rows)

    def _in_proportion(self, start: int, most: int) -> tuple[int, ...]:
        """Rows in proportion to speeds: of the first machine, and the fastest of the others.

        Args:
            start: Where the region starts.
            most: How many machines.
        """
        part = slice(start, self._stop)
        speeds = [1.0 / max(float(one.by_rows[part].sum()), 1e-30) for one in self._machines]
        others = sorted(range(1, len(speeds)), key=lambda at: -speeds[at])[: most - 1]
        return shares(self._height, [v if at == 0 or at in others else 0.0 for at, v in enumerate(speeds)])

    def divided(self, proportions: Sequence[float]) -> tuple[tuple[int, ...], float]:
        """Rows in given proportions, and the seconds of the longest region."""
        counts = shares(self._height, proportions)
        return counts, self._seconds(counts, self._base.start)

    def shares(self, start: int, counts: Sequence[int], names: Sequence[str]) -> tuple[MachineShare, ...]:
        """Each machine's part of a region."""
        result = []
        flops = self._analysis.flops
        for at, (rows, wholes) in enumerate(self._tiles(counts)):
            if rows:
                walk = self._walks.of(rows, wholes=wholes)
                part = slice(start, self._stop)
                result.append(
                    MachineShare(
                        names[at],
                        start,
                        self._stop,
                        (rows.start, rows.stop),
                        round(float(walk.share[part] @ flops[part])),
                        self._computing(walk, at, start),
                        round(walk.sent[start]) if at else 0,
                        round(walk.back[start]) if at else 0,
                    )
                )
        return tuple(result)

    def _per_node(self, walk: Walk, machine: int) -> Floats:
        """Shape (n,): seconds of a machine for each node of a tile."""
        one = self._machines[machine]
        seconds: Floats = walk.share * one.by_rows + np.where(walk.share > 0, one.fixed, 0.0)
        return seconds

    def _computing(self, walk: Walk, machine: int, start: int) -> float:
        """Seconds that a machine computes a tile of the region from a start."""
        nodes = self._per_node(walk, machine)[start : self._stop]
        return self._machines[machine].run_s + float(nodes.sum())

    def _from_each_start(self, walk: Walk, machine: int) -> Floats:
        """Shape (n + 1,): as `_computing`, for each start."""
        nodes = self._per_node(walk, machine)[: self._stop]
        total = np.zeros(len(walk.sent))
        total[: self._stop] = np.cumsum(nodes[::-1])[::-1] + self._machines[machine].run_s
        return total

    def _has_rows(self, start: int) -> bool:
        """Whether the last output with rows is made at or after the start."""
        producer = self._analysis.graph.producer
        return any(name in self._base.axes and producer[name] >= start for name in self._walks.outputs)

    def _descend(self, counts: tuple[int, ...], start: int) -> tuple[int, ...]:
        """Moves rows from the machine that ends last to the others, as long as that helps."""
        seconds = self._seconds(counts, start)
        step = max(1, self._height // 8)
        while step:
            ends = self._finish(counts)[:, start]
            late = int(np.argmax(ends))
            moves = [
                _moved(counts, late, other, min(step, counts[late]))
                for other in np.argsort(ends, kind="stable")
                if other != late
            ]
            better = next((move for move in moves if self._seconds(move, start) < seconds), None)
            if better is None:
                step //= 2
            else:
                counts, seconds = better, self._seconds(better, start)
        return counts

    def _seconds(self, counts: tuple[int, ...], start: int) -> float:
        if counts not in self._known:
            self._known[counts] = self._finish(counts).max(axis=0)
        return float(self._known[counts][start])

    def _finish(self, counts: tuple[int, ...]) -> Floats:
        """Shape (M, n + 1): when each machine's rows are there, for each start."""
        lan, size = self._lan, len(self._analysis.graph.nodes)
        per_byte, delay = 8 / (lan.bandwidth_mbps * 1e6), lan.delay_ms / 1e3
        ends = np.zeros((len(counts), size + 1))
        sent = np.zeros(size + 1)
        ready: list[tuple[int, Floats, Floats]] = []
        for at, (rows, wholes) in enumerate(self._tiles(counts)):
            if not rows:
                continue
            walk = self._walks.of(rows, wholes=wholes)
            seconds = self._from_each_start(walk, at)
            if at == 0:
                ends[0] = seconds
                continue
            sent = sent + per_byte * walk.sent
            ready.append((at, sent + delay + seconds, per_byte * walk.back))
        self._come_back(ends, ready, delay)
        return ends

    @staticmethod
    def _come_back(ends: Floats, ready: list[tuple[int, Floats, Floats]], delay: float) -> None:
        """Results arrive one after the other, in the order in which they are ready."""
        if not ready:
            return
        machines = np.array([at for at, _, _ in ready])
        done, takes = np.array([one for _, one, _ in ready]), np.array([one for _, _, one in ready])
        order = np.argsort(done, axis=0, kind="stable")
        done, takes = np.take_along_axis(done, order, 0), np.take_along_axis(takes, order, 0)
        back = np.zeros(ends.shape[1])
        for rank in range(len(ready)):
            back = np.maximum(back, done[rank]) + takes[rank]
            ends[machines[order[rank]], np.arange(ends.shape[1])] = back + delay

    def _tiles(self, counts: Sequence[int]) -> list[tuple[Rows, bool]]:
        """Rows of each machine, and whether it makes what has no rows: the first that has any."""
        bounds = np.concatenate(([0], np.cumsum(counts))).tolist()
        first = next((at for at, count in enumerate(counts) if count), 0)
        return [(Rows(a, b), at == first) for at, (a, b) in enumerate(pairwise(bounds))]


def _moved(counts: tuple[int, ...], source: int, target: int, rows: int) -> tuple[int, ...]:
    changed = list(counts)
    changed[source] -= rows
    changed[target] += rows
    return tuple(changed)


def _ways(rows: int, machines: int) -> int:
    ways = 1
    for at in range(1, machines):
        ways = ways * (rows + at) // at
    return ways


def _compositions(rows: int, machines: int) -> Iterator[tuple[int, ...]]:
    if machines == 1:
        yield (rows,)
        return
    for first in range(rows + 1):
        for rest in _compositions(rows - first, machines - 1):
            yield (first, *rest)
