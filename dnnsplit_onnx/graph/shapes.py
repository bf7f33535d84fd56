"""Types of values: dtypes and shapes, symbolic dimensions bound to numbers.

Nothing is guessed. A shape is what the file declares or what onnx's shape inference (with
data propagation, and with what `shape_values` computes) proves from it; a dimension that
stays symbolic stays symbolic, and a value whose size is unknown has the size None. It
becomes an error only where someone needs the number (`Types.need_nbytes`).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dnnsplit_onnx.errors import ShapeError
from dnnsplit_onnx.graph.dimensions import axis_name, names_in, open_names, size_of, size_of_name
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.inference import infer
from dnnsplit_onnx.graph.shape_values import infer_with_values

Dim = int | str | None
Kind = Literal["tensor", "sparse_tensor", "sequence", "optional", "map", "unknown"]

# No tensor is larger: a claim beyond it is a broken or hostile model.
_LARGEST_NBYTES = 1 << 60

_BITS = {
    "FLOAT": 32, "UINT8": 8, "INT8": 8, "UINT16": 16, "INT16": 16, "INT32": 32, "INT64": 64,
    "BOOL": 8, "FLOAT16": 16, "DOUBLE": 64, "UINT32": 32, "UINT64": 64, "COMPLEX64": 64,
    "COMPLEX128": 128, "BFLOAT16": 16, "FLOAT8E4M3FN": 8, "FLOAT8E4M3FNUZ": 8, "FLOAT8E5M2": 8,
    "FLOAT8E5M2FNUZ": 8, "FLOAT8E8M0": 8, "UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2,
    "INT2": 2, "FLOAT6E2M3": 6, "FLOAT6E3M2": 6,
}  # fmt: skip

# Bits per element by TensorProto.DataType; strings have no fixed size and are not here.
BITS: dict[int, int] = {
    number: _BITS[name] for name, number in onnx.TensorProto.DataType.items() if name in _BITS
}


@dataclass(frozen=True, slots=True)
class ValueType:
    """The type of a value.

    Attributes:
        kind: What it is; only a "tensor" has a size.
        dtype: TensorProto.DataType of the elements, 0 if unknown.
        shape: One entry a dimension: a number, a symbolic name, or None if nothing is
            known of it. None if the rank is unknown.
        string_nbytes: Bytes of the strings that were seen in a run; None for all other types.
    """

    kind: Kind = "unknown"
    dtype: int = 0
    shape: tuple[Dim, ...] | None = None
    string_nbytes: int | None = None

    @property
    def elements(self) -> int | None:
        """Number of elements, None if unknown."""
        return _elements(self.shape) if self.kind == "tensor" and self.shape is not None else None

    @property
    def nbytes(self) -> int | None:
        """Size in bytes (sub-byte elements packed), None if unknown."""
        if self.dtype == onnx.TensorProto.STRING:
            return self.string_nbytes
        elements, bits = self.elements, BITS.get(self.dtype)
        return None if elements is None or bits is None else (elements * bits + 7) // 8

    @property
    def dtype_name(self) -> str | None:
        """The dtype as onnx spells it in lower case (`float`, `int64`), None if unknown."""
        if not self.dtype or self.dtype not in onnx.TensorProto.DataType.values():
            return None
        name: str = onnx.TensorProto.DataType.Name(self.dtype)
        return name.lower()


_UNKNOWN = ValueType()


@dataclass(frozen=True)
class Types:
    """The types of all values of a graph, under a binding of its symbolic dimensions.

    Attributes:
        graph: The graph.
        inferred: The model with what shape inference added, subgraphs included. Its nodes
            are those of `graph.proto`, in the same order.
        bindings: The numbers that symbolic dimensions were bound to.
        observed: Types seen in one real run, for values that inference cannot size.
        refused: Sizes of open dimensions that were tried, and why the model does not run at them.
    """

    graph: Graph
    inferred: onnx.ModelProto
    bindings: Mapping[str, int]
    observed: Mapping[str, ValueType] = field(default_factory=dict)
    refused: tuple[str, ...] = ()

    @cached_property
    def protos(self) -> dict[str, onnx.TypeProto]:
        """The TypeProto of each value that has one: inputs, outputs and inner values."""
        found: dict[str, onnx.TypeProto] = {}
        graph = self.inferred.graph
        for values in (graph.output, graph.value_info, graph.input):
            found.update((v.name, v.type) for v in values if v.type.WhichOneof("value"))
        return found

    @cached_property
    def _weights(self) -> dict[str, ValueType]:
        graph = self.inferred.graph
        types = {t.name: ValueType("tensor", t.data_type, tuple(t.dims)) for t in graph.initializer}
        for s in graph.sparse_initializer:
            # An operator sees a sparse initializer as the dense tensor.
            types[s.values.name] = ValueType("tensor", s.values.data_type, tuple(s.dims))
        return types

    @property
    def weight_nbytes(self) -> int:
        """Bytes of all initializers."""
        return sum(known.nbytes or 0 for known in self._weights.values())

    @cached_property
    def _cache(self) -> dict[str, ValueType]:
        # All in one go, so that no message's wrapper stays: those of `protos` take more than the types.
        graph, found = self.inferred.graph, dict(self.observed)
        for values in (graph.output, graph.value_info, graph.input):
            for value in values:
                known = _parsed(value.type.SerializeToString())
                if known is not None:
                    name = value.name
                    is_open = bool(self.observed) and known.nbytes is None
                    found[name] = self.observed.get(name, known) if is_open else known
        return found | self._weights

    @cached_property
    def _sizes(self) -> dict[str, int | None]:
        # Asked for many times over, by everything that prices cuts; many values share one type.
        types = {id(known): known for known in self._cache.values()}
        sizes = {key: known.nbytes for key, known in types.items()}
        possible = {key for key, size in sizes.items() if size is None or 0 <= size < _LARGEST_NBYTES}
        return {name: sizes[id(known)] for name, known in self._cache.items() if id(known) in possible}

    def __getitem__(self, name: str) -> ValueType:
        """The type of a value; of an unknown one, a type that says so."""
        return self._cache.get(name, _UNKNOWN)

    @cached_property
    def unsized(self) -> tuple[str, ...]:
        """Values of unknown size that somebody reads; what nobody reads need not be known."""
        graph = self.graph
        read = set(graph.outputs)
        for node in graph.nodes:
            read.update(node.inputs, node.weights)
        names = (*graph.values, *graph.constant_nodes)
        sizes = self._sizes
        return tuple(
            name
            for name in names
            if name in read and (sizes[name] if name in sizes else self[name].nbytes) is None
        )

    def value_info(self, name: str) -> onnx.ValueInfoProto:
        """A value with its type, or without one where it is unknown."""
        info = onnx.ValueInfoProto(name=name)
        if name in self.protos:
            info.type.CopyFrom(self.protos[name])
        elif name in self._weights:
            known = self._weights[name]
            info.type.CopyFrom(helper.make_tensor_type_proto(known.dtype, known.shape))
        return info

    def nbytes(self, name: str) -> int | None:
        """Size of a value in bytes, None if unknown.

        Raises:
            ShapeError: The model claims a size that no tensor can have.
        """
        try:
            return self._sizes[name]
        except KeyError:
            size = self[name].nbytes
        if size is not None and not 0 <= size < _LARGEST_NBYTES:
            raise ShapeError(f"value `{name}` claims {size} bytes", context=f"in {self.graph.file.path}")
        self._sizes[name] = size
        return size

    def need_nbytes(self, name: str) -> int:
        """Size of a value in bytes.

        Raises:
            ShapeError: It is unknown. The hint says what to bind, if that helps.
        """
        size = self.nbytes(name)
        if size is None:
            raise self.unknown_size(name)
        return size

    def unknown_size(self, name: str) -> ShapeError:
        """The error for a value whose size is needed and unknown."""
        kind = self[name]
        user = next((node for node in self.graph.nodes if name in node.inputs), None)
        where = f", used by node `{user.name}` ({user.op_type})" if user else ""
        free = free_dimensions(self.graph, self.bindings)
        hint = f"pass {bind_options(dict.fromkeys(free, 1))}" if free else None
        why = "its shape is unknown"
        if kind.kind not in ("tensor", "unknown"):
            why, hint = f"it is a {kind.kind}, not a tensor", "cut elsewhere"
        elif kind.shape is not None:
            symbolic = next((d for d in kind.shape if not isinstance(d, int)), None)
            why = f"dimension `{symbolic}` is symbolic" if symbolic else "a dimension is unknown"
        if kind.kind == "tensor" and kind.dtype not in BITS:
            why = f"elements of type {kind.dtype_name} have no fixed size"
            hint = "give samples of them: --sample-input X.npz, or `input_nbytes` in the tiers file"
        if kind.kind in ("tensor", "unknown") and kind.dtype in BITS | {0: 0} and not free:
            hint = "its size depends on the data or on an operator that onnx does not know"
        if self.refused and free:
            tried = "; ".join(self.refused)
            hint = f"give inputs that the model accepts: --sample-input X.npz (tried {tried})"
        path = self.graph.file.path.name
        return ShapeError(f"cannot size value `{name}`: {why}", context=f"in {path}{where}", hint=hint)

    @cached_property
    def _small_constants(self) -> dict[str, onnx.TensorProto]:
        found = {t.name: t for t in self.graph.proto.graph.initializer}
        nodes = self.graph.proto.graph.node
        for name, index in self.graph.constant_nodes.items():
            if nodes[index].op_type == "Constant":
                found.update((name, a.t) for a in nodes[index].attribute if a.name == "value")
        return found

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a constant that is small enough to be inline, else None."""
        tensor = self._small_constants.get(name)
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
            return None
        try:
            return numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError):
            return None


