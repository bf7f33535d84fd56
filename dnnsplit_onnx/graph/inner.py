"""Weights that lie inside nodes: in branches of If, bodies of Loop and Scan, functions, trees.

They are initializers and Constant nodes of the node's own bodies, of the functions that it
calls, and the long number lists of `ai.onnx.ml` operators. Each has a key, so that what two
nodes share, a function's constants, is counted once wherever both are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import onnx

from dnnsplit_onnx.graph.bodies import subgraphs
from dnnsplit_onnx.graph.shapes import BITS

_DEEPEST = 100
_TREES = "ai.onnx.ml"

_NONE: Mapping[str, int] = {}  # one for all nodes without

Functions = Mapping[tuple[str, str, str], onnx.FunctionProto]


def functions_of(model: onnx.ModelProto) -> Functions:
    """The local functions of a model, by what calls them."""
    return {(f.domain, f.name, f.overload): f for f in model.functions}


def inner_weights(node: onnx.NodeProto, index: int, functions: Functions) -> Mapping[str, int]:
    """Bytes of the weights inside a node, by keys that no value's name can be.

    Args:
        node: The node.
        index: Its place in the model's file.
        functions: What it may call.
    """
    if not node.attribute and not functions:
        return _NONE
    if not (functions or node.domain == _TREES or any(True for _ in subgraphs(node))):
        return _NONE
    return dict(_of_node(node, f"\0{index}", functions, 0, inside=False))


def _of_node(
    node: onnx.NodeProto, key: str, functions: Functions, depth: int, *, inside: bool
) -> Iterator[tuple[str, int]]:
    if depth > _DEEPEST:
        return
    called = (node.domain, node.op_type, node.overload)
    if called in functions:
        own = "\0" + "\0".join(called)
        for at, inner in enumerate(functions[called].node):
            yield from _of_node(inner, f"{own}\0{at}", functions, depth + 1, inside=True)
    for at, body in enumerate(subgraphs(node)):
        yield from _of_body(body, f"{key}\0{at}", functions, depth + 1)
    if node.domain == _TREES or (inside and node.op_type == "Constant"):
        for attribute in node.attribute:
            yield f"{key}\0{attribute.name}", _attribute_nbytes(attribute)


def _of_body(body: onnx.GraphProto, key: str, functions: Functions, depth: int) -> Iterator[tuple[str, int]]:
    for tensor in body.initializer:
        yield f"{key}\0{tensor.name}", _tensor_nbytes(tensor)
    for sparse in body.sparse_initializer:
        nbytes = _tensor_nbytes(sparse.values) + _tensor_nbytes(sparse.indices)
        yield f"{key}\0{sparse.values.name}", nbytes
    for at, node in enumerate(body.node):
        yield from _of_node(node, f"{key}\0{at}", functions, depth, inside=True)


def _attribute_nbytes(attribute: onnx.AttributeProto) -> int:
    texts = sum(len(text) for text in attribute.strings)
    return _tensor_nbytes(attribute.t) + 4 * len(attribute.floats) + 8 * len(attribute.ints) + texts


def _tensor_nbytes(tensor: onnx.TensorProto) -> int:
    if tensor.data_type == onnx.TensorProto.STRING:
        return sum(map(len, tensor.string_data))
    bits = BITS.get(tensor.data_type, 0)
    return (math.prod(tensor.dims) * bits + 7) // 8 if bits else 0
