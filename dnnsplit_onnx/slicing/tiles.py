"""One run of nodes as several models, each of which computes some of its rows.

Every tile is plain ONNX: the run's own nodes, with the padding that the tile has (none in the
middle of a feature map), a Slice where two readers of a value need different rows of it, and
nothing else. The rows that neighbours share are computed by both, so the machines of a run
never talk to each other. The batch stays as it is, a symbol if it was one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.graph.shapes import Types, bind_shapes
from dnnsplit_onnx.slicing.extract import model_of, port
from dnnsplit_onnx.slicing.index import SliceIndex
from dnnsplit_onnx.work.tiling import Region, Rows, Tile, TiledNode, region_of
from dnnsplit_onnx.work.tiling.finding import Along
from dnnsplit_onnx.work.tiling.rows import Reading
from dnnsplit_onnx.work.tiling.spatial import kernel_of, spatial_pads
from dnnsplit_onnx.work.tiling.view import RowView


@dataclass(frozen=True)
class TilePart:
    """One tile as a model.

    Attributes:
        region: The run of nodes.
        tile: Which rows of it.
        proto: The model. Its large weights are references to the files of the source.
        inputs: What it reads: rows of values, under the names of the values, or whole values.
        outputs: What it makes.
    """

    region: Region
    tile: Tile
    proto: onnx.ModelProto
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def tile_stage(
    graph: Graph,
    start: int,
    stop: int,
    rows: Sequence[int],
    *,
    types: Types | None = None,
    along: Along = "height",
) -> tuple[TilePart | None, ...]:
    """The nodes [start, stop) as one model for each of several machines.

    Args:
        graph: The graph.
        start: The first node; all must be operators whose rows depend on few rows.
        stop: One past the last.
        rows: Rows of the last output that each machine computes, first row first; their
            sum is its height.
        types: The graph's types, with numbers for its rows; inferred if not given.
        along: Whether tiles divide the height or the width of images.

    Returns:
        One tile for each machine, None for one that is given no rows.

    Raises:
        CutError: A node cannot be computed in tiles, or the rows are not all rows once.
    """
    region = region_of(graph, types or bind_shapes(graph), start, stop, along)
    return tile_parts(SliceIndex(graph), region, rows, types)


def tile_parts(
    index: SliceIndex, region: Region, rows: Sequence[int], types: Types | None = None
) -> tuple[TilePart | None, ...]:
    """As `tile_stage`, for a region and an index that are there already."""
    known = types or bind_shapes(index.graph)
    return tuple(
        None if tile is None else _Writer(index, region, tile, known).part() for tile in region.tiles(rows)
    )


class _Writer:
    """Writes the model of one tile."""

    def __init__(self, index: SliceIndex, region: Region, tile: Tile, types: Types) -> None:
        self._index, self._region, self._tile, self._types = index, region, tile, types
        #: What the tile holds of each value that has rows: the tensor's name, and which rows.
        self._held: dict[str, tuple[str, Rows]] = {
            name: (name, rows) for name, rows in tile.inputs.items() if rows is not None
        }
        self._cropped: dict[tuple[str, Rows], str] = {}
        graph = index.graph
        self._names = {*graph.values, *graph.constants}
        self._nodes: list[onnx.NodeProto] = []

    def part(self) -> TilePart:
        """The model."""
        tile, index = self._tile, self._index
        positions = [node.step.position for node in tile.nodes]
        model = model_of(index, positions, tuple(tile.inputs), tuple(tile.outputs))
        del model.graph.value_info[:]  # of the whole's shapes
        originals = list(model.graph.node)
        constants = originals[: len(originals) - len(positions)]
        for node in tile.nodes:
            self._add(node)
        for name, rows in tile.outputs.items():
            if rows is not None:
                self._hand_out(name, rows)
        del model.graph.node[:]
        model.graph.node.extend([*constants, *self._nodes])
        self._set_heights(model.graph.input, tile.inputs)
        self._set_heights(model.graph.output, tile.outputs)
        named = {value.name: port(value) for value in (*model.graph.input, *model.graph.output)}
        return TilePart(
            self._region,
            tile,
            model,
            tuple(named[name] for name in tile.inputs),
            tuple(named[name] for name in tile.outputs),
        )

    def _set_heights(self, values: Sequence[onnx.ValueInfoProto], rows: Mapping[str, Rows | None]) -> None:
        for value in values:
            part = rows.get(value.name)
            if part is None:
                continue
            tensor = value.type.tensor_type
            if not tensor.HasField("shape"):
                known = self._types.value_info(value.name).type.tensor_type
                tensor.shape.CopyFrom(known.shape)
            tensor.shape.dim[self._region.axes[value.name]].dim_value = len(part)

    def _add(self, tiled: TiledNode) -> None:
        """Adds a node, its inputs cropped to the rows that it reads."""
        step, reading = tiled.step, tiled.reading
        source = self._index.graph.nodes[step.position]
        node = onnx.NodeProto()
        node.CopyFrom(source.proto)
        if reading is not None:
            for at, name, axis in step.reads:
                node.input[at] = self._rows_of(name, axis, reading.rows, step.input_height)
            self._adapt(node, RowView(source.proto, self._types), tiled, reading)
            for at, name in enumerate(node.output):
                if name:
                    node.output[at] = self._made(name, reading.made)
        self._nodes.append(node)

    def _made(self, name: str, made: Rows) -> str:
        """The tensor that a node makes: under another name if an output has fewer rows."""
        wanted = self._tile.outputs.get(name)
        own = (
            name if wanted is None or wanted == made else self._fresh(f"{name}/rows_{made.start}_{made.stop}")
        )
        self._held[name] = (own, made)
        return own

    def _rows_of(self, name: str, axis: int, rows: Rows, height: int) -> str:
        """The tensor with these rows of a value."""
        own, held = self._held.get(name, (name, Rows(0, height)))
        if held == rows:
            return own
        if (name, rows) not in self._cropped:
            result = self._fresh(f"{name}/rows_{rows.start}_{rows.stop}")
            self._crop(own, result, axis, rows, held)
            self._cropped[name, rows] = result
        return self._cropped[name, rows]

    def _hand_out(self, name: str, rows: Rows) -> None:
        own, held = self._held[name]
        if own != name:
            self._crop(own, name, self._region.axes[name], rows, held)

    def _crop(self, source: str, result: str, axis: int, rows: Rows, held: Rows) -> None:
        """A Slice along the axis of the rows."""
        first, last = rows.start - held.start, rows.stop - held.start
        if self._opset < 10:
            node = helper.make_node("Slice", [source], [result], axes=[axis], starts=[first], ends=[last])
        else:
            bounds = [self._constant(result, what, [n]) for what, n in (("start", first), ("end", last))]
            node = helper.make_node(
                "Slice", [source, *bounds, self._constant(result, "axis", [axis])], [result]
            )
        node.name = result
        self._nodes.append(node)

    def _adapt(self, node: onnx.NodeProto, view: RowView, tiled: TiledNode, reading: Reading) -> None:
        """Gives a node the padding, or the number of rows, of the tile."""
        axis = tiled.step.reads[0][2]
        if node.op_type == "Pad":
            self._set_padding(node, view, axis, reading)
        elif node.op_type == "Reshape":
            self._set_numbers(node, view, 1, tiled.step.axis, len(reading.made))
        elif node.op_type == "Resize":
            self._set_sizes(node, view, axis, len(reading.made))
        elif (kernel := _kernel(view)) is not None:
            pads = list(spatial_pads(view, kernel) or ())
            first, last = axis - 2, len(kernel) + axis - 2
            if (pads[first], pads[last]) != (reading.before, reading.after):
                pads[first], pads[last] = reading.before, reading.after
                _set_ints(node, "pads", pads, instead_of="auto_pad")

    def _set_padding(self, node: onnx.NodeProto, view: RowView, axis: int, reading: Reading) -> None:
        rank = len(view.dims(0) or ())
        axes = view.numbers(3) if view.has_input(3) else tuple(range(rank))
        pads = list(view.ints_attribute("pads") or view.ints_attribute("paddings") or view.numbers(1) or ())
        where = [at for at, a in enumerate(axes or ()) if a % rank == axis]
        if not where:
            return
        pads[where[0]], pads[len(pads) // 2 + where[0]] = reading.before, reading.after
        if view.numbers(1) is None or view.opset < 11:
            _set_ints(node, "pads" if view.ints_attribute("pads") else "paddings", pads)
        else:
            node.input[1] = self._constant(node.output[0], "pads", pads)

    def _set_numbers(
        self, node: onnx.NodeProto, view: RowView, index: int, axis: int | None, rows: int
    ) -> None:
        """Replaces one entry of a shape operand, unless it says to work it out."""
        numbers = list(view.numbers(index) or ())
        if axis is not None and axis < len(numbers) and numbers[axis] > 0:
            numbers[axis] = rows
            node.input[index] = self._constant(node.output[0], "shape", numbers)

    def _set_sizes(self, node: onnx.NodeProto, view: RowView, axis: int, rows: int) -> None:
        if view.has_input(3):
            rank = len(view.dims(0) or ())
            axes = [a % rank for a in view.ints_attribute("axes")] or list(range(rank))
            if axis in axes:
                self._set_numbers(node, view, 3, axes.index(axis), rows)

    def _constant(self, result: str, what: str, numbers: Sequence[int]) -> str:
        """A constant of whole numbers; as a node, which every version of ONNX has."""
        name = self._fresh(f"{result}/{what}")
        value = numpy_helper.from_array(np.array(numbers, dtype=np.int64), name)
        self._nodes.append(helper.make_node("Constant", [], [name], name=name, value=value))
        return name

    def _fresh(self, name: str) -> str:
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name

    @property
    def _opset(self) -> int:
        entries = self._index.graph.proto.opset_import
        return next((entry.version for entry in entries if entry.domain in ("", "ai.onnx")), 1)


def _kernel(view: RowView) -> tuple[int, ...] | None:
    """The kernel of an operator whose padding is an attribute."""
    slides = view.node.op_type in ("Conv", "ConvInteger", "MaxPool", "AveragePool", "LpPool")
    return kernel_of(view) if slides or view.node.op_type.startswith("QLinear") else None


def _set_ints(node: onnx.NodeProto, name: str, numbers: Sequence[int], *, instead_of: str = "") -> None:
    """Sets an attribute; another that says the same otherwise is removed."""
    kept = [attribute for attribute in node.attribute if attribute.name not in (name, instead_of)]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, list(numbers))])