@lru_cache(4096)  # many values of a model have one shape
def _elements(shape: tuple[Dim, ...]) -> int | None:
    numbers = [d for d in shape if isinstance(d, int)]
    return _product(numbers) if len(numbers) == len(shape) else None


def _product(numbers: Sequence[int]) -> int:
    """The product, or one that is too large if it is: that of a million numbers takes minutes."""
    if 0 in numbers:
        return 0
    product = 1
    for number in numbers:
        product *= number
        if product > _LARGEST_NBYTES:
            break
    return product


@lru_cache(4096)  # one object for each, however many values have it
def _parsed(data: bytes) -> ValueType | None:
    proto = onnx.TypeProto.FromString(data)
    return value_type(proto) if proto.WhichOneof("value") else None


def value_type(proto: onnx.TypeProto) -> ValueType:
    """A TypeProto as a `ValueType`."""
    kind = proto.WhichOneof("value")
    if kind in ("tensor_type", "sparse_tensor_type"):
        tensor = proto.tensor_type if kind == "tensor_type" else proto.sparse_tensor_type
        shape = tuple(map(_dim, tensor.shape.dim)) if tensor.HasField("shape") else None
        return ValueType("tensor" if kind == "tensor_type" else "sparse_tensor", tensor.elem_type, shape)
    if kind == "sequence_type":
        return ValueType("sequence", value_type(proto.sequence_type.elem_type).dtype)
    if kind == "optional_type":
        return ValueType("optional", value_type(proto.optional_type.elem_type).dtype)
    return ValueType("map") if kind == "map_type" else ValueType()


