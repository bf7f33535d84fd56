"""What some rows take of the regions that end at one position: nodes, and bytes in and out.

One pass backwards from the end tells it for every start. Below the position from which all that
is needed is needed whole, every tile is like any other, and the pass ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.tiling import Region, Rows, scaled
from dnnsplit_onnx.work.tiling.regions import Step
from dnnsplit_onnx.work.tiling.rows import Window

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Walk:
    """What one tile of the regions that end at a position takes, for each start j of its base.

    Attributes:
        share: Shape (n,): the part of each node's work that it does.
        sent: Shape (n + 1,): bytes that it reads if the region starts at j.
        back: Shape (n + 1,): bytes that it makes.
        needed: Shape (n + 1,): how many values it reads if the region starts at j.
    """

    share: Floats
    sent: Floats
    back: Floats
    needed: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Reads:
    """What a node of a region reads and makes.

    Attributes:
        step: The node.
        outputs: What it makes.
        tall: What it reads by rows.
        whole: What it reads whole.
        is_pointwise: Whether each row is made of that row alone.
    """

    step: Step
    outputs: Sequence[str]
    tall: tuple[str, ...]
    whole: tuple[str, ...]
    is_pointwise: bool


def reads_of(base: Region) -> tuple[Reads, ...]:
    """For each node of a region, in order."""
    found = []
    for step in base.steps:
        node = base.graph.nodes[step.position]
        by_rows = {name for _, name, _ in step.reads if name in base.axes}
        tall = tuple(name for name in node.inputs if name in by_rows)
        whole = tuple(name for name in node.inputs if name not in by_rows)
        found.append(Reads(step, node.outputs, tall, whole, step.motion == Window()))
    return tuple(found)


class Walks:
    """The tiles of the regions that end at one position.

    Attributes:
        outputs: What they make.
        height: Rows of the output that is made last, 0 if none has rows.
    """

    def __init__(self, analysis: Analysis, base: Region, reads: Sequence[Reads], stop: int) -> None:
        self._analysis, self._base, self._reads, self._stop = analysis, base, reads, stop
        self._known: dict[tuple[Rows, bool], Walk] = {}
        graph = analysis.graph
        made = [name for node in graph.nodes[base.start : stop] for name in node.outputs]
        wanted = set(graph.outputs)
        self.outputs = {v for v in made if v in wanted or graph.last_use.get(v, -1) >= stop}
        tall = [name for name in made if name in self.outputs and name in base.axes]
        self.height = base.heights[tall[-1]] if tall else 0
        self._first_made = min((graph.producer[name] for name in self.outputs), default=stop)

    def of(self, rows: Rows, *, wholes: bool) -> Walk:
        """What some rows of the last output take.

        Args:
            rows: The rows; of other outputs, as many in proportion.
            wholes: Whether the outputs without rows are made, too.
        """
        key = (rows, wholes)
        if key not in self._known:
            self._known[key] = self._walked(rows, wholes)
        return self._known[key]

    def _walked(self, rows: Rows, wholes: bool) -> Walk:
        all_rows = Rows(0, self.height)
        whole = None if wholes and rows == all_rows else self.of(all_rows, wholes=True)
        begin, size = self._base.start, len(self._analysis.graph.nodes)
        walk = Walk(np.zeros(size), np.zeros(size + 1), np.zeros(size + 1), np.zeros(size + 1, np.int64))
        needs = _Needs(self._analysis, self._base)
        back = 0.0
        for position in range(self._stop - 1, begin - 1, -1):
            reads = self._reads[position - begin]
            for name in reads.outputs:
                if name in self.outputs:
                    back += self._hand_out(name, rows, wholes, needs)
            walk.share[position] = _share(reads, needs)
            needs.drop(reads.outputs)
            walk.sent[position], walk.needed[position] = needs.nbytes, len(needs)
            walk.back[position] = back
            if whole is not None and position <= self._first_made and needs.are_those_of(whole, position):
                walk.share[begin:position] = whole.share[begin:position]
                walk.sent[begin:position] = whole.sent[begin:position]
                walk.back[begin:position] = back
                break
        return walk

    def _hand_out(self, name: str, rows: Rows, wholes: bool, needs: _Needs) -> float:
        """Adds the need for an output's rows; returns the bytes of them."""
        if name not in self._base.axes:
            if wholes:
                needs.add_whole(name)
            return needs.size(name, None) if wholes else 0.0
        part = scaled(rows, self.height, self._base.heights[name])
        if not part:
            return 0.0
        needs.add(name, part)
        return needs.size(name, part)


class _Needs:
    """Rows of values, and whole values, that later nodes of a tile read.

    Attributes:
        nbytes: Of them all.
    """

    def __init__(self, analysis: Analysis, base: Region) -> None:
        self._types, self._heights = analysis.types, base.heights
        self._rows: dict[str, Rows | None] = {}
        self._partial: set[str] = set()
        self.nbytes = 0.0

    def __len__(self) -> int:
        return len(self._rows)

    def are_those_of(self, whole: Walk, position: int) -> bool:
        """Whether all that is needed by anybody is needed, and all of it."""
        return not self._partial and len(self._rows) == whole.needed[position]

    def size(self, name: str, part: Rows | None) -> float:
        """Bytes of some rows of a value, or of all of it."""
        nbytes = self._types.nbytes(name) or 0
        return float(nbytes) if part is None else nbytes * len(part) / self._heights[name]

    def add_whole(self, name: str) -> None:
        """Adds a value without rows."""
        if name not in self._rows:
            self._rows[name] = None
            self.nbytes += self.size(name, None)

    def add(self, name: str, part: Rows) -> None:
        """Adds rows of a value."""
        held = self._rows.get(name)
        if held is not None:
            if held.start <= part.start and part.stop <= held.stop:
                return
            self.nbytes -= self.size(name, held)
            part = part.hull(held)
        self._rows[name] = part
        self.nbytes += self.size(name, part)
        if len(part) < self._heights[name]:
            self._partial.add(name)
        else:
            self._partial.discard(name)

    def drop(self, names: Iterable[str]) -> None:
        """Takes away what a node has made."""
        for name in names:
            if name in self._rows:
                self.nbytes -= self.size(name, self._rows.pop(name))
                self._partial.discard(name)

    def of(self, names: Iterable[str]) -> Rows | None:
        """The rows that are needed of a node's outputs; None if none are."""
        wanted: Rows | None = None
        for name in names:
            part = self._rows.get(name)
            if part is not None:
                wanted = part.hull(wanted)
        return wanted

    def holds_any(self, names: Iterable[str]) -> bool:
        """Whether anything of these values is needed."""
        return any(name in self._rows for name in names)


def _share(reads: Reads, needs: _Needs) -> float:
    """The part of a node's work that its readers need; what it reads is added to the needs."""
    step = reads.step
    if step.motion is None:
        if not needs.holds_any(reads.outputs):
            return 0.0
        for name in (*reads.tall, *reads.whole):
            needs.add_whole(name)
        return 1.0
    wanted = needs.of(reads.outputs)
    if wanted is None:
        return 0.0
    made, rows = wanted, wanted
    if not reads.is_pointwise:
        reading = step.motion.reads(wanted, step.input_height)
        made, rows = reading.made, reading.rows
    for name in reads.tall:
        needs.add(name, rows)
    for name in reads.whole:
        needs.add_whole(name)
    return len(made) / step.height
