"""From what an exporter wrote to the file a user gets.

1. Each node gets its layer's name (`dnnsplit_onnx.graph.layers`).
2. What exporters leave behind is taken out: stack traces and every other text that holds a
   path of the author's machine, and the exporter's own bookkeeping.
3. Dimensions that nobody named (`unk__398`) get the name of the input dimension they are.
4. Sizes that inputs share are read from the first of them.
5. Outputs have the dimensions that were seen: exporters claim sizes of the example for some.
6. Weights go into the file itself while it stays under 2 GB, the limit of a protobuf
   message; beyond it, into one file beside it. Either way they are copied from file to
   file and never held in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from dnnsplit_onnx.graph.bodies import subgraphs
from dnnsplit_onnx.graph.layers import LAYER_KEY, set_layer
from dnnsplit_onnx.graph.modelfile import ModelFile, data_range, open_model, set_data_range, tensors
from dnnsplit_onnx.graph.protobuf import DataRange, attach

# A protobuf message ends at 2^31 bytes; the graph around the weights needs some of that.
INLINE_LIMIT = (1 << 31) - (64 << 20)

# What exporters attach for themselves; the module paths in it are in the layer's name.
_BOOKKEEPING = ("pkg.torch.", "pkg.onnxscript.", "namespace")
# /home/me/x.py and C:\me\x.py, but neither a/b nor https://a/b.
_MACHINE_PATH = re.compile(r"(?<![\w./:\\])(?:/|[A-Za-z]:[/\\])[^\s/\\\"'<>:]+[/\\][^\s\"']+")
_UNNAMED_DIM = re.compile(r"unk__\d+$")

# torch writes what a size is computed as, in formulas that nobody can read or bind.
_LONGEST_FORMULA = 32

_CHUNK = 1 << 20

Layer = Callable[[onnx.NodeProto], str | None]


@dataclass(frozen=True, slots=True)
class Seen:
    """One run of the framework.

    Attributes:
        sizes: The size of each open dimension by its name.
        outputs: The shape of each output.
    """

    sizes: Mapping[str, int]
    outputs: Sequence[tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Finished:
    """What the finished file holds.

    Attributes:
        files: The file, and the file of weights if there is one.
        nodes: Number of nodes.
        layers_named: Share of them that carry a layer's name.
    """

    files: tuple[Path, ...]
    nodes: int
    layers_named: float


def finish(
    raw: Path,
    target: Path,
    layer: Layer,
    dims: Mapping[str, tuple[int | str, ...]],
    seen: Sequence[Seen] = (),
    limit: int = INLINE_LIMIT,
) -> Finished:
    """Turns an exporter's file into the file a user gets. See the module's docstring.

    Args:
        raw: What the exporter wrote.
        target: Where to write; a file of weights goes beside it, as `NAME.data`.
        layer: The layer of a node, None if unknown.
        dims: For each input by name, what its dimensions are to be called.
        seen: Runs of the framework.
        limit: Files over this many bytes keep their weights outside.
    """
    file = open_model(raw)
    named = name_layers(file.proto, layer)
    name_dims(file.proto, dims)
    read_sizes_first(file.proto)
    correct_outputs(file.proto, seen)
    strip(file.proto)
    nodes = len(file.proto.graph.node)
    return Finished(write(file, target, limit), nodes, named / nodes if nodes else 0.0)


def name_layers(proto: onnx.ModelProto, layer: Layer) -> int:
    """Gives each node its layer's name; returns how many have one."""
    named = 0
    for node in proto.graph.node:
        name = layer(node)
        if name:
            set_layer(node, name)
            named += 1
    return named


