"""Rows shared among the machines of a tier: where tiling ends, and how many rows each gets.

A stage is a sequence of regions. In each the first machine, which holds the data, sends every
other one its rows (one after the other, at the LAN's rate), all compute, and the results come
back (one after the other, as they are ready); or it computes the region alone. A region takes
until the last result is there:

    sent_m     = 8 (bytes of the rows of machines 1 to m) / bandwidth + delay
    ready_m    = sent_m + seconds of its tile, halo included
    back_m     = max(ready_m, back of the one before) + 8 (bytes of its result) / bandwidth
    region     = max(seconds of the first machine's tile, last back_m + delay)

Since each region begins and ends with all data on the first machine, the least seconds of a
prefix are a shortest path over positions: F(i) = min over j of F(j) + region(j, i). Rows of a
region are found by moving rows from the machine that is last to the one that is first, as long
as the makespan falls; where there are few ways to divide them, all are tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.machines.topology import Lan, Tier
from dnnsplit_onnx.planning.plans import MachineShare
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.cuts import UNKNOWN
from dnnsplit_onnx.work.tiling import Region, Rows, longest_region, scaled, shares
from dnnsplit_onnx.work.tiling.regions import Step
from dnnsplit_onnx.work.tiling.rows import Window

Floats = NDArray[np.float64]

#: Graphs of fewer nodes have every position tried as an end of a region.
SMALL = 64
#: Where there are no more ways to divide the rows of a region, all are tried.
FEW = 40


@dataclass(frozen=True)
class TierRows:
    """How the machines of a tier share every prefix of a graph of n nodes.

    Attributes:
        seconds_below: Shape (n + 1,): least seconds of each prefix.
        below: Shape (M, n + 1): seconds of each machine without the others.
        came: For each position but 0, the region that ends there: who computes which rows.
    """

    seconds_below: Floats
    below: Floats
    came: tuple[tuple[MachineShare, ...], ...]

    @property
    def alone(self) -> Floats:
        """Shape (n + 1,): seconds of the first machine without the others."""
        first: Floats = self.below[0]
        return first

    def machines(self, stop: int) -> tuple[MachineShare, ...]:
        """Who computes what of the first nodes, region after region.

        Nodes that the first machine computes alone, one after the other, are one region.
        """
        regions: list[tuple[MachineShare, ...]] = []
        while stop > 0:
            region = self.came[stop - 1]
            stop = region[0].start
            if regions and region[0].rows is None and regions[-1][0].rows is None:
                region = (_joined(region[0], regions.pop()[0]),)
            regions.append(region)
        return tuple(share for region in reversed(regions) for share in region)


def _joined(first: MachineShare, second: MachineShare) -> MachineShare:
    return MachineShare(
        first.machine,
        first.start,
        second.stop,
        None,
        first.flops + second.flops,
        first.seconds + second.seconds,
    )


def share_rows(analysis: Analysis, tier: Tier, below: Floats) -> TierRows:
    """The best way to share the rows of every prefix.

    Args:
        analysis: The model.
        tier: A tier of several machines.
        below: Shape (M, n + 1): seconds that each machine needs for each prefix.
    """
    return _Search(analysis, tier, below).run()


def share_fixed(analysis: Analysis, tier: Tier, below: Floats, proportions: Sequence[float]) -> TierRows:
    """Every longest region in the same proportions, whatever that takes.

    Args:
        analysis: The model.
        tier: A tier of several machines.
        below: As for `share_rows`.
        proportions: One a machine.
    """
    return _Search(analysis, tier, below).fixed(proportions)


@dataclass(frozen=True)
class _Walk:
    """What one tile of the regions that end at a position takes, for each start j of its base.

    Attributes:
        share: Shape (n,): the part of each node's work that it does.
        sent: Shape (n + 1,): bytes that it reads if the region starts at j.
        back: Shape (n + 1,): bytes that it makes.
    """

    share: Floats
    sent: Floats
    back: Floats


class _Search:
    """The shortest path, and the regions on it."""

    def __init__(self, analysis: Analysis, tier: Tier, below: Floats) -> None:
        assert tier.lan is not None, "a tier of several machines has a LAN"
        self._analysis, self._lan, self._below = analysis, tier.lan, below
        self._names = [machine.name for machine in tier.machines]
        self._bases = dict(_bases(analysis))
        self._ends = _ends(analysis, self._bases)

    def run(self) -> TierRows:
        size = len(self._analysis.graph.nodes)
        alone = self._below[0]
        best = np.full(size + 1, np.inf)
        best[0] = 0.0
        came: list[tuple[MachineShare, ...]] = []
        for stop in range(1, size + 1):
            best[stop] = best[stop - 1] + (alone[stop] - alone[stop - 1])
            came.append((self._alone(stop - 1, stop),))
            base = self._bases.get(stop)
            if base is None or stop not in self._ends:
                continue
            found = _Shares(self._analysis, base, stop, self._below, self._lan)
            for start in reversed(range(base.start, stop)):
                if start not in self._ends:
                    continue
                if size > SMALL and found.is_beyond(start):
                    break
                counts, seconds = found.best(start)
                if best[start] + seconds < best[stop] and any(counts[1:]):
                    best[stop] = best[start] + seconds
                    came[-1] = found.shares(start, counts, self._names)
        return TierRows(best, self._below, tuple(came))

    def fixed(self, proportions: Sequence[float]) -> TierRows:
        """As `share_fixed` says."""
        size = len(self._analysis.graph.nodes)
        came: list[tuple[MachineShare, ...]] = [(self._alone(at, at + 1),) for at in range(size)]
        gained = np.zeros(size + 1)
        for region in {base.start: base for base in self._bases.values()}.values():
            found = _Shares(self._analysis, region, region.stop, self._below, self._lan)
            counts, seconds = found.divided(proportions)
            came[region.stop - 1] = found.shares(region.start, counts, self._names)
            alone = float(self._below[0][region.stop] - self._below[0][region.start])
            gained[region.stop :] += alone - seconds
        return TierRows(self._below[0] - gained, self._below, tuple(came))

    def _alone(self, start: int, stop: int) -> MachineShare:
        flops = self._analysis.flops_below
        seconds = float(self._below[0][stop] - self._below[0][start])
        return MachineShare(self._names[0], start, stop, None, int(flops[stop] - flops[start]), seconds)


def _bases(analysis: Analysis) -> Iterator[tuple[int, Region]]:
    """For each stop, the longest region that it may end."""
    graph, types = analysis.graph, analysis.types
    at = 0
    while at < len(graph.nodes):
        base = longest_region(graph, types, at)
        if base is None:
            at += 1
            continue
        yield from ((stop, base) for stop in range(base.start + 1, base.stop + 1))
        at = base.stop


def _ends(analysis: Analysis, bases: Mapping[int, Region]) -> frozenset[int]:
    """Positions at which regions may begin and end.

    Those before a node that makes each row of that row alone, in as many bytes, are left out:
    to gather behind it moves no more, and shares its work. Of a large graph those are left that
    have no more live bytes than their neighbours, since gathering there moves the least.
    """
    nbytes = analysis.cut_nbytes()
    last = len(nbytes) - 1
    known = np.where(nbytes == UNKNOWN, np.iinfo(np.int64).max, nbytes)
    ends = [at for at in range(1, last) if known[at] != known[at + 1] or not _is_pointwise(bases, at)]
    if last > SMALL:
        steps = [0, *ends, last]
        ends = [
            at
            for before, at, after in zip(steps, ends, steps[2:], strict=False)
            if known[at] <= known[before] and known[at] <= known[after]
        ]
    return frozenset((0, *ends, *analysis.candidates, last))


def _is_pointwise(bases: Mapping[int, Region], position: int) -> bool:
    base = bases.get(position + 1)
    return base is not None and base.steps[position - base.start].motion == Window()


class _Shares:
    """Ways to divide the rows of the regions that end at one position."""

    def __init__(self, analysis: Analysis, base: Region, stop: int, below: Floats, lan: Lan) -> None:
        self._analysis, self._base, self._stop, self._lan = analysis, base, stop, lan
        self._node_seconds = np.diff(below, axis=1)
        self._walks: dict[tuple[Rows, bool], _Walk] = {}
        self._known: dict[tuple[int, ...], Floats] = {}
        self._last: tuple[int, ...] = ()
        graph = analysis.graph
        made = [name for node in graph.nodes[base.start : stop] for name in node.outputs]
        wanted = set(graph.outputs)
        self._outputs = {v for v in made if v in wanted or graph.last_use.get(v, -1) >= stop}
        tall = [name for name in made if name in self._outputs and name in base.axes]
        self._height = base.heights[tall[-1]] if tall else 0

    def best(self, start: int) -> tuple[tuple[int, ...], float]:
        """Rows of each machine, and the seconds of the region from a start; infinite if none are."""
        machines = len(self._node_seconds)
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
        tiles = self._tiles(self._in_proportion(start, len(self._node_seconds)))
        return all(self._walk(rows, wholes).share[start] >= 1.0 for rows, wholes in tiles if rows)

    def _in_proportion(self, start: int, most: int) -> tuple[int, ...]:
        """Rows in proportion to speeds: of the first machine, and the fastest of the others.

        Args:
            start: Where the region starts.
            most: How many machines.
        """
        speeds = [1.0 / max(float(row[start : self._stop].sum()), 1e-30) for row in self._node_seconds]
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
                walk = self._walk(rows, wholes)
                part = slice(start, self._stop)
                result.append(
                    MachineShare(
                        names[at],
                        start,
                        self._stop,
                        (rows.start, rows.stop),
                        round(float(walk.share[part] @ flops[part])),
                        float(walk.share[part] @ self._node_seconds[at][part]),
                        round(walk.sent[start]) if at else 0,
                        round(walk.back[start]) if at else 0,
                    )
                )
        return tuple(result)

    def _has_rows(self, start: int) -> bool:
        """Whether the last output with rows is made at or after the start."""
        producer = self._analysis.graph.producer
        return any(name in self._base.axes and producer[name] >= start for name in self._outputs)

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
            walk = self._walk(rows, wholes)
            seconds = _from(walk.share * self._node_seconds[at], self._stop)
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

    def _walk(self, rows: Rows, wholes: bool) -> _Walk:
        key = (rows, wholes)
        if key not in self._walks:
            self._walks[key] = self._walked(rows, wholes)
        return self._walks[key]

    def _walked(self, rows: Rows, wholes: bool) -> _Walk:
        """One pass back from the stop tells what every start takes."""
        base, graph = self._base, self._analysis.graph
        size = len(graph.nodes)
        walk = _Walk(np.zeros(size), np.zeros(size + 1), np.zeros(size + 1))
        needs: dict[str, Rows | None] = {}
        back = 0.0
        for position in range(self._stop - 1, base.start - 1, -1):
            step, node = base.steps[position - base.start], graph.nodes[position]
            for name in node.outputs:
                if name in self._outputs:
                    back += self._hand_out(name, rows, wholes, needs)
            walk.share[position] = _share(step, node.outputs, node.inputs, needs, base)
            for name in node.outputs:
                needs.pop(name, None)
            walk.sent[position] = sum(self._nbytes(name, part) for name, part in needs.items())
            walk.back[position] = back
        return walk

    def _hand_out(self, name: str, rows: Rows, wholes: bool, needs: dict[str, Rows | None]) -> float:
        """Adds the need for an output's rows; returns the bytes of them."""
        if name not in self._base.axes:
            if wholes:
                needs.setdefault(name, None)
            return self._nbytes(name, None) if wholes else 0.0
        part = scaled(rows, self._height, self._base.heights[name])
        if not part:
            return 0.0
        needs[name] = part.hull(needs.get(name))
        return self._nbytes(name, part)

    def _nbytes(self, name: str, part: Rows | None) -> float:
        nbytes = self._analysis.types.nbytes(name) or 0
        return float(nbytes) if part is None else nbytes * len(part) / self._base.heights[name]


def _share(
    step: Step,
    outputs: Sequence[str],
    inputs: Sequence[str],
    needs: dict[str, Rows | None],
    base: Region,
) -> float:
    """The part of a node's work that its readers need; what it reads is added to the needs."""
    if step.motion is None:
        if not any(name in needs for name in outputs):
            return 0.0
        for name in inputs:
            needs.setdefault(name, None)
        return 1.0
    wanted: Rows | None = None
    for name in outputs:
        part = needs.get(name)
        if part is not None:
            wanted = part.hull(wanted)
    if wanted is None:
        return 0.0
    reading = step.motion.reads(wanted, step.input_height)
    by_rows = {name for _, name, _ in step.reads}
    for name in inputs:
        if name in by_rows and name in base.axes:
            needs[name] = reading.rows.hull(needs.get(name))
        else:
            needs.setdefault(name, None)
    return len(reading.made) / step.height


def _from(per_node: Floats, stop: int) -> Floats:
    """Shape (n + 1,): the sum of the nodes from each position to the stop."""
    total = np.zeros(len(per_node) + 1)
    total[:stop] = np.cumsum(per_node[:stop][::-1])[::-1]
    return total


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
