"""A run of nodes that can be computed in tiles, and what a tile of it computes.

A value in such a region either has *rows* along some axis, of which a tile has a part, or is
*whole*: every tile that needs it reads all of it (weights, scalars, a vector of scales), and a
node that reads whole values alone is computed by every tile that needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from dnnsplit_onnx.errors import CutError
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.work.tiling.rows import Motion, Reading, Rows


@dataclass(frozen=True, slots=True)
class Step:
    """A node of a region.

    Attributes:
        position: Its position in the graph.
        axis: The axis of the rows of its outputs; None for a node that is computed whole.
        height: Rows of its outputs.
        motion: What those read.
        reads: For each input that is read by rows: its index, its name and its axis.
        input_height: Rows of these inputs.
    """

    position: int
    axis: int | None = None
    height: int = 0
    motion: Motion | None = None
    reads: tuple[tuple[int, str, int], ...] = ()
    input_height: int = 0


@dataclass(frozen=True, slots=True)
class TiledNode:
    """What a tile computes of one node.

    Attributes:
        step: The node.
        reading: The rows of its inputs that it reads, the padding, and the rows that it makes;
            None for a node that is computed whole.
    """

    step: Step
    reading: Reading | None = None

    @property
    def share(self) -> float:
        """The part of the node's work that the tile does."""
        return 1.0 if self.reading is None else len(self.reading.made) / self.step.height


@dataclass(frozen=True)
class Tile:
    """One tile of a region.

    Attributes:
        outputs: The rows that it computes of each output of the region; None for a whole one.
        inputs: The rows that it reads of each input of the region; None for a whole one.
        nodes: What it computes, in the graph's order.
    """

    outputs: Mapping[str, Rows | None]
    inputs: Mapping[str, Rows | None]
    nodes: tuple[TiledNode, ...]


@dataclass(frozen=True)
class Region:
    """Nodes [start, stop) of a graph that can be computed in tiles.

    Attributes:
        graph: The graph.
        start, stop: The nodes.
        axes: For each value that has rows, the axis that they lie along.
        heights: For each value that has rows, how many.
        steps: The nodes, in order.
        inputs, outputs: The values that enter and leave.
    """

    graph: Graph
    start: int
    stop: int
    axes: Mapping[str, int]
    heights: Mapping[str, int]
    steps: tuple[Step, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @cached_property
    def height(self) -> int:
        """Rows of the output that is made last: what shares are counted in.

        Where the region begins makes no difference to it.
        """
        return next(self.heights[name] for name in reversed(self.outputs) if name in self.axes)

    def tiles(self, counts: Sequence[int]) -> tuple[Tile | None, ...]:
        """One tile for each machine, None for a machine without rows.

        Args:
            counts: Rows of the last output for each machine, first row first.

        Raises:
            CutError: They are not as many as there are rows.
        """
        if sum(counts) != self.height or any(count < 0 for count in counts):
            raise CutError(
                f"rows {list(counts)} are not the {self.height} rows of nodes {self.start} to {self.stop}",
                hint="give each machine its number of rows, all rows once",
            )
        made: list[Tile | None] = []
        begin, is_first = 0, True
        for count in counts:
            tile = self.tile(Rows(begin, begin + count), wholes=is_first) if count else None
            made.append(tile)
            is_first = is_first and tile is None
            begin += count
        return tuple(made)

    def tile(self, rows: Rows, *, wholes: bool) -> Tile:
        """What it takes to compute some rows.

        Args:
            rows: Rows of the last output; of others, as many in proportion.
            wholes: Whether it makes the outputs without rows, too.
        """
        outputs: dict[str, Rows | None] = {}
        for name in self.outputs:
            if name in self.axes:
                part = self._scaled(rows, self.heights[name])
                if part:
                    outputs[name] = part
            elif wholes:
                outputs[name] = None
        needs = _Needs()
        for name, wanted in outputs.items():
            needs.add(name, wanted)
        nodes = [node for step in reversed(self.steps) if (node := self._node(step, needs)) is not None]
        inputs = {name: needs.rows.get(name) for name in self.inputs if name in needs}
        return Tile(outputs, inputs, tuple(reversed(nodes)))

    def _scaled(self, rows: Rows, height: int) -> Rows:
        return scaled(rows, self.height, height)

    def _node(self, step: Step, needs: _Needs) -> TiledNode | None:
        """What a tile computes of a node, None if it needs nothing of it."""
        node = self.graph.nodes[step.position]
        if step.motion is None:
            if not any(name in needs for name in node.outputs):
                return None
            for name in node.inputs:
                needs.add(name, None)
            return TiledNode(step)
        wanted: Rows | None = None
        for name in node.outputs:
            if name in needs.rows:
                wanted = needs.rows[name].hull(wanted)
        if wanted is None:
            return None
        reading = step.motion.reads(wanted, step.input_height)
        by_rows = {name for _, name, _ in step.reads}
        for name in node.inputs:
            needs.add(name, reading.rows if name in by_rows and name in self.axes else None)
        return TiledNode(step, reading)


class _Needs:
    """What later nodes of a tile need: rows of values, and whole values."""

    def __init__(self) -> None:
        self.rows: dict[str, Rows] = {}
        self._whole: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.rows or name in self._whole

    def add(self, name: str, rows: Rows | None) -> None:
        """Adds rows of a value, or all of a whole one."""
        if rows is None:
            self._whole.add(name)
        else:
            self.rows[name] = rows.hull(self.rows.get(name))


def scaled(rows: Rows, height: int, other: int) -> Rows:
    """Rows of a value of another height, in proportion."""
    return Rows(rows.start * other // height, rows.stop * other // height)


def shares(height: int, speeds: Sequence[float]) -> tuple[int, ...]:
    """Rows in proportion to speeds, by largest remainders.

    Args:
        height: How many rows there are.
        speeds: One a machine, at least one of them above zero.
    """
    exact = [height * speed / sum(speeds) for speed in speeds]
    counts = [int(value) for value in exact]
    behind = sorted(range(len(speeds)), key=lambda at: counts[at] - exact[at])
    for at in behind[: height - sum(counts)]:
        counts[at] += 1
    return tuple(counts)