def name_dims(proto: onnx.ModelProto, dims: Mapping[str, tuple[int | str, ...]]) -> None:
    """Names the open dimensions of inputs, and of all values that share them.

    tf2onnx shares no names: it numbers each open dimension anew. Of these only the first
    one of an output is known to be an input's: the batch, which Keras puts first.
    """
    renamed: dict[str, str] = {}
    for value in proto.graph.input:
        for dim, name in zip(value.type.tensor_type.shape.dim, dims.get(value.name, ()), strict=False):
            if isinstance(name, str) and dim.dim_param:
                renamed[dim.dim_param] = name
            if isinstance(name, int) or not dim.HasField("dim_value"):
                _set_dim(dim, name)
    for value in (*proto.graph.output, *proto.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in renamed:
                dim.dim_param = renamed[dim.dim_param]
            elif len(dim.dim_param) > _LONGEST_FORMULA:
                dim.Clear()
    leading: set[int | str] = {names[0] for names in dims.values() if names}
    if len(leading) == 1:
        batch = leading.pop()
        for value in proto.graph.output:
            shape = value.type.tensor_type.shape
            if shape.dim and _UNNAMED_DIM.match(shape.dim[0].dim_param):
                _set_dim(shape.dim[0], batch)


def correct_outputs(proto: onnx.ModelProto, seen: Sequence[Seen]) -> None:
    """Gives outputs the dimensions that runs had, where the exporter claims others or none.

    Where one claim is wrong, what the exporter says of inner values is worth no more, and goes.
    """
    wrong = False
    for at, value in enumerate(proto.graph.output):
        dims = value.type.tensor_type.shape.dim
        runs = [run for run in seen if at < len(run.outputs) and len(run.outputs[at]) == len(dims)]
        for axis, dim in enumerate(dims):
            sizes = [run.outputs[at][axis] for run in runs]
            claims_number = dim.HasField("dim_value")
            if claims_number and any(size != dim.dim_value for size in sizes):
                wrong = True
                dim.Clear()
            if len(set(sizes)) > 1 and (not dim.dim_param or _UNNAMED_DIM.match(dim.dim_param)):
                names = [
                    name
                    for name in runs[0].sizes
                    if all(run.sizes[name] == size for run, size in zip(runs, sizes, strict=True))
                ]
                if len(names) == 1:
                    _set_dim(dim, names[0])
    if wrong:
        del proto.graph.value_info[:]


def _set_dim(dim: onnx.TensorShapeProto.Dimension, size: int | str) -> None:
    if isinstance(size, int):
        dim.dim_value = size
    else:
        dim.dim_param = size


def read_sizes_first(proto: onnx.ModelProto) -> None:
    """Reads each size from the first input that has it.

    torch reads a size that inputs share from the last of them: from a decoder's last cache, which
    would then be read at the start and at the end, so that no cut could leave it in one part.
    """
    first: dict[str, tuple[str, int]] = {}
    at: dict[tuple[str, int], str] = {}
    for value in proto.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param:
                first.setdefault(dim.dim_param, (value.name, axis))
                at[value.name, axis] = dim.dim_param
    for node in proto.graph.node:
        if node.op_type == "Shape" and node.input[0] in {name for name, _ in at}:
            bounds = {entry.name: entry for entry in node.attribute}
            start, end = (bounds[name].i if name in bounds else None for name in ("start", "end"))
            name = at.get((node.input[0], start or 0))
            if end is not None and end == (start or 0) + 1 and name is not None:
                source, axis = first[name]
                node.input[0] = source
                for bound, number in (("start", axis), ("end", axis + 1)):
                    if bound in bounds:
                        bounds[bound].i = number
                    else:
                        node.attribute.append(onnx.helper.make_attribute(bound, number))


def strip(proto: onnx.ModelProto) -> None:
    """Takes out what exporters leave behind, in the model and everything in it."""
    for part in _parts(proto):
        if part.DESCRIPTOR.fields_by_name.get("metadata_props"):
            kept = [(e.key, e.value) for e in part.metadata_props if _is_kept(e.key, e.value)]
            if len(kept) < len(part.metadata_props):
                del part.metadata_props[:]
                for key, value in kept:
                    part.metadata_props.add(key=key, value=value)
        if _MACHINE_PATH.search(part.doc_string):
            part.ClearField("doc_string")
    if _MACHINE_PATH.search(proto.graph.name):
        proto.graph.name = "model"


def _is_kept(key: str, value: str) -> bool:
    return key == LAYER_KEY or not (key.startswith(_BOOKKEEPING) or _MACHINE_PATH.search(value))


def _parts(proto: onnx.ModelProto) -> Iterator[onnx.ModelProto]:  # or anything else with a doc_string
    yield proto
    yield from _graph_parts(proto.graph)
    for function in proto.functions:
        yield function
        yield from _node_parts(function.node)
    yield from tensors(proto)


def _graph_parts(graph: onnx.GraphProto) -> Iterator[onnx.ModelProto]:
    yield graph
    yield from (*graph.input, *graph.output, *graph.value_info)
    yield from _node_parts(graph.node)


def _node_parts(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.ModelProto]:
    for node in nodes:
        yield node
        for body in subgraphs(node):
            yield from _graph_parts(body)


def write(file: ModelFile, target: Path, limit: int = INLINE_LIMIT) -> tuple[Path, ...]:
    """Writes an opened model, edited or not, with its weights copied from file to file.

    Args:
        file: The model.
        target: Where to write; must not be one of the files the weights come from.
        limit: Larger models keep their weights in `NAME.data` beside the file.

    Returns:
        The files written, the model first.
    """
    proto = file.proto
    weights = [tensor for tensor in tensors(proto) if tensor.external_data]
    if proto.ByteSize() + sum(data_range(tensor).length for tensor in weights) <= limit:
        pieces = attach(proto.SerializeToString(), "model", lambda _: True)
        _copy(pieces, file.folder, target)
        return (target,)
    data = target.with_name(target.name + ".data")
    sources, offset = [], 0
    for tensor in weights:
        where = data_range(tensor)
        sources.append(where)
        set_data_range(tensor, DataRange(data.name, offset, where.length))
        offset += where.length
    _copy(sources, file.folder, data)
    target.write_bytes(proto.SerializeToString())
    return target, data


def _copy(pieces: Iterable[bytes | DataRange], folder: Path, target: Path) -> None:
    with target.open("wb") as out:
        for piece in pieces:
            if isinstance(piece, bytes):
                out.write(piece)
                continue
            with (folder / piece.location).open("rb") as source:
                source.seek(piece.offset)
                left = piece.length
                while left:
                    chunk = source.read(min(left, _CHUNK))
                    if not chunk:
                        raise OSError(f"{piece.location} ends early")
                    out.write(chunk)
                    left -= len(chunk)