def bind_shapes(graph: Graph, bindings: Mapping[str, int] | None = None) -> Types:
    """Infers the type of every value, with symbolic dimensions made concrete.

    Args:
        graph: The graph.
        bindings: Number for each symbolic dimension to bind, by a name that it has
            (`dimensions`): a dimension of an input is always called `INPUT.AXIS` too.

    Raises:
        ShapeError: A binding names no dimension of the model, or is not positive.
    """
    bindings = dict(bindings or {})
    return Types(graph, _infer(_bound(graph, bindings)), bindings)


def _bound(graph: Graph, bindings: Mapping[str, int]) -> onnx.ModelProto:
    """A copy of a graph's model with its dimensions bound."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.proto)
    if bindings:
        _bind(model.graph, bindings, graph)
    for value in model.graph.input:
        for *_, dim in _open_dims(value):
            if dim.dim_value < 0:  # "unknown", to those who write it; inference would compute with it
                dim.ClearField("dim_value")
    return model


def free_dimensions(graph: Graph, bindings: Mapping[str, int], *, axis: int | None = None) -> tuple[str, ...]:
    """Names of the dimensions of model inputs that are neither numbers nor bound.

    Args:
        graph: The graph.
        bindings: Those that are bound.
        axis: Only dimensions on this axis.
    """
    data = set(graph.inputs)
    names: dict[str, None] = {}
    for value in graph.proto.graph.input:
        if value.name in data:
            for at, name, _ in _open_dims(value):
                if axis in (None, at):
                    names.update(dict.fromkeys(open_names(name, value.name, at, bindings)))
    return tuple(names)


def bind_options(sizes: Mapping[str, int]) -> str:
    """Sizes as options of the command line, quoted for a shell."""
    return " ".join(f"--bind {shlex.quote(f'{name}={size}')}" for name, size in sizes.items())


def _open_dims(
    value: onnx.ValueInfoProto,
) -> Iterable[tuple[int, str | None, onnx.TensorShapeProto.Dimension]]:
    """The dimensions of a value that are not numbers: axis, the file's name, and themselves."""
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        if not isinstance(_dim(dim), int):
            yield axis, _dim_name(dim) or None, dim


