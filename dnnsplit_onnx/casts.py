"""Casts of long vectors, on which onnx's data propagation takes all memory there is.

Where a vector passes through a Cast, propagation writes down one dimension for each of its
elements, known or not: two nodes over an input of 2^33 numbers are enough. Propagation is what
sizes most exported models, so it is given up only where a long vector is cast, or where one
may be: a vector of unknown length is cast in a model that holds a long dimension.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

# Vectors of shapes have a handful of elements.
_LONG = 1 << 16


def casts_a_long_vector(model: onnx.ModelProto) -> bool:
    """Whether data propagation over a model may write down a long vector, element by element.

    Raises:
        Exception: onnx refuses to infer the model's shapes, in one of many ways.
    """
    in_functions = any(_is_cast(node) for function in model.functions for node in function.node)
    if not in_functions and not any(_is_cast(node) for graph in _graphs(model.graph) for node in graph.node):
        return False
    from onnx import shape_inference

    plain = shape_inference.infer_shapes(model)  # without propagation it is safe
    is_open, longest = in_functions, 0
    for graph in _graphs(plain.graph):
        shapes = _shapes(graph)
        longest = max(longest, *(size or 0 for shape in shapes.values() for size in shape), 0)
        for node in filter(_is_cast, graph.node):
            shape = shapes.get(node.input[0], [None]) if node.input else []
            is_open |= shape == [None]
            if len(shape) == 1 and (shape[0] or 0) > _LONG:
                return True
        if is_open and longest > _LONG:
            return True
    return False


def _is_cast(node: onnx.NodeProto) -> bool:
    return bool(node.op_type == "Cast")


def _shapes(graph: onnx.GraphProto) -> dict[str, list[int | None]]:
    """Sizes of the values of a graph; a value of unknown rank counts as a vector of unknown length."""
    found: dict[str, list[int | None]] = {tensor.name: [*tensor.dims] for tensor in graph.initializer}
    for value in (*graph.output, *graph.value_info, *graph.input):
        tensor = value.type.tensor_type
        known = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
        found[value.name] = known if tensor.HasField("shape") else [None]
    return found


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and its subgraphs."""
    yield graph
    yield from _bodies(graph.node)


def _bodies(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _graphs(inner)
