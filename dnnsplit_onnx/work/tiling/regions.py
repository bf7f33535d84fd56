"""A run of nodes that can be computed in tiles, and what a tile of it computes.

A value in such a region either has *rows* along some axis, of which a tile has a part, or is
*whole*: every tile that needs it reads all of it (weights, scalars, a vector of scales), and a
node that reads whole values alone is computed by every tile that needs it. Where rows lie is
found from the operators that slide over images, backwards and forwards; where there is none,
rows are the second axis from the last (the words of a text, the rows of a matrix).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from dnnsplit_onnx.errors import CutError
from dnnsplit_onnx.graph.bodies import subgraphs
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.shapes import Types
from dnnsplit_onnx.work.ranges import boundary
from dnnsplit_onnx.work.tiling import spatial
from dnnsplit_onnx.work.tiling.rows import Motion, Reading, Rows
from dnnsplit_onnx.work.tiling.rules import RULES, Rule
from dnnsplit_onnx.work.tiling.view import RowView

Along = Literal["height", "width"]

assert spatial.__name__, "importing it adds its rules"


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


def region_of(graph: Graph, types: Types, start: int, stop: int, along: Along = "height") -> Region:
    """The nodes [start, stop) as a region of tiles.

    Args:
        graph: The graph.
        types: Its types; rows must be numbers, the batch need not be.
        start: The first node.
        stop: One past the last.
        along: Which axis of images tiles divide.

    Raises:
        CutError: A node's outputs depend on all rows, or nothing has rows.
    """
    return _Finder(graph, types, start, along).region(stop)


def longest_region(
    graph: Graph, types: Types, start: int, stop: int | None = None, along: Along = "height"
) -> Region | None:
    """The longest region that begins at a position, None if there is none.

    Args:
        graph: The graph.
        types: Its types.
        start: Where it begins.
        stop: The last position at which it may end; the graph's end if not given.
        along: Which axis of images tiles divide.
    """
    finder = _Finder(graph, types, start, along)
    end = len(graph.nodes) if stop is None else stop
    while end > start:
        try:
            return finder.region(end)
        except _EndsError as stopped:
            end = min(stopped.position, end - 1)
    return None


class _EndsError(CutError):
    """Tiles cannot go on beyond a node."""

    def __init__(self, graph: Graph, position: int, start: int, why: str) -> None:
        node = graph.nodes[position]
        hint = f"end the tiles at position {position}" if position > start else "begin the tiles later"
        super().__init__(f"cannot compute node `{node.name}` ({node.op_type}) in tiles: {why}", hint=hint)
        self.position = position


class _Finder:
    """Finds where rows lie."""

    def __init__(self, graph: Graph, types: Types, start: int, along: Along) -> None:
        self._graph, self._types, self._start = graph, types, start
        self._dimension = 0 if along == "height" else 1
        self._views: dict[int, RowView] = {}

    def region(self, stop: int) -> Region:
        """The nodes from the start to here."""
        graph, start = self._graph, self._start
        edge = boundary(graph, start, stop)
        if start >= stop:
            raise CutError(f"no nodes between positions {start} and {stop}", hint="choose a later end")
        axes = self._input_axes(stop, edge.inputs)
        steps = tuple(self._step(position, axes) for position in range(start, stop))
        if not any(name in axes for name in edge.outputs):
            raise _EndsError(graph, stop - 1, start, "nothing that it makes has rows")
        heights = {name: self._height(name, axis) for name, axis in axes.items()}
        return Region(graph, start, stop, axes, heights, steps, edge.inputs, edge.outputs)

    # -- where rows enter ----------------------------------------------------------------------

    def _input_axes(self, stop: int, inputs: Sequence[str]) -> dict[str, int]:
        """The axes of the inputs that have rows."""
        known = dict(self._seeds(stop))
        if not known:
            known = dict(self._second_last(inputs))
        before = -1
        while len(known) > before:  # each pass learns one, or is the last
            before = len(known)
            for position in range(self._start, stop):
                self._learn(position, known)
            for position in reversed(range(self._start, stop)):
                self._learn(position, known)
        return {name: known[name] for name in inputs if name in known}

    def _seeds(self, stop: int) -> Iterator[tuple[str, int]]:
        for position in range(self._start, stop):
            node, rule = self._view(position), self._rule(position)
            axis = None if rule is None else rule.seed(node, self._dimension)
            if axis is not None and self._height(node.node.input[0], axis) > 1:
                yield node.node.input[0], axis

    def _second_last(self, inputs: Sequence[str]) -> Iterator[tuple[str, int]]:
        for name in inputs:
            shape = self._types[name].shape
            if shape is not None and len(shape) > 1 and self._height(name, len(shape) - 2) > 1:
                yield name, len(shape) - 2
                return

    def _learn(self, position: int, known: dict[str, int]) -> None:
        """Adds the axes that a node's rule settles, in either direction."""
        node, rule = self._view(position), self._rule(position)
        if rule is None:
            return
        outputs = self._graph.nodes[position].outputs
        axis = next((known[name] for name in outputs if name in known), None)
        for index, name in enumerate(node.node.input):
            if axis is None and name in known:
                axis = rule.carry(node, index, known[name])
        if axis is None:
            return
        for name in outputs:
            if self._height(name, axis) > 1:
                known.setdefault(name, axis)
        for index, name in enumerate(node.node.input):
            if name and name not in self._graph.constants and name not in known:
                at = self._axis_read(node, rule, index, axis)
                if at is not None:
                    known[name] = at

    def _axis_read(self, node: RowView, rule: Rule, index: int, axis: int) -> int | None:
        """The axis of an input that becomes this axis of the outputs; None if it has no rows."""
        dims = node.dims(index) or ()
        places = [at for at, dim in enumerate(dims) if dim != 1 and rule.carry(node, index, at) == axis]
        return places[0] if len(places) == 1 else None

    # -- node by node --------------------------------------------------------------------------

    def _step(self, position: int, axes: dict[str, int]) -> Step:
        """The node as a step; the axes of its outputs are added."""
        node, view = self._graph.nodes[position], self._view(position)
        tall = [name for name in node.inputs if name in axes]
        if not tall:
            if node.random:
                raise self._ends(position, "it draws random numbers, and each tile would draw others")
            return Step(position)
        rule = self._rule(position)
        if rule is None or any(True for _ in subgraphs(node.proto)):
            raise self._ends(position, "its outputs depend on all rows, or are not known not to")
        names = list(view.node.input)
        carried = {rule.carry(view, at, axes[name]) for at, name in enumerate(names) if name in axes}
        if len(carried) != 1 or None in carried:
            raise self._ends(position, "it mixes rows")
        (axis,) = carried
        assert axis is not None
        reads = []
        for at, name in enumerate(names):
            place = self._axis_read(view, rule, at, axis) if name else None
            if name in axes and place != axes[name]:
                raise self._ends(position, "it needs all rows of an input")
            if place is not None:
                reads.append((at, name, place))
        step = self._checked(position, axis, rule.motion(view, reads[0][2]), reads)
        axes.update((name, axis) for name in node.outputs)
        return step

    def _checked(
        self, position: int, axis: int, motion: Motion | None, reads: list[tuple[int, str, int]]
    ) -> Step:
        """A step whose numbers agree with the shapes."""
        node = self._graph.nodes[position]
        used = [name for name in node.outputs if name in self._graph.last_use or name in self._graph.outputs]
        heights = {self._height(name, axis) for name in used or node.outputs}
        below = {self._height(name, at) for _, name, at in reads}
        if motion is None:
            raise self._ends(position, "its rows are no windows of its input's rows")
        if len(heights) != 1 or len(below) != 1 or min(heights | below) < 2:
            raise self._ends(position, "its number of rows is not known, or is one")
        (height,), (input_height,) = heights, below
        if motion.reads(Rows(height - 1, height), input_height).made.stop != height:
            raise self._ends(position, "its shapes contradict its attributes")
        return Step(position, axis, height, motion, tuple(reads), input_height)

    # -- looking up ----------------------------------------------------------------------------

    def _ends(self, position: int, why: str) -> _EndsError:
        return _EndsError(self._graph, position, self._start, why)

    def _view(self, position: int) -> RowView:
        if position not in self._views:
            self._views[position] = RowView(self._graph.nodes[position].proto, self._types)
        return self._views[position]

    def _rule(self, position: int) -> Rule | None:
        node = self._graph.nodes[position]
        return RULES.get((node.domain, node.op_type))

    def _height(self, name: str, axis: int) -> int:
        """Rows of a value along an axis, 0 if unknown."""
        shape = self._types[name].shape
        dim = shape[axis] if shape is not None and axis < len(shape) else None
        return dim if isinstance(dim, int) else 0
