"""What an ONNX graph says about its values, and the work of a whole (sub)graph."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import onnx
from onnx import numpy_helper

from dnnsplit_onnx.work.flops.registry import count_node
from dnnsplit_onnx.work.flops.types import Context, TensorType
from dnnsplit_onnx.work.flops.view import UnknownWork
from dnnsplit_onnx.work.flops.work import Work

# Formulas read axes, shapes, trip counts and lengths; anything larger is a weight.
SMALL = 4096
# numpy has no arrays of more dimensions, and no operator means anything for them.
_MOST_DIMS = 64


class GraphContext:
    """A `Context` over one graph: its inputs, outputs, value infos, initializers and Constant nodes.

    The graph is read as it is: run shape inference first. An inner graph looks in itself first, then
    outwards, as ONNX scoping says.

    Args:
        graph: A model's graph or a subgraph.
        outer: The context of the node that holds the subgraph; None for a model's graph.
        opsets: Operator set versions by domain; not needed for a subgraph.
        trips: Iterations of Loop, Scan and SequenceMap nodes by node name, where the user states them;
            not needed for a subgraph.
    """

    def __init__(
        self,
        graph: onnx.GraphProto,
        *,
        outer: Context | None = None,
        opsets: Mapping[str, int] | None = None,
        trips: Mapping[str, int] | None = None,
    ) -> None:
        self._outer = outer
        self._opsets = dict(opsets or {})
        self.trips: Mapping[str, int] = trips or (outer.trips if outer is not None else {})
        self._declared = {
            value.name: value for values in (graph.value_info, graph.output, graph.input) for value in values
        }
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._sparse = {tensor.values.name: tensor for tensor in graph.sparse_initializer}
        self._constants = {
            node.output[0]: node for node in graph.node if node.op_type == "Constant" and node.output
        }
        self._types: dict[str, TensorType | None] = {}

    def type_of(self, name: str) -> TensorType | None:
        """The type of a value of this graph or, if it has none of that name, of the graphs around it."""
        if name in self._types:
            return self._types[name]
        known = self._own_type(name)
        if known is None and self._outer is not None:
            known = self._outer.type_of(name)
        self._types[name] = known
        return known

    def _own_type(self, name: str) -> TensorType | None:
        # An initializer is exact; a declaration may be symbolic.
        if name in self._tensors:
            tensor = self._tensors[name]
            return TensorType(tensor.data_type, tuple(tensor.dims))
        if name in self._sparse:
            sparse = self._sparse[name]
            return TensorType(sparse.values.data_type, tuple(sparse.dims))
        if name in self._declared:
            return _tensor_type(self._declared[name].type)
        if name in self._constants:
            value = self.constant(name)
            if value is not None:
                return TensorType(_dtype(value), value.shape)
        return None

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a small initializer or Constant node; None for anything else."""
        if name in self._tensors:
            return _small_array(self._tensors[name])
        if name in self._constants:
            return _constant_value(self._constants[name])
        if name in self._declared or self._outer is None:
            return None
        return self._outer.constant(name)

    def opset(self, domain: str) -> int:
        """The imported version of an operator set; 0 if the model does not import it."""
        if self._outer is not None:
            return self._outer.opset(domain)
        spellings = ("", "ai.onnx") if domain in ("", "ai.onnx") else (domain,)
        return next((self._opsets[name] for name in spellings if name in self._opsets), 0)


def _tensor_type(proto: onnx.TypeProto) -> TensorType | None:
    kind = proto.WhichOneof("value")
    if kind == "tensor_type":
        return _typed(proto.tensor_type.elem_type, proto.tensor_type)
    if kind == "sparse_tensor_type":
        return _typed(proto.sparse_tensor_type.elem_type, proto.sparse_tensor_type)
    return None  # sequences, maps and optionals have no size of their own


def _typed(dtype: int, proto: onnx.TypeProto.Tensor | onnx.TypeProto.SparseTensor) -> TensorType:
    if not proto.HasField("shape") or len(proto.shape.dim) > _MOST_DIMS:
        return TensorType(dtype, None)
    dims = []
    for dim in proto.shape.dim:
        if dim.WhichOneof("value") != "dim_value" or dim.dim_value < 0:
            return TensorType(dtype, None)
        dims.append(dim.dim_value)
    return TensorType(dtype, tuple(dims))


def _dtype(value: np.ndarray) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(value.dtype))


def _small_array(tensor: onnx.TensorProto) -> np.ndarray | None:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or prod(tensor.dims) > SMALL:
        return None
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError):  # its data is not what its type and shape say
        return None


def _constant_value(node: onnx.NodeProto) -> np.ndarray | None:
    for attribute in node.attribute:
        if attribute.name == "value":
            return _small_array(attribute.t)
        if attribute.name == "value_int":
            return np.array(attribute.i, np.int64)
        if attribute.name == "value_ints":
            return np.array(attribute.ints, np.int64)
        if attribute.name == "value_float":
            return np.array(attribute.f, np.float32)
        if attribute.name == "value_floats":
            return np.array(attribute.floats, np.float32)
    return None


def graph_work(graph: onnx.GraphProto, context: Context) -> Work:
    """The work of one execution of a graph.

    Args:
        graph: The graph.
        context: The context of its nodes.

    Raises:
        UnknownWork: The work of a node is unknown.
    """
    macs = elementwise = 0
    for node in graph.node:
        work = count_node(node, context)
        if work is None:
            raise UnknownWork
        macs += work.macs
        elementwise += work.elementwise
    return Work(macs, elementwise)
