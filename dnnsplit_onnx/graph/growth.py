"""Along which axis a state grows, where the graph itself says that nothing but growth happens.

A cache that a Concat makes of its former self and the new positions holds, in front, what it
held before. So the last positions can be cut off again, and what it was before a step need not
be kept beside what it is after. Rings, recurrent states and branches promise no such thing.
"""

from __future__ import annotations

import onnx

from dnnsplit_onnx.graph.states import State

_CONTRIB = "com.microsoft"
# Inputs that are caches, the outputs that hold them and the new positions, and the axis of these.
_ATTENTION: dict[tuple[str, str], tuple[dict[int, int], int]] = {
    ("", "Attention"): ({4: 1, 5: 2}, 2),
    (_CONTRIB, "Attention"): ({4: 1}, 3),
    (_CONTRIB, "GroupQueryAttention"): ({3: 1, 4: 2}, 2),
    (_CONTRIB, "MultiHeadAttention"): ({6: 1, 7: 2}, 2),
}


def growing_axis(graph: onnx.GraphProto, state: State) -> int | None:
    """The axis along which each step appends to a state.

    Args:
        graph: The model's graph.
        state: One of its states.

    Returns:
        The axis, counted from 0; None if the graph does not say that the state only grows.
    """
    if state.output is None:
        return None
    makers = {name: node for node in graph.node for name in node.output if name}
    name = state.output
    while (node := makers.get(name)) is not None and node.op_type == "Identity" and not node.domain:
        name = node.input[0]
    if node is None:
        return None
    if node.op_type == "Concat" and not node.domain:
        return _concatenated(graph, node, state.input)
    places, axis = _ATTENTION.get((node.domain, node.op_type), ({}, 0))
    at = list(node.output).index(name)
    is_own = any(
        made == at and read < len(node.input) and node.input[read] == state.input
        for read, made in places.items()
    )
    return axis if is_own else None


def _concatenated(graph: onnx.GraphProto, node: onnx.NodeProto, first: str) -> int | None:
    """The axis of a Concat whose first input is a state's."""
    if node.input[0] != first or first in node.input[1:]:
        return None
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    if axis >= 0:
        return axis
    rank = next((len(v.type.tensor_type.shape.dim) for v in graph.input if v.name == first), 0)
    return axis + rank if axis + rank >= 0 else None
