"""Values that cost next to nothing to make again: masks, positions, and what follows from shapes."""

from __future__ import annotations

import onnx

from dnnsplit_onnx.graph.graph import Node
from dnnsplit_onnx.work.analysis import Analysis

# A table of more elements than these is a weight, and no constant of a formula.
_MOST_ELEMENTS = 4096
_SIZES = frozenset(("Shape", "Size"))
_WHOLE = frozenset((onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.BOOL))


def cheap_values(analysis: Analysis) -> dict[str, int]:
    """Values that follow from whole numbers and shapes alone, with the index of the node that makes each.

    A mask that stays for a sequence is one of these numbers: every tier that reads it has its own copy.
    """
    graph, types = analysis.graph, analysis.types
    kept = {state.output for state in graph.states}
    staying = {state.input for state in graph.states if state.output is None}
    known = {name for name in (*graph.fresh_inputs, *staying) if types[name].dtype in _WHOLE}
    lengths: set[str] = set()  # those of shapes alone
    found: dict[str, int] = {}
    for node in graph.nodes:
        if kept.isdisjoint(node.outputs) and _is_cheap(node, analysis, known, lengths):
            found.update(dict.fromkeys(node.outputs, node.index))
            known.update(node.outputs)
            if node.op_type in _SIZES or (node.inputs and lengths.issuperset(node.inputs)):
                lengths.update(node.outputs)
    return found


def _is_cheap(node: Node, analysis: Analysis, known: set[str], lengths: set[str]) -> bool:
    if node.random or node.domain or any(attribute.HasField("g") for attribute in node.proto.attribute):
        return False
    if node.op_type in _SIZES:
        return True
    sizes = [analysis.types[name].elements for name in node.weights]
    if any(size is None or size > _MOST_ELEMENTS for size in sizes):
        return False
    # What stands for tokens, looked up in a table, is where a model begins, however small it is. What
    # stands for distances, as T5's biases do, is as cheap as they are.
    is_lookup = node.op_type == "Gather" and node.proto.input[0] in node.weights
    is_lookup = is_lookup and not lengths.issuperset(node.inputs)
    return known.issuperset(node.inputs) and not (
        is_lookup and analysis.types[node.outputs[0]].dtype not in _WHOLE
    )
