"""Sizes of pools with `ceil_mode`, as they are computed.

Before opset 22 onnx's inference counts a last window that begins in the padding behind the input, or
behind that: runtimes leave it out, since it would have nothing to look at. Where its size is such, a pool
is put to inference as one without `ceil_mode`, padded so that the right number of windows fits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import onnx
from onnx import helper

_POOLS = frozenset({"MaxPool", "AveragePool", "LpPool"})

Shapes = Mapping[str, list[int | None]]
Infer = Callable[[onnx.ModelProto], onnx.ModelProto]
GraphsOf = Callable[[onnx.ModelProto], Iterator[onnx.GraphProto]]


def infer_with_pools(
    model: onnx.ModelProto, infer: Infer, graphs: GraphsOf, shapes: Callable[[onnx.GraphProto], Shapes]
) -> onnx.ModelProto:
    """Infers types and shapes, those of pools with `ceil_mode` corrected.

    Args:
        model: A model; it is not changed.
        infer: What infers.
        graphs: All graphs of a model, outer ones first.
        shapes: The sizes of a graph's values, None where unknown.

    Returns:
        The same nodes, with more `value_info`.

    Raises:
        Exception: onnx cannot follow the model, in one of many ways.
    """
    inferred = infer(model)
    told = onnx.ModelProto()
    told.CopyFrom(model)
    pools: dict[str, onnx.NodeProto] = {}
    # What one makes is what the next one reads, so they are put right one by one.
    while (found := next(_wrong(inferred, graphs, shapes), None)) is not None:
        node, pads = found
        pools[node.output[0]] = node
        for other in _nodes(told, graphs, {node.output[0]}):
            kept = [a for a in node.attribute if a.name not in ("ceil_mode", "auto_pad", "pads")]
            del other.attribute[:]
            other.attribute.extend([*kept, helper.make_attribute("pads", pads)])
        inferred = infer(told)
    for node in _nodes(inferred, graphs, pools.keys()):
        node.CopyFrom(pools[node.output[0]])
    return inferred


def _nodes(model: onnx.ModelProto, graphs: GraphsOf, outputs: Collection[str]) -> Iterator[onnx.NodeProto]:
    return (n for graph in graphs(model) for n in graph.node if n.output and n.output[0] in outputs)


def _wrong(
    model: onnx.ModelProto, graphs: GraphsOf, shapes: Callable[[onnx.GraphProto], Shapes]
) -> Iterator[tuple[onnx.NodeProto, list[int]]]:
    """Pools of other sizes than they make, in order, with padding that has inference say the right ones."""
    known: dict[str, list[int | None]] = {}
    for graph in graphs(model):
        known |= shapes(graph)
        for node in graph.node:
            if node.op_type in _POOLS and node.domain in ("", "ai.onnx") and node.output:
                pads = _pads(node, known.get(node.input[0], []), known.get(node.output[0], []))
                if pads is not None:
                    yield node, pads


def _pads(node: onnx.NodeProto, read: list[int | None], made: list[int | None]) -> list[int] | None:
    """The padding with which as many windows fit as are computed; None where inference is right."""
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    kernel = given.get("kernel_shape", [])
    rank = len(kernel)
    if not given.get("ceil_mode") or given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return None
    if rank == 0 or not rank + 2 == len(read) == len(made):
        return None
    pads = list(given.get("pads", [0] * 2 * rank))
    steps, apart = given.get("strides", [1] * rank), given.get("dilations", [1] * rank)
    is_right = True
    for axis, (size, said) in enumerate(zip(read[2:], made[2:], strict=True)):
        if size is None or said is None:
            continue
        before, span = pads[axis], apart[axis] * (kernel[axis] - 1) + 1
        windows = -(-(size + before + pads[rank + axis] - span) // steps[axis]) + 1
        windows -= (windows - 1) * steps[axis] >= size + before
        is_right &= windows == said or windows < 1
        pads[rank + axis] = max(pads[rank + axis], (windows - 1) * steps[axis] + span - size - before)
    return None if is_right else pads
