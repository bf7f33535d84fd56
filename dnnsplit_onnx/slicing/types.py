"""Types of the values at a boundary: proved, or stated, never guessed.

The inputs of a slice are enforced by onnxruntime: a wrong dimension makes it refuse data
that the whole model would have taken. So a dimension is written only if inference proves it
from the model's inputs and weights:

1. What the file declares of inner values is set aside first. Declarations go stale when
   somebody edits a batch size; in a whole model nobody minds.
2. A negative dimension means "unknown" to those who write it (PaddlePaddle does), and would
   be taken for a number to compute with; it is made unknown.
3. Where inference does not even find a rank, it may still be certain (a Reshape has as many
   dimensions as its shape operand has elements), or else stated: the declared element type
   and number of dimensions are taken, the dimensions left open. Inference goes on from there.
4. Where nothing is declared either, onnxruntime is asked, if it is installed. It is also
   asked for ranks, in models with operators of its own.
5. Where it does not know, the operators around a value may settle its element type (see
   `deduce`).
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

import onnx

from dnnsplit_onnx.errors import CutError
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.inference import infer
from dnnsplit_onnx.graph.operators import ONNX_DOMAINS
from dnnsplit_onnx.slicing.ask_runtime import ask_runtime
from dnnsplit_onnx.slicing.deduce import deduce_types

# Each pass of inference may learn ranks that the next one builds on.
_PASSES = 4


class BoundaryTypes:
    """The types of inner values of a graph, found out when they are needed."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        declared = _declared(graph)
        self._known = declared | _proved(graph, declared)
        self._asked: set[str] = set()

    def __getitem__(self, name: str) -> onnx.TypeProto:
        """The type of a value for which `require` was called, or which is known anyway."""
        return self._known[name]

    def get(self, name: str) -> onnx.TypeProto | None:
        """The type of a value, None if it is not known."""
        return self._known.get(name)

    def require(self, names: Iterable[str]) -> None:
        """Makes sure that these values have a type.

        Raises:
            CutError: One has none; the message names it and the node that makes it.
        """
        unknown = [name for name in dict.fromkeys(names) if not self._is_settled(name)]
        if not unknown:
            return
        settled = {name: proto for name, proto in self._known.items() if self._is_settled(name)}
        found, reason = ask_runtime(self._graph, unknown, settled)
        self._known.update(found)
        self._asked.update(unknown)
        for name in unknown:
            if name in self._known:
                continue
            if name not in self._deduced:
                raise self._untyped(name, reason)
            self._known[name] = self._deduced[name]

    def _is_settled(self, name: str) -> bool:
        """Whether all is known of a type that anyone could tell."""
        proto = self._known.get(name)
        if proto is None or not proto.HasField("tensor_type") or _rank(proto) is not None:
            return proto is not None
        return not self._runtime_knows_more or name in self._asked or name in self._graph.inputs

    @cached_property
    def _runtime_knows_more(self) -> bool:
        """Whether ranks may have been lost at operators of onnxruntime's own."""
        return any(node.domain.startswith("com.microsoft") for node in self._graph.nodes)

    @cached_property
    def _deduced(self) -> dict[str, onnx.TypeProto]:
        return deduce_types(self._graph, self._known)

    def _untyped(self, name: str, reason: str) -> CutError:
        at = self._graph.producer.get(name)
        node = self._graph.nodes[at] if at is not None else None
        maker = f", made by node `{node.name}` ({node.domain or 'ai.onnx'}.{node.op_type})" if node else ""
        return CutError(
            f"cannot cut at value `{name}`: its type is unknown{maker}",
            context=reason,
            hint="cut elsewhere, or declare the value's type in the model (`value_info`)",
        )


def has_element_type(proto: onnx.TypeProto) -> bool:
    """Whether a type says what its elements are."""
    kind = proto.WhichOneof("value")
    if kind == "tensor_type":
        return proto.tensor_type.elem_type != 0
    if kind == "sparse_tensor_type":
        return proto.sparse_tensor_type.elem_type != 0
    if kind == "sequence_type":
        return has_element_type(proto.sequence_type.elem_type)
    if kind == "optional_type":
        return has_element_type(proto.optional_type.elem_type)
    if kind == "map_type":
        return proto.map_type.key_type != 0 and has_element_type(proto.map_type.value_type)
    return kind is not None


def _declared(graph: Graph) -> dict[str, onnx.TypeProto]:
    """What the file says of inner values and outputs, dimensions left open; of inputs and weights, all."""
    proto = graph.proto.graph
    types: dict[str, onnx.TypeProto] = {}
    for value in (*proto.value_info, *proto.output):
        if has_element_type(value.type):
            types[value.name] = onnx.TypeProto()
            types[value.name].CopyFrom(value.type)
            _open_dims(types[value.name])
    for tensor in proto.initializer:
        types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    for sparse in proto.sparse_initializer:
        # An operator sees a sparse initializer as the dense tensor.
        types[sparse.values.name] = onnx.helper.make_tensor_type_proto(sparse.values.data_type, sparse.dims)
    for value in proto.input:
        if has_element_type(value.type):
            types[value.name] = onnx.TypeProto()
            types[value.name].CopyFrom(value.type)
            _forget_negative_dims(types[value.name])
    return types


