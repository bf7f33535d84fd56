"""Shapes of states, read of a state that is near.

Torch's dynamo export takes the length of the past from whichever cache comes to hand: the mask of
the first layer from the cache of the second. Then the first layer cannot run without the second
one's cache, and no cut between the two is left. But the file gives both caches the same dimensions, by the
same names, and a name stands for one number wherever it stands (`dimensions`). So a Shape that is
needed below the layer of its state reads that of the first state of the same dimensions instead.
"""

from __future__ import annotations

from dataclasses import replace

from dnnsplit_onnx.graph.dimensions import is_name
from dnnsplit_onnx.graph.graph import Graph, signatures
from dnnsplit_onnx.graph.state_order import followers_of, with_states_together


def with_near_shapes(graph: Graph) -> Graph:
    """A graph whose early Shapes read the first of states that are alike; itself if it has none."""
    alike = _alike(graph)
    if not alike:
        return graph
    ordered = with_states_together(graph)
    followers = followers_of(ordered)
    others = [at for at in range(len(ordered.nodes)) if at not in followers]
    first = {name: _first_other(ordered, name, followers) for name in alike}
    nodes, changed = list(ordered.nodes), {}
    for at, node in enumerate(nodes):
        name = node.inputs[0] if node.inputs else ""
        if node.op_type != "Shape" or node.domain or name not in alike or at not in followers:
            continue
        nearest = min(alike[name], key=lambda state: first[state])
        if nearest != name and any(at < other < first[name] for other in others):
            proto = type(node.proto)()
            proto.CopyFrom(node.proto)
            proto.input[0] = nearest
            changed[node.index] = replace(node, inputs=(nearest,), proto=proto)
    if not changed:
        return graph
    return replace(graph, nodes=tuple(changed.get(node.index, node) for node in graph.nodes))


def _alike(graph: Graph) -> dict[str, tuple[str, ...]]:
    """For each state's input, those that the file gives the same dimensions, all of them known by name."""
    if not graph.states:
        return {}
    said, _ = signatures(graph.proto.graph, graph.inputs)
    groups: dict[tuple[int | str | None, ...], list[str]] = {}
    for state in graph.states:
        known = said.get(state.input)
        dims = None if known is None or state.output is None else known[1]
        if dims is not None and all(isinstance(dim, int) or is_name(dim) for dim in dims):
            groups.setdefault(dims, []).append(state.input)
    return {name: tuple(group) for group in groups.values() for name in group if len(group) > 1}


def _first_other(graph: Graph, name: str, followers: set[int]) -> int:
    """The first node but those that look at states alone that reads or renews one."""
    made = next(state.output for state in graph.states if state.input == name)
    tied = {at for at in graph.state_readers[name] if at not in followers}
    tied |= {graph.producer[str(made)]} if made in graph.producer else set()
    return min(tied, default=-1)
