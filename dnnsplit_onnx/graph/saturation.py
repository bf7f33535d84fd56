"""Eight-bit products that processors sum up differently.

Without VNNI instructions, an x86 processor adds two products of uint8 and int8 in 16 bits, and what is
beyond them is cut off (`vpmaddubsw` of AVX2 and of the first AVX-512): a pair may lose up to
2 * 255 * 128 - 2**15 = 32,512. Processors with VNNI, arm64 and WebAssembly add exactly, so that one
model answers otherwise on two machines. 2 * 255 * 64 fits: weights of 7 bits, which `reduce_range`
makes, are safe everywhere, and so are uint8 weights, which take other instructions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.graph.modelfile import ModelFile, data_range, is_external

#: No sum of two products with uint8 leaves 16 bits while no weight is larger.
LARGEST_SAFE_WEIGHT = 64
_BLOCK = 1 << 24
_UINT8 = int(onnx.TensorProto.UINT8)
_MOST_READ = 5


class _Places(NamedTuple):
    """Where an operator reads what counts here: positions among its inputs."""

    weights: int
    activation: int
    zero_point: int


#: Operators whose sums onnxruntime makes in whole numbers, the weights second. ConvInteger is none of them:
#: it has the weights first, and exchanges their signs with the activations'.
_OPERATORS = {
    "MatMulInteger": _Places(1, 0, 2),
    "QLinearMatMul": _Places(3, 0, 2),
    "QLinearConv": _Places(3, 0, 2),
    "QGemm": _Places(3, 0, 2),
    "MatMulIntegerToFloat": _Places(1, 0, 4),
}
#: Those that onnxruntime fuses with a DequantizeLinear at each input.
_FUSED = frozenset({"MatMul", "Gemm", "Conv"})


def saturating_nodes(model: ModelFile) -> tuple[str, ...]:
    """Nodes that multiply uint8 by int8 weights so large that sums of two products may leave 16 bits.

    Nodes of the main graph; what is not known to be uint8 and int8 is not named. Only the
    weights of such nodes are read, in blocks.

    Args:
        model: The model.

    Returns:
        Their names, or what they compute where they have none, in the model's order.

    Raises:
        ModelError: Weights cannot be read.
    """
    constants = _constants(model.proto.graph)
    types = _element_types(model.proto.graph, constants)
    makers = {value: node for node in model.proto.graph.node for value in node.output}
    large: dict[str, bool] = {}
    found = []
    for node in model.proto.graph.node:
        weight = _int8_weight(node, types, makers)
        if weight is None or weight not in constants or _is_depthwise(node, constants[weight]):
            continue
        if weight not in large:
            large[weight] = _exceeds(model, constants[weight])
        if large[weight]:
            found.append(node.name or node.output[0])
    return tuple(found)


def warning(nodes: tuple[str, ...]) -> str | None:
    """What to tell a person of such nodes; None if there are none."""
    if not nodes:
        return None
    one = len(nodes) == 1
    who = f"node `{nodes[0]}` sums" if one else f"node `{nodes[0]}` and {len(nodes) - 1} more sum"
    return (
        f"{who} products of uint8 and int8 weights: x86 processors without VNNI saturate there, others and "
        "browsers do not, so that answers may differ from machine to machine; quantise the weights with "
        "reduce_range=True, or as uint8"
    )


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    found = {tensor.name: tensor for tensor in graph.initializer}
    constants = (node for node in graph.node if node.op_type == "Constant")
    found |= {node.output[0]: one.t for node in constants for one in node.attribute if one.name == "value"}
    return found


def _element_types(graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto]) -> dict[str, int]:
    """ONNX's numbers of the types of elements, where they are known."""
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {name: tensor.data_type for name, tensor in constants.items()}
    for node in graph.node:
        if node.op_type == "DynamicQuantizeLinear":
            types |= dict.fromkeys((*node.output[:1], *node.output[2:]), _UINT8)
        elif node.op_type == "QuantizeLinear":
            zero = node.input[2] if len(node.input) > 2 else ""
            types[node.output[0]] = types.get(zero, 0) if zero else _attribute(node, "output_dtype") or _UINT8
    return types


def _attribute(node: onnx.NodeProto, name: str) -> int:
    """A whole number among a node's attributes, 0 if it is not there."""
    return next((one.i for one in node.attribute if one.name == name), 0)


def _is_depthwise(node: onnx.NodeProto, weight: onnx.TensorProto) -> bool:
    """Whether each channel is convolved by itself into one: onnxruntime sums that exactly everywhere."""
    return (
        node.op_type in ("Conv", "QLinearConv")
        and len(weight.dims) > 1
        and (weight.dims[0], weight.dims[1]) == (_attribute(node, "group") or 1, 1)
    )


def _int8_weight(
    node: onnx.NodeProto, types: Mapping[str, int], makers: Mapping[str, onnx.NodeProto]
) -> str | None:
    """The int8 value that a node multiplies uint8 by, if any."""
    given = [*node.input, *[""] * _MOST_READ]  # what may be left out
    if node.op_type == "DynamicQuantizeMatMul":  # it quantises what it reads to uint8 itself
        weight, activation = given[1], _UINT8
    elif node.op_type in _OPERATORS:
        places = _OPERATORS[node.op_type]
        activation = types.get(given[places.zero_point]) or types.get(given[places.activation], 0)
        weight = given[places.weights]
    elif node.op_type in _FUSED:
        left, right = (makers.get(name) for name in given[:2])
        if left is None or right is None or {left.op_type, right.op_type} != {"DequantizeLinear"}:
            return None
        zero = left.input[2] if len(left.input) > 2 else ""
        activation = types.get(zero) or types.get(left.input[0], 0)
        weight = right.input[0]
    else:
        return None
    pair = (activation, types.get(weight))
    return weight if pair == (_UINT8, onnx.TensorProto.INT8) else None


def _exceeds(model: ModelFile, tensor: onnx.TensorProto) -> bool:
    """Whether an int8 weight has an element beyond what is safe."""
    if not is_external(tensor):
        return _large(numpy_helper.to_array(tensor).reshape(-1))
    where = data_range(tensor)
    path = model.folder / where.location
    nbytes = where.length if where.length >= 0 else math.prod(tensor.dims)
    try:
        values = np.memmap(path, np.int8, "r", where.offset, (nbytes,)) if nbytes else np.empty(0, np.int8)
        return any(_large(values[at : at + _BLOCK]) for at in range(0, nbytes, _BLOCK))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read weight `{tensor.name}` in `{path}`: {error}") from None


def _large(values: np.ndarray) -> bool:
    return bool(np.any(values > LARGEST_SAFE_WEIGHT) or np.any(values < -LARGEST_SAFE_WEIGHT))
