"""Copies of cheap nodes, each to be run right before the first node that reads it.

`convert --copy-masks` copies what follows from shapes and whole numbers into each block, and marks
the copies in their `metadata_props`. In any other place their outputs cross cuts for nothing.
"""

from __future__ import annotations

import onnx

from dnnsplit_onnx.graph.graph import Graph, Node

# Other tools ignore keys that they do not know.
_KEY = "dnnsplit.copy"


def mark_copy(node: onnx.NodeProto) -> None:
    """Says on a node that it is a copy."""
    node.metadata_props.add(key=_KEY, value="true")


def has_copies(graph: Graph) -> bool:
    """Whether any node is a copy."""
    return any(map(_is_copy, graph.nodes))


def with_copies_late(graph: Graph) -> Graph:
    """A graph with each copy moved right before the first node that reads it; itself if it has none."""
    marked = [_is_copy(node) for node in graph.nodes]
    if not any(marked):
        return graph
    place: dict[int, int] = {}
    first: dict[str, int] = {}  # the place of the first reader of each value
    for at in reversed(range(len(graph.nodes))):
        node = graph.nodes[at]
        needed = [first[value] for value in node.outputs if value in first]
        place[at] = min(needed, default=at) if marked[at] else at
        for value in node.inputs:
            first[value] = min(place[at], first.get(value, place[at]))
    order = sorted(place, key=lambda at: (place[at], not marked[at], at))
    return graph if order == sorted(place) else graph.reordered(order)


def _is_copy(node: Node) -> bool:
    return any(entry.key == _KEY for entry in node.proto.metadata_props)
