"""Where the rows of a run of nodes lie, and how long a run can be.

Rows are found from the operators that slide over images, backwards and forwards; where there is
none, they are the second axis from the last (the words of a text, the rows of a matrix).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from dnnsplit_onnx.errors import CutError
from dnnsplit_onnx.graph.bodies import subgraphs
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.shapes import Types
from dnnsplit_onnx.work.ranges import boundary
from dnnsplit_onnx.work.tiling import spatial
from dnnsplit_onnx.work.tiling.regions import Region, Step
from dnnsplit_onnx.work.tiling.rows import Motion, Rows
from dnnsplit_onnx.work.tiling.rules import RULES, Rule
from dnnsplit_onnx.work.tiling.view import RowView

Along = Literal["height", "width"]

assert spatial.__name__, "importing it adds its rules"


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
