"""What tells one model, and one order of its nodes, from another: digests of both.

The digest of a model covers what its graph says: nodes, values and the shapes of weights.
What weights hold is no part of it, and neither is where they lie, so that a model keeps its
digest when it is moved, or trained further: its cuts are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import onnx

from dnnsplit_onnx.graph.graph import Graph, build_graph
from dnnsplit_onnx.graph.modelfile import node_tensors
from dnnsplit_onnx.graph.state_order import with_states_together
from dnnsplit_onnx.graph.state_shapes import with_near_shapes

_PLAIN = frozenset(
    {
        onnx.AttributeProto.FLOAT,
        onnx.AttributeProto.INT,
        onnx.AttributeProto.STRING,
        onnx.AttributeProto.FLOATS,
        onnx.AttributeProto.INTS,
        onnx.AttributeProto.STRINGS,
    }
)


def model_digest(graph: Graph) -> str:
    """SHA-256, in hexadecimal, of what a model computes but for the content of its weights."""
    digest = hashlib.sha256()
    for part in _parts(graph.proto):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def order_digest(graph: Graph, model: str | None = None) -> str:
    """SHA-256, in hexadecimal, of a model and the order of its nodes.

    Args:
        graph: The model, in that order.
        model: The model's digest, where it is known already.
    """
    places = ",".join(str(node.index) for node in graph.nodes)
    return hashlib.sha256(f"{model or model_digest(graph)}:{places}".encode()).hexdigest()


def with_order(graph: Graph, indices: Sequence[int]) -> Graph:
    """A graph with its nodes in an order given by their places in the file (`Node.index`).

    Raises:
        ValueError: These are not the places of its nodes, or a node would run before one
            that it depends on.
    """
    if list(indices) == [node.index for node in graph.nodes]:
        return graph
    at = {node.index: position for position, node in enumerate(graph.nodes)}
    try:
        return graph.reordered([at[index] for index in indices])
    except KeyError as missing:
        raise ValueError(f"no node has place {missing} in the file") from None


def in_file_order(graph: Graph) -> Graph:
    """A graph with its nodes in the order in which the file is read, whatever theirs is now.

    What looks at a state stands where the state is made (`state_order`), wherever the file has it, and
    what asks for the shape of one that is made later asks one that is alike (`state_shapes`).
    """
    graph = with_near_shapes(graph)
    indices = [node.index for node in graph.nodes]
    read = graph
    if indices != sorted(indices):
        read = with_order(graph, [node.index for node in build_graph(graph.file).nodes])
    return with_order(graph, [node.index for node in with_states_together(read).nodes])


def _parts(model: onnx.ModelProto) -> Iterator[bytes]:
    for opset in sorted(model.opset_import, key=lambda opset: opset.domain):
        yield f"{opset.domain} {opset.version}".encode()
    for value in (*model.graph.input, *model.graph.output):
        yield _serialized(value)
    for tensor in model.graph.initializer:
        yield f"{tensor.name} {tensor.data_type} {list(tensor.dims)}".encode()
    for node in model.graph.node:
        yield _node(node)
    for function in model.functions:
        yield f"{function.domain} {function.name} {function.overload}".encode()
        yield from (_node(node) for node in function.node)


def _node(node: onnx.NodeProto) -> bytes:
    attributes = node.attribute
    if not attributes or all(attribute.type in _PLAIN for attribute in attributes):
        return _serialized(node)
    bare, shapes = onnx.NodeProto(), []
    bare.CopyFrom(node)
    for tensor in node_tensors([bare]):
        shapes.append((tensor.name, tensor.data_type, list(tensor.dims)))
        tensor.Clear()
    return _serialized(bare) + repr(shapes).encode()


def _serialized(part: onnx.NodeProto | onnx.ValueInfoProto) -> bytes:
    text: bytes = part.SerializeToString(deterministic=True)
    return text