def _bind(graph_proto: onnx.GraphProto, bindings: Mapping[str, int], graph: Graph) -> None:
    may_be_empty = _of_states_alone(graph)
    for name, number in bindings.items():
        if number < 0 or (number == 0 and name not in may_be_empty):
            raise ShapeError(
                f"cannot bind dimension `{name}` to {number}",
                hint="sizes are 1 or more" if name not in may_be_empty else "sizes are 0 or more",
            )
    used: set[str] = set()
    inputs = set(graph.inputs)
    for values in (graph_proto.input, graph_proto.output, graph_proto.value_info):
        for value in values:
            for axis, dim_name, dim in _open_dims(value):
                called = (dim_name or "", *names_in(dim_name or ""))
                if value.name in inputs:
                    size = size_of(dim_name, value.name, axis, bindings)
                    called = (*called, axis_name(value.name, axis))
                else:
                    size = size_of_name(dim_name, bindings)
                used.update(called)
                if size is not None and size >= 0:
                    dim.dim_value = size
    for name in bindings:
        if name not in used:
            free = free_dimensions(graph, {})
            listed = ", ".join(f"`{dim}`" for dim in free)
            hint = (
                f"its inputs have the dimensions {listed}"
                if free
                else "its inputs have no symbolic dimension"
            )
            raise ShapeError(f"model `{graph.file.path.name}` has no dimension `{name}`", hint=hint)


def _of_states_alone(graph: Graph) -> set[str]:
    """The names that only states have, or sums: what the first pass has none of."""
    kept = {state.input for state in graph.states}
    names: dict[bool, set[str]] = {True: set(), False: set()}
    for value in graph.proto.graph.input:
        for axis, dim, _ in _open_dims(value):
            is_state = value.name in kept
            called = names_in(dim or "") if is_state else (dim or "",)
            names[is_state].update((*called, axis_name(value.name, axis)))
    return names[True] - names[False]


def _infer(model: onnx.ModelProto) -> onnx.ModelProto:
    """Shape inference that uses what it can and never fails.

    What the file says of inner values and outputs goes stale when somebody edits a batch size,
    and a bound dimension contradicts it. So it is set aside first, and taken only for
    values of which nothing can be proved.
    """
    # Copies, since a part of a message keeps all of it in memory.
    outputs = [_copied(value) for value in model.graph.output]
    said = [*map(_copied, model.graph.value_info), *outputs]
    del model.graph.value_info[:]
    del model.graph.output[:]
    for further in (False, True):
        if further:
            names = {v.name for v in said if v.type.WhichOneof("value")}
            proved = [v for v in model.graph.value_info if v.name in names]
            unsized = names - {v.name for v in proved if value_type(v.type).nbytes is not None}
            if not unsized:
                break
            kept = [v for v in model.graph.value_info if v.name not in unsized]
            stated = {v.name: v for v in said if v.name in unsized}
            del model.graph.value_info[:]
            model.graph.value_info.extend([*kept, *stated.values()])
        data = model.SerializeToString()
        del model  # makes room for what inference takes
        try:
            model = infer(data)
        except Exception:  # it refuses what it cannot follow in many ways
            model = onnx.ModelProto.FromString(data)
            break
    if any(node.op_type in ("Range", "Shape", "Size") for node in model.graph.node):
        model = infer_with_values(model)
    model.graph.output.extend(outputs)
    return model


def _copied(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    copied = onnx.ValueInfoProto()
    copied.CopyFrom(value)
    return copied


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return _dim_name(dim) or None


def _dim_name(dim: onnx.TensorShapeProto.Dimension) -> str:
    """The name of a symbolic dimension; the protobuf library hands out bytes where it is not UTF-8."""
    name: str | bytes = dim.dim_param
    return name.decode(errors="backslashreplace") if isinstance(name, bytes) else name