def _proved(graph: Graph, declared: Mapping[str, onnx.TypeProto]) -> dict[str, onnx.TypeProto]:
    """What inference finds for inner values and outputs, from inputs and weights."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.proto)
    del model.graph.value_info[:]
    del model.graph.output[:]  # declarations too; and inference is confused by outputs that are inputs
    for value in model.graph.input:
        _forget_negative_dims(value.type)
    seeds: set[str] = set()
    for _ in range(_PASSES):
        types = _infer(model)
        fresh = {n: t for n, t in _without_rank(graph, types, declared) if n not in seeds}
        if not fresh:
            break
        seeds.update(fresh)
        for name, proto in fresh.items():
            model.graph.value_info.add(name=name, type=proto)
    return types


def _infer(model: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    try:
        inferred = infer(model)
    except Exception:  # it refuses what it cannot follow in many ways; then nothing is proved
        return {}
    inputs = {value.name for value in model.graph.input}
    symbols = {dim.dim_param for value in model.graph.input for dim in _dims(value.type)}
    types: dict[str, onnx.TypeProto] = {}
    for value in inferred.graph.value_info:
        if has_element_type(value.type) and value.name not in inputs:
            _forget_negative_dims(value.type)
            for dim in _dims(value.type):
                if dim.dim_param not in symbols:  # a name that inference made up says no more than none
                    dim.ClearField("dim_param")
            types[value.name] = value.type
    return types


def _without_rank(
    graph: Graph, types: Mapping[str, onnx.TypeProto], declared: Mapping[str, onnx.TypeProto]
) -> Iterator[tuple[str, onnx.TypeProto]]:
    """Values whose rank inference does not know, with a type that has one (case 3)."""
    known = ChainMap(dict(types), dict(declared))
    for node in graph.proto.graph.node:
        for name in node.output:
            if not name or _rank(types.get(name)) is not None:
                continue
            rank, data = None, None
            if node.op_type == "Reshape" and node.domain in ONNX_DOMAINS and len(node.input) > 1:
                rank, data = _length(known.get(node.input[1])), known.get(node.input[0])
            if rank is not None and data is not None and data.HasField("tensor_type"):
                proto = onnx.TypeProto()
                proto.tensor_type.elem_type = data.tensor_type.elem_type
                proto.tensor_type.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in range(rank))
                yield name, proto
            elif _rank(declared.get(name)) is not None or (name in declared and name not in types):
                yield name, declared[name]


def _rank(proto: onnx.TypeProto | None) -> int | None:
    """Number of dimensions of a tensor, None if it is unknown or the value is no tensor."""
    if proto is None or not proto.HasField("tensor_type") or not proto.tensor_type.HasField("shape"):
        return None
    return len(proto.tensor_type.shape.dim)


def _length(proto: onnx.TypeProto | None) -> int | None:
    """Number of elements of a vector, None if it is unknown."""
    if proto is None or _rank(proto) != 1 or not proto.tensor_type.shape.dim[0].HasField("dim_value"):
        return None
    return int(proto.tensor_type.shape.dim[0].dim_value)


def _open_dims(proto: onnx.TypeProto) -> None:
    """Leaves the number of dimensions, and nothing of their sizes."""
    for dim in _dims(proto):
        dim.ClearField("value")


def _forget_negative_dims(proto: onnx.TypeProto) -> None:
    """Makes dimensions below zero unknown."""
    for dim in _dims(proto):
        if dim.dim_value < 0:
            dim.ClearField("dim_value")


def _dims(proto: onnx.TypeProto) -> Iterator[onnx.TensorShapeProto.Dimension]:
    for tensor in _tensor_types(proto):
        if tensor.HasField("shape"):
            yield from tensor.shape.dim


def _tensor_types(proto: onnx.TypeProto) -> list[onnx.TypeProto.Tensor]:
    """The tensor types inside a type: itself, or what a sequence, optional or map holds."""
    kind = proto.WhichOneof("value")
    if kind == "tensor_type":
        return [proto.tensor_type]
    if kind == "sparse_tensor_type":
        return [proto.sparse_tensor_type]
    if kind == "sequence_type":
        return _tensor_types(proto.sequence_type.elem_type)
    if kind == "optional_type":
        return _tensor_types(proto.optional_type.elem_type)
    if kind == "map_type":
        return _tensor_types(proto.map_type.value_type)
    return []
