"""Shapes inside a branch of an If, and inside a Loop or a Scan.

Inference of the whole model goes into branches, and gives up where a shape is computed from
lengths (see `shape_values`). A branch by itself, what it captures given, is inferred further.

A carried value may change its shape from one iteration to the next, so inference says nothing about the
shapes of a body whose exporter did not declare them. But nearly always they stay: if the body, given the
shapes before the loop, provably returns the same shapes, then by induction every iteration has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod

import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from dnnsplit_onnx.graph.inference import infer
from dnnsplit_onnx.graph.shape_values import infer_with_values
from dnnsplit_onnx.work.flops.scope import SMALL, GraphContext
from dnnsplit_onnx.work.flops.types import Context, TensorType
from dnnsplit_onnx.work.flops.view import NodeView, axis_of

_SCALARS = (TensorType(TensorProto.INT64, ()), TensorType(TensorProto.BOOL, ()))  # iteration, condition


def branch(node: NodeView, body: onnx.GraphProto) -> tuple[onnx.GraphProto, Context]:
    """A branch of an If with the shapes that are proven of it, and its context."""
    inferred = _infer(body, [], node.context)
    if inferred is None:
        return body, GraphContext(body, outer=node.context)
    return inferred, GraphContext(inferred, outer=node.context)


def loop_body(node: NodeView, body: onnx.GraphProto) -> tuple[onnx.GraphProto, Context]:
    """The body of a Loop with the shapes that its iterations are proven to have, and its context.

    Args:
        node: The Loop.
        body: Its body.

    Returns:
        The body as it is if nothing can be proven.
    """
    carried = [node.context.type_of(name) if name else None for name in node.node.input[2:]]
    # Outputs are the condition, the carried values, then what is scanned.
    return _iterated(node, body, [*_SCALARS, *carried], 2, 1)


def scan_body(node: NodeView, body: onnx.GraphProto) -> tuple[onnx.GraphProto, Context]:
    """The same for a Scan, whose body gets its states and one element of each scanned input."""
    if node.opset < 9:
        return body, GraphContext(body, outer=node.context)
    kinds = [node.context.type_of(name) if name else None for name in node.node.input]
    states = len(kinds) - node.positive("num_scan_inputs")
    axes = node.ints_attribute("scan_input_axes") or (0,) * (len(kinds) - max(states, 0))
    elements = [_element(kind, axis) for kind, axis in zip(kinds[max(states, 0) :], axes, strict=False)]
    return _iterated(node, body, [*kinds[: max(states, 0)], *elements], 0, 0)


def _element(kind: TensorType | None, axis: int) -> TensorType | None:
    """One element of what is scanned."""
    if kind is None or not kind.shape:
        return None
    at = axis_of(kind.shape, axis)
    return TensorType(kind.dtype, (*kind.shape[:at], *kind.shape[at + 1 :]))


def _iterated(
    node: NodeView, body: onnx.GraphProto, given: list[TensorType | None], first: int, returned: int
) -> tuple[onnx.GraphProto, Context]:
    """A body with shapes that stay from iteration to iteration, as far as that is proven.

    Args:
        node: The node that holds it.
        body: The body.
        given: What it gets in the first iteration.
        first: The first of its inputs that is carried.
        returned: The first of its outputs that is carried.
    """
    context = GraphContext(body, outer=node.context)
    assumed = [kind for kind in given if kind is not None and kind.shape is not None]
    if len(assumed) != len(body.input):
        return body, context
    inferred = _infer(body, assumed, node.context)
    if inferred is None:
        return body, context
    result = GraphContext(inferred, outer=node.context)
    scanned = node.positive("num_scan_inputs") if node.node.op_type == "Scan" else 0
    carried = assumed[first : len(assumed) - scanned]
    outputs = inferred.output[returned : returned + len(carried)]
    if [result.type_of(value.name) for value in outputs] != carried:
        return body, context
    return inferred, result


def _infer(body: onnx.GraphProto, inputs: list[TensorType], outer: Context) -> onnx.GraphProto | None:
    """Shape inference of a body alone; what it captures becomes an input or, if constant, an initializer."""
    graph = onnx.GraphProto(
        name=body.name,
        node=body.node,
        output=body.output,
        value_info=body.value_info,
        sparse_initializer=body.sparse_initializer,
    )
    for value, assumed in zip(body.input, inputs, strict=True):
        graph.input.append(helper.make_tensor_value_info(value.name, assumed.dtype, assumed.shape))
    for tensor in body.initializer:  # a weight matters by its shape alone; a small tensor may be a shape
        if prod(tensor.dims) <= SMALL:
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    for name in _captures(body):
        constant, known = outer.constant(name), outer.type_of(name)
        if constant is not None:
            graph.initializer.append(numpy_helper.from_array(constant, name))
        elif known is not None:
            graph.input.append(helper.make_tensor_value_info(name, known.dtype, known.shape))
    domains = {node.domain for node in _all_nodes(body)} | {""}
    imports = [helper.make_opsetid(domain, max(1, outer.opset(domain))) for domain in sorted(domains)]
    model = helper.make_model(graph, opset_imports=imports)
    try:
        return infer_with_values(infer(model)).graph
    except (shape_inference.InferenceError, ValueError, RuntimeError):
        return None  # not provable, so not assumed


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for inner in _subgraphs(node):
            yield from _all_nodes(inner)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _captures(graph: onnx.GraphProto) -> list[str]:
    """Names that a graph, or a graph inside it, uses and does not define, in order of first use."""
    return list(dict.fromkeys(_free(graph, frozenset())))


def _free(graph: onnx.GraphProto, visible: frozenset[str]) -> Iterable[str]:
    defined = set(visible)
    defined.update(value.name for value in graph.input)
    defined.update(tensor.name for tensor in graph.initializer)
    defined.update(tensor.values.name for tensor in graph.sparse_initializer)
    for node in graph.node:
        yield from (name for name in node.input if name and name not in defined)
        for inner in _subgraphs(node):
            yield from _free(inner, frozenset(defined))
        defined.update(node.output)
    yield from (value.name for value in graph.output if value.name not in defined)
