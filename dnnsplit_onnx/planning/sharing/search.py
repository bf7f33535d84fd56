"""Rows shared among the machines of a tier: where tiling ends, and how many rows each gets.

A stage is a sequence of regions. In each the first machine, which holds the data, sends every
other one its rows (one after the other, at the LAN's rate), all compute, and the results come
back (one after the other, as they are ready); or it computes the region alone. A region takes
until the last result is there:

    sent_m     = 8 (bytes of the rows of machines 1 to m) / bandwidth + delay
    ready_m    = sent_m + seconds of its tile, halo included, and of a run
    back_m     = max(ready_m, back of the one before) + 8 (bytes of its result) / bandwidth
    region     = max(seconds of the first machine's tile, last back_m + delay)

Since each region begins and ends with all data on the first machine, the least seconds of a
prefix are a shortest path over positions: of those that end in a region,
S(i) = min over j of min(S(j), A(j)) + region(j, i), and of those that the first machine ends
alone, A(i) = min(A(i - 1), S(i - 1) + run) + its seconds of node i - 1: what it computes alone
between two regions is a run of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.planning.figures import MachineShare
from dnnsplit_onnx.planning.sharing.division import Divisions
from dnnsplit_onnx.planning.sharing.seconds import MachineSeconds
from dnnsplit_onnx.planning.sharing.walks import reads_of
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.cuts import UNKNOWN
from dnnsplit_onnx.work.tiling import Region, longest_region
from dnnsplit_onnx.work.tiling.rows import Window

Floats = NDArray[np.float64]

#: Graphs of fewer nodes have every position tried as an end of a region.
SMALL = 64


@dataclass(frozen=True)
class TierRows:
    """How the machines of a tier share every prefix of a graph of n nodes.

    Attributes:
        seconds_below: Shape (n + 1,): least seconds of each prefix.
        machines_s: What each machine takes.
        came: For each position but 0, the region that ends there: who computes which rows.
    """

    seconds_below: Floats
    machines_s: tuple[MachineSeconds, ...]
    came: tuple[tuple[MachineShare, ...], ...]

    @property
    def below(self) -> Floats:
        """Shape (M, n + 1): seconds of each machine without the others."""
        return np.array([_below(one) for one in self.machines_s])

    @property
    def alone(self) -> Floats:
        """Shape (n + 1,): seconds of the first machine without the others."""
        return _below(self.machines_s[0])

    def machines(self, stop: int) -> tuple[MachineShare, ...]:
        """Who computes what of the first nodes, region after region."""
        regions: list[tuple[MachineShare, ...]] = []
        while stop > 0:
            regions.append(self.came[stop - 1])
            stop = regions[-1][0].start
        return tuple(share for region in reversed(regions) for share in region)


def _below(machine: MachineSeconds) -> Floats:
    """Shape (n + 1,): seconds of each prefix in one run."""
    below = np.concatenate(([0.0], np.cumsum(machine.per_node)))
    below[1:] += machine.run_s
    return below


def share_rows(analysis: Analysis, tier: Tier, machines: Sequence[MachineSeconds]) -> TierRows:
    """The best way to share the rows of every prefix.

    Args:
        analysis: The model.
        tier: A tier of several machines.
        machines: What each takes.
    """
    return _Search(analysis, tier, machines).run()


def share_fixed(
    analysis: Analysis, tier: Tier, machines: Sequence[MachineSeconds], proportions: Sequence[float]
) -> TierRows:
    """Every longest region in the same proportions, whatever that takes.

    Args:
        analysis: The model.
        tier: A tier of several machines.
        machines: What each takes.
        proportions: One a machine.
    """
    return _Search(analysis, tier, machines).fixed(proportions)


@dataclass(frozen=True, slots=True)
class _Ways:
    """The least seconds of prefixes, and the nodes or the region that each ends with.

    Attributes:
        alone, shared: Shape (n + 1,): of those that end with nodes that the first machine
            computes alone, and of those that end with a region.
        began: Where the nodes begin that it computes alone.
        regions: The regions.
    """

    alone: Floats
    shared: Floats
    began: list[int]
    regions: dict[int, tuple[MachineShare, ...]]

    @classmethod
    def of(cls, size: int) -> _Ways:
        """None is known but that of no nodes."""
        alone, shared = np.full(size + 1, np.inf), np.full(size + 1, np.inf)
        shared[0] = 0.0  # a run begins after it
        return cls(alone, shared, [0] * (size + 1), {})

    def best(self, position: int) -> float:
        """The less of both."""
        return float(min(self.alone[position], self.shared[position]))

    def go_alone(self, position: int, machine: MachineSeconds) -> None:
        """The first machine computes the node before a position."""
        goes_on, begins = self.alone[position - 1], self.shared[position - 1] + machine.run_s
        self.alone[position] = min(goes_on, begins) + machine.per_node[position - 1]
        self.began[position] = self.began[position - 1] if goes_on <= begins else position - 1


class _Search:
    """The shortest path, and the regions on it."""

    def __init__(self, analysis: Analysis, tier: Tier, machines: Sequence[MachineSeconds]) -> None:
        assert tier.lan is not None, "a tier of several machines has a LAN"
        self._analysis, self._lan, self._machines = analysis, tier.lan, tuple(machines)
        self._names = [machine.name for machine in tier.machines]
        self._bases = dict(_bases(analysis))
        longest = {base.start: base for base in self._bases.values()}
        self._reads = {start: reads_of(base) for start, base in longest.items()}
        self._ends = _ends(analysis, self._bases)

    def run(self) -> TierRows:
        """As `share_rows` says."""
        ways = _Ways.of(len(self._analysis.graph.nodes))
        for stop in range(1, len(ways.began)):
            ways.go_alone(stop, self._machines[0])
            if stop in self._bases and stop in self._ends:
                self._share(ways, stop)
        return self._found(ways)

    def _share(self, ways: _Ways, stop: int) -> None:
        """The best region that ends at a position."""
        base, divisions = self._bases[stop], self._divisions(stop)
        for start in reversed(range(base.start, stop)):
            if start not in self._ends:
                continue
            if len(ways.began) > SMALL and divisions.is_beyond(start):
                break
            counts, seconds = divisions.best(start)
            if ways.best(start) + seconds < min(ways.shared[stop], ways.alone[stop]) and any(counts[1:]):
                ways.shared[stop] = ways.best(start) + seconds
                ways.regions[stop] = divisions.shares(start, counts, self._names)

    def fixed(self, proportions: Sequence[float]) -> TierRows:
        """As `share_fixed` says."""
        ways = _Ways.of(len(self._analysis.graph.nodes))
        longest = {base.stop: base for base in self._bases.values()}
        for stop in range(1, len(ways.began)):
            # A prefix that ends within a region has none of it shared.
            ways.go_alone(stop, self._machines[0])
            if stop in longest:
                divisions = self._divisions(stop)
                counts, seconds = divisions.divided(proportions)
                start = longest[stop].start
                ways.shared[stop] = ways.best(start) + seconds
                ways.alone[stop] = np.inf
                ways.regions[stop] = divisions.shares(start, counts, self._names)
        return self._found(ways)

    def _divisions(self, stop: int) -> Divisions:
        base = self._bases[stop]
        return Divisions(self._analysis, base, self._reads[base.start], stop, self._machines, self._lan)

    def _found(self, ways: _Ways) -> TierRows:
        came = tuple(
            ways.regions[stop]
            if ways.shared[stop] < ways.alone[stop]
            else (self._alone(ways.began[stop], stop),)
            for stop in range(1, len(ways.began))
        )
        return TierRows(np.minimum(ways.alone, ways.shared), self._machines, came)

    def _alone(self, start: int, stop: int) -> MachineShare:
        flops, machine = self._analysis.flops_below, self._machines[0]
        seconds = machine.run_s + float(machine.per_node[start:stop].sum())
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
