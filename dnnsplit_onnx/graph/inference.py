"""onnx's shape inference, kept from writing out long ranges of numbers.

Data propagation follows small values from operator to operator: lengths, mostly. It follows a
Range too, number by number, however many there are. Two dimensions that a file claims, or a
constant, are enough to have it fill the memory with 2^41 of them. So a Range is put out of its
sight: it is told the type of what it makes, one dimension of unknown length. Where the length can
be computed, `shape_values` does.

It follows casts of long vectors too: where a vector passes through a Cast, propagation writes down
one dimension for each of its elements, known or not, and two nodes over an input of 2^33 numbers
are enough to take all memory. Propagation is what sizes most exported models, so it is given up
only where a long vector is cast, or where one may be: a vector of unknown length is cast in a
model that holds a long dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
from onnx import TypeProto, helper

from dnnsplit_onnx.graph.pools import infer_with_pools

_ONNX = ("", "ai.onnx")
# A domain that nobody knows operators of.
_HIDDEN = "dnnsplit_onnx.hidden"
_DEEPEST = 100
# Vectors of shapes have a handful of elements.
_LONG = 1 << 16

Elements = dict[str, int]


def infer(model: onnx.ModelProto | bytes) -> onnx.ModelProto:
    """Infers types and shapes, with data propagation.

    Args:
        model: A model, or the bytes of one; it is not changed.

    Returns:
        The same nodes, with more `value_info`.

    Raises:
        Exception: onnx cannot follow the model, in one of many ways.
    """
    data = model if isinstance(model, bytes) else model.SerializeToString()
    if b"ceil_mode" not in data:
        return _infer(data)
    return infer_with_pools(
        onnx.ModelProto.FromString(data),
        lambda told: _infer(told.SerializeToString()),
        lambda told: (graph for graph in _graphs(told) if isinstance(graph, onnx.GraphProto)),
        _shapes,
    )


def _infer(data: bytes) -> onnx.ModelProto:
    from onnx import shape_inference

    if b"Range" not in data and b"Cast" not in data:
        return shape_inference.infer_shapes(data, data_prop=True)  # no node need be looked at for that
    whole = onnx.ModelProto.FromString(data)
    if not any(_ranges(graph) for graph in _graphs(whole)):
        return shape_inference.infer_shapes(whole, data_prop=not casts_a_long_vector(whole))
    hidden = onnx.ModelProto()
    hidden.CopyFrom(whole)
    _swap(hidden, _ONNX, _HIDDEN)
    hidden.opset_import.add(domain=_HIDDEN, version=1)
    for function in hidden.functions:
        function.opset_import.add(domain=_HIDDEN, version=1)
    inferred = shape_inference.infer_shapes(hidden, data_prop=not casts_a_long_vector(hidden))
    if _tell(inferred.graph, {}):
        propagate = not casts_a_long_vector(inferred)
        inferred = shape_inference.infer_shapes(inferred, data_prop=propagate)
    _swap(inferred, (_HIDDEN,), None)
    for holder in (inferred, *inferred.functions):
        kept = [opset for opset in holder.opset_import if opset.domain != _HIDDEN]
        del holder.opset_import[:]
        holder.opset_import.extend(kept)
    return inferred


def casts_a_long_vector(model: onnx.ModelProto) -> bool:
    """Whether data propagation over a model may write down a long vector, element by element.

    Raises:
        Exception: onnx refuses to infer the model's shapes, in one of many ways.
    """
    in_functions = any(_is_cast(node) for function in model.functions for node in function.node)
    if not in_functions and not any(_is_cast(node) for graph in _graphs(model) for node in graph.node):
        return False
    from onnx import shape_inference

    plain = shape_inference.infer_shapes(model)  # without propagation it is safe
    is_open, longest = in_functions, 0
    for graph in _graphs(plain):
        if isinstance(graph, onnx.FunctionProto):
            continue
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


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """The graph and the functions, and all graphs in them."""
    pending: list[tuple[onnx.GraphProto | onnx.FunctionProto, int]] = [(model.graph, 0)]
    pending += [(function, 0) for function in model.functions]
    while pending:
        graph, depth = pending.pop()
        yield graph
        if depth < _DEEPEST:
            pending += [(body, depth + 1) for node in graph.node for body in _bodies(node)]


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def _ranges(graph: onnx.GraphProto | onnx.FunctionProto) -> list[onnx.NodeProto]:
    return [node for node in graph.node if node.op_type == "Range" and node.domain in (*_ONNX, _HIDDEN)]


def _swap(model: onnx.ModelProto, domains: tuple[str, ...], domain: str | None) -> None:
    """Puts every Range of some domains into another; None is ONNX's own."""
    for graph in _graphs(model):
        for node in _ranges(graph):
            if node.domain in domains:
                if domain is None:
                    node.ClearField("domain")
                else:
                    node.domain = domain


def _tell(graph: onnx.GraphProto, outer: Mapping[str, int], depth: int = 0) -> bool:
    """States the type of what each Range makes, that of its bounds; whether there was any to state."""
    elements = {**outer, **_elements(graph)}
    told = False
    for node in graph.node:
        if depth < _DEEPEST:
            for body in _bodies(node):
                told |= _tell(body, elements, depth + 1)
        if node.op_type != "Range" or node.domain != _HIDDEN or not (node.input and node.output):
            continue
        element = next((elements[name] for name in node.input if elements.get(name)), 0)
        if element and node.output[0] not in elements:
            graph.value_info.append(helper.make_tensor_value_info(node.output[0], element, [None]))
            elements[node.output[0]] = element
            told = True
    return told


def _elements(graph: onnx.GraphProto) -> Elements:
    """Element types of the tensors of a graph, where they are known."""
    found: Elements = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                found.update((name, attribute.t.data_type) for name in node.output)
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind: TypeProto = value.type
        if kind.HasField("tensor_type") and kind.tensor_type.elem_type:
            found[value.name] = kind.tensor_type.elem_type
    return found
