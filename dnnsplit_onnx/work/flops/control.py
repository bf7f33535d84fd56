"""Control flow: the work of the subgraphs that run, as often as they run.

Bookkeeping (carrying values, stacking scan outputs) moves data and costs nothing. If any node of a body
is uncounted, so is the node that holds it.
"""

from __future__ import annotations

import numpy as np
import onnx

from dnnsplit_onnx.work.flops.body import branch, loop_body
from dnnsplit_onnx.work.flops.registry import register
from dnnsplit_onnx.work.flops.scope import GraphContext, graph_work
from dnnsplit_onnx.work.flops.types import Context
from dnnsplit_onnx.work.flops.view import NodeView, UnknownWork, axis_of
from dnnsplit_onnx.work.flops.work import Work

# How exporters of `while` loops write "no maximum".
_UNBOUNDED = 2**63 - 1


def _stated_trips(node: NodeView) -> int | None:
    """Iterations that the user states for this node, which count before anything else."""
    return node.context.trips.get(node.node.name) if node.node.name else None


def _branch(node: NodeView, name: str) -> Work:
    body = node.graph_attribute(name)
    try:
        return graph_work(body, GraphContext(body, outer=node.context))
    except UnknownWork:
        return graph_work(*branch(node, body))


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

    The count is what the user states (`trips`), or provable: a constant maximum, and a condition that is
    never false; or a maximum of zero, or a first condition that is false.
    """
    body = node.graph_attribute("body")
    trips = _stated_trips(node)
    if trips is None:
        trips = _proven_trips(node, body)
    if trips == 0:
        return Work()
    body, context = loop_body(node, body)
    return graph_work(body, context) * trips


def _proven_trips(node: NodeView, body: onnx.GraphProto) -> int:
    first = node.constant_int(1) if node.has_input(1) else 1
    maximum = node.constant_int(0)
    if first == 0 or (maximum is not None and maximum <= 0):
        return 0
    if first is None or maximum is None or maximum == _UNBOUNDED:
        raise UnknownWork
    if not _always_continues(body, node.context):
        raise UnknownWork
    return maximum


def _always_continues(body: onnx.GraphProto, outer: Context) -> bool:
    """Whether a loop body's condition is a true constant, or the condition it was given, passed on."""
    if len(body.input) < 2 or not body.output:
        return False
    producers = {name: node for node in body.node for name in node.output}
    name = body.output[0].name
    while name in producers and producers[name].op_type in ("Identity", "Cast"):
        name = producers.pop(name).input[0]  # pop: a cycle in a broken graph ends too
    if name == body.input[1].name:
        return True
    value = GraphContext(body, outer=outer).constant(name)
    return value is not None and bool(np.all(value))


@register("Scan")
def scan(node: NodeView) -> Work:
    """Scan: the body times the length of the scanned axis (or what the user states).

    In opset 8 the scan inputs have a batch axis before it, and the body runs for each batch element.
    """
    body = node.graph_attribute("body")
    trips = _stated_trips(node)
    if trips is None:
        trips = _scanned(node)
    return graph_work(body, GraphContext(body, outer=node.context)) * trips


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
