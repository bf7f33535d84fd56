"""Fused sums and norms taken apart, so that a cut between them sends one tensor.

`SkipLayerNormalization` and `SkipSimplifiedLayerNormalization` add a layer's output to the residual and
hand out both: the sum, which is the next residual, and its norm, which the next layer reads. A cut
after one sends two tensors of the same width where the first says it all. Here the sum is an Add, and
the norm is the same operator over the sum and zeros: `x + -0.0` is `x` for every `x`, the kernel is the
same, and so are its bits in single precision. In half precision a kernel may norm the sum before it is
rounded.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

_FUSED = ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
# Places of its inputs and outputs.
_BIAS = {"SkipLayerNormalization": 4, "SkipSimplifiedLayerNormalization": 3}
_SUM = 3


def split_norms(model: onnx.ModelProto) -> int:
    """Takes fused sums and norms apart, in place, where both are read.

    Args:
        model: A model with its weights.

    Returns:
        How many there were.
    """
    graph = model.graph
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    nodes: list[onnx.NodeProto] = []
    count = 0
    for node in graph.node:
        if node.op_type in _FUSED and len(node.output) > _SUM and {node.output[0], node.output[_SUM]} <= read:
            nodes += _apart(node, _dtype(model, node))
            count += 1
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return count


def _apart(node: onnx.NodeProto, dtype: type[np.generic]) -> list[onnx.NodeProto]:
    """The sum, and the norm of it."""
    at, name, total = _BIAS[node.op_type], node.name or node.output[0], node.output[_SUM]
    bias = node.input[at] if len(node.input) > at else ""
    first = f"{total}/unbiased" if bias else total
    made = [helper.make_node("Add", [node.input[0], node.input[1]], [first], name=f"{name}/sum")]
    if bias:
        made.append(helper.make_node("Add", [first, bias], [total], name=f"{name}/bias"))
    zero = numpy_helper.from_array(np.array([-0.0], dtype=dtype))
    shape, zeros = f"{name}/shape", f"{name}/zeros"
    made += [
        helper.make_node("Shape", [total], [shape], name=shape),
        helper.make_node("ConstantOfShape", [shape], [zeros], name=zeros, value=zero),
    ]
    norm = onnx.NodeProto()
    norm.CopyFrom(node)
    norm.input[0], norm.input[1] = total, zeros
    if bias:
        norm.input[at] = ""
    del norm.output[1:]
    return [*made, norm]


def _dtype(model: onnx.ModelProto, node: onnx.NodeProto) -> type[np.generic]:
    """The type of its elements: that of its scale, which is a weight."""
    for tensor in model.graph.initializer:
        if tensor.name == node.input[2]:
            found: type[np.generic] = helper.tensor_dtype_to_np_dtype(tensor.data_type).type
            return found
    return np.float32
