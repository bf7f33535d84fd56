"""Control flow: the work of the subgraphs that run, as often as they run.

Bookkeeping (carrying values, stacking scan outputs) moves data and costs nothing. If any node of a body
is uncounted, so is the node that holds it.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx

from dnnsplit_onnx.work.flops.body import branch, loop_body, scan_body
from dnnsplit_onnx.work.flops.registry import register
from dnnsplit_onnx.work.flops.scope import GraphContext, graph_work
from dnnsplit_onnx.work.flops.trips import proven_trips
from dnnsplit_onnx.work.flops.types import Context
from dnnsplit_onnx.work.flops.view import NodeView, UnknownWork, axis_of
from dnnsplit_onnx.work.flops.work import Work


def _stated_trips(node: NodeView) -> int | None:
    """Iterations that the user states for this node, which count before anything else."""
    return node.context.trips.get(node.node.name) if node.node.name else None


def _body_work(
    node: NodeView,
    body: onnx.GraphProto,
    inferred: Callable[[NodeView, onnx.GraphProto], tuple[onnx.GraphProto, Context]],
) -> Work:
    """The work of a body as it is or, where its shapes are not declared, as they are inferred."""
    try:
        return graph_work(body, GraphContext(body, outer=node.context))
    except UnknownWork:
        return graph_work(*inferred(node, body))


def _branch(node: NodeView, name: str) -> Work:
    return _body_work(node, node.graph_attribute(name), branch)


@register("If")
def conditional(node: NodeView) -> Work:
    """If: the branch taken if the condition is a known constant, else the one with more FLOPs."""
    condition = node.constant_int(0)
    if condition is not None:
        return _branch(node, "then_branch" if condition else "else_branch")
    branches = (_branch(node, "then_branch"), _branch(node, "else_branch"))
    return max(branches, key=lambda work: work.flops)


@register("Loop")
def loop(node: NodeView) -> Work:
    """Loop: the body times the trip count.

    The count is what the user states (`trips`), or what `proven_trips` proves.
    """
    body = node.graph_attribute("body")
    trips = _stated_trips(node)
    if trips is None:
        trips = proven_trips(node, body)
    if trips == 0:
        return Work()
    return _body_work(node, body, loop_body) * trips


@register("Scan")
def scan(node: NodeView) -> Work:
    """Scan: the body times the length of the scanned axis (or what the user states).

    In opset 8 the scan inputs have a batch axis before it, and the body runs for each batch element.
    """
    body = node.graph_attribute("body")
    trips = _stated_trips(node)
    if trips is None:
        trips = _scanned(node)
    return _body_work(node, body, scan_body) * trips


def _scanned(node: NodeView) -> int:
    count, total = node.positive("num_scan_inputs"), len(node.node.input)
    axes = node.ints_attribute("scan_input_axes") or (0,) * count
    lengths = set()
    for index, axis in zip(range(total - count, total), axes, strict=False):
        known = node.context.type_of(node.node.input[index]) if index >= 0 else None
        if known is None or known.shape is None:
            continue
        shape = known.shape
        if node.opset < 9:
            if len(shape) < 2:
                raise UnknownWork
            lengths.add(shape[0] * shape[1])
        else:
            lengths.add(shape[axis_of(shape, axis)])
    if len(lengths) != 1:  # unknown, or not a valid node
        raise UnknownWork
    return lengths.pop()


@register("SequenceMap")
def sequence_map(node: NodeView) -> Work:
    """SequenceMap: the body times the length of the sequence, which the user states (`trips`)."""
    trips = _stated_trips(node)
    if trips is None:
        raise UnknownWork
    return _branch(node, "body") * trips
