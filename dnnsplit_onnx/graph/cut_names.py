"""Cuts as people name them: `--at`.

    12                position 12: the cut of the first 12 nodes
    conv1             the position right after node `conv1`, or after the node that makes value
                      `conv1`; 0 for a model input
    layer:conv1       the position right after the last node of a framework's layer (`layers`)
    conv1+conv2       the least cut that holds both: each node and all it depends on
    node:12 value:12  a node or a value, where the name alone is a number, or stands for both

A number is always a position. A name alone is a position too, of the order that `inspect`
prints: what stands before it in that order lies below the cut, needed or not. Names joined
by `+` ask for a set instead. A set that is not a prefix of the order is made one: the
order is changed as little as possible, and positions count in the new order from then on.

Several cuts, one a link, must be nested: each holds the one before it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from dnnsplit_onnx.errors import CutError, close_names
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.layers import layer_position


def resolve_cut(graph: Graph, text: str) -> int:
    """The position that a number or a name stands for.

    Args:
        graph: The graph.
        text: A position, or the name of a node or value, with `node:` or `value:` before it
            where it would mean something else; or a layer, with `layer:` before it.

    Raises:
        CutError: The name is unknown or ambiguous, or there is no such position; the hint
            says what to write.
    """
    text = text.strip()
    if text.isascii() and text.removeprefix("-").isdigit():
        return _position(graph, int(text))
    kind, _, name = text.partition(":")
    if kind == "value" and not _is_named(graph, text):
        return _after(graph, _value(graph, name), name)
    if kind == "node" and not _is_named(graph, text):
        return _after(graph, _node(graph, name), name)
    if kind == "layer" and not _is_named(graph, text):
        return layer_position(graph, name)
    value, node = _value(graph, text), _node(graph, text)
    if value is not None and node is not None and value != node:
        raise CutError(
            f"`{text}` is a value at position {value} and a node at position {node}",
            hint=f"write `value:{text}` or `node:{text}`",
        )
    return _after(graph, node if value is None else value, text)


def resolve_cuts(graph: Graph, texts: Sequence[str]) -> tuple[Graph, tuple[int, ...]]:
    """The cuts that several texts stand for, one a link.

    Args:
        graph: The graph.
        texts: Each a position, a name, or names joined by `+`.

    Returns:
        The graph, reordered if a set of names asks for it, and the positions in its order.

    Raises:
        CutError: As for `resolve_cut`; or a cut does not hold the one before it.
    """
    below = [_set(graph, text) for text in texts]
    for first, second, name, after in zip(below, below[1:], texts, texts[1:], strict=False):
        if not first <= second:
            missing = graph.nodes[min(first - second)]
            raise CutError(
                f"cut `{after}` comes before cut `{name}`: it lacks node `{missing.name}`",
                hint="give the cuts in order, from tier 0 up",
            )
    level = {at: depth for depth, nodes in reversed(list(enumerate(below))) for at in nodes}
    order = sorted(range(len(graph.nodes)), key=lambda at: (level.get(at, len(below)), at))
    cuts = tuple(len(nodes) for nodes in below)
    if order == list(range(len(graph.nodes))):
        return graph, cuts
    return graph.reordered(order), cuts


def ancestors(graph: Graph, positions: Iterable[int]) -> set[int]:
    """These nodes and all that they depend on: the least cut that holds them."""
    import networkx as nx  # only for cuts that join names

    dag, wanted = graph.dag, [graph.nodes[at].index for at in positions]
    keys = {*wanted}.union(*(nx.ancestors(dag, key) for key in wanted))
    return {dag.nodes[key]["position"] for key in keys}


def _set(graph: Graph, text: str) -> set[int]:
    """The nodes below the cut that a text stands for."""
    if "+" not in text or _is_named(graph, text):
        return set(range(resolve_cut(graph, text)))
    names = [name.strip() for name in text.split("+") if name.strip()]
    if any(name.isdigit() for name in names):
        raise CutError(
            f"`{text}` joins positions, and a position holds all before it",
            hint="give one --at for each link, or join names",
        )
    ends = [resolve_cut(graph, name) for name in names]
    return ancestors(graph, (end - 1 for end in ends if end))


def _position(graph: Graph, position: int) -> int:
    if not 0 <= position <= len(graph.nodes):
        name = str(position)
        hint = f"positions are 0 to {len(graph.nodes)}"
        for kind, found in (("value", _value(graph, name)), ("node", _node(graph, name))):
            hint += f"; for the {kind} of that name write `{kind}:{name}`" if found is not None else ""
        raise CutError(f"no position {position} in `{graph.file.path.name}`", hint=hint)
    return position


def _is_named(graph: Graph, name: str) -> bool:
    return _value(graph, name) is not None or any(node.name == name for node in graph.nodes)


def _value(graph: Graph, name: str) -> int | None:
    """The position right after a value is there, None if there is no such value."""
    if name in graph.inputs:
        return 0
    at = graph.producer.get(name)
    return None if at is None else at + 1


def _node(graph: Graph, name: str) -> int | None:
    """The position right after a node, None if there is no such node."""
    at = graph.position_of_node.get(name)
    if at is not None:
        return at + 1
    twins = [at + 1 for at, node in enumerate(graph.nodes) if node.name == name]
    if twins:
        listed = ", ".join(map(str, twins[:8]))
        raise CutError(f"{len(twins)} nodes are named `{name}`", hint=f"write a position: {listed}")
    return None


def _after(graph: Graph, position: int | None, name: str) -> int:
    if position is not None:
        return position
    file = graph.file.path.name
    if name in graph.constants:
        raise CutError(
            f"`{name}` is a weight of `{file}`: weights are copied to each slice, never sent",
            hint="name a value that depends on the model's inputs",
        )
    names = dict.fromkeys((*(node.name for node in graph.nodes), *graph.values))
    close = close_names(name, names, n=3)
    listed = ", ".join(f"`{match}`" for match in close)
    raise CutError(
        f"no node or value `{name}` in `{file}`",
        hint=f"did you mean {listed}?" if close else where_listed(graph),
    )


def where_listed(graph: Graph) -> str:
    """A hint: the command that lists a graph's nodes by name."""
    command = shlex.join(["dnnsplit-onnx", "inspect", str(graph.file.path), "--format", "csv"])
    return f"`{command}` lists the nodes"
