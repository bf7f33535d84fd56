"""Local functions held to what ONNX allows, before anything follows a call.

Shape inference, inlining and onnxruntime all expand calls. A function that calls itself, or
thirty functions of which each calls the next twice, would keep them busy for ever in a few
hundred bytes; a chain of a thousand would exhaust the stack. All of it is found here by
arithmetic over the call graph, without recursion and without expanding anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import onnx

from dnnsplit_onnx.errors import ModelError

#: Levels of calls and subgraphs within each other, functions followed.
MOST_LEVELS = 100
#: Nodes that the calls of a model stand for, all expanded.
MOST_EXPANDED = 100_000

Key = tuple[str, str, str]


@dataclass(slots=True)
class _Function:
    """A function's own nodes, and the functions it calls: each call with its level in the body."""

    nodes: int = 0
    calls: list[tuple[Key, int]] = field(default_factory=list)
    levels: int = 0
    expanded: int = 0


def check_functions(model: onnx.ModelProto) -> None:
    """Holds a model's functions against the limits above.

    Raises:
        ModelError: A function is defined twice or calls itself, directly or not, or calls
            nest too deep or stand for too many nodes.
    """
    if not model.functions:
        return
    functions: dict[Key, _Function] = {}
    for function in model.functions:
        key = (function.domain, function.name, function.overload)
        if key in functions:
            raise ModelError(f"function `{function.name}` is defined twice")
        functions[key] = _Function()
    for function in model.functions:
        _survey(functions[function.domain, function.name, function.overload], function.node, functions)
    for key in _callees_first(functions):
        _measure(functions[key], functions, f"function `{key[1]}`")
    whole = _Function()
    _survey(whole, model.graph.node, functions)
    _measure(whole, functions, "the model")


def _survey(into: _Function, nodes: Iterable[onnx.NodeProto], functions: dict[Key, _Function]) -> None:
    """Counts the nodes of a body, those of subgraphs included, and lists its calls."""
    pending = [(node, 1) for node in nodes]
    while pending:
        node, level = pending.pop()
        into.nodes += 1
        into.levels = max(into.levels, level)
        key = (node.domain, node.op_type, node.overload)
        if key in functions:
            into.calls.append((key, level))
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                pending.extend((inner, level + 1) for inner in graph.node)


def _callees_first(functions: dict[Key, _Function]) -> Iterator[Key]:
    """Every function after those that it calls."""
    done: set[Key] = set()
    for start in functions:
        path: dict[Key, Iterator[tuple[Key, int]]] = {}
        if start not in done:
            path[start] = iter(functions[start].calls)
        while path:
            key, calls = next(reversed(path.items()))
            callee = next((callee for callee, _ in calls if callee not in done), None)
            if callee is None:
                del path[key]
                done.add(key)
                yield key
            elif callee in path:
                raise ModelError(
                    f"function `{callee[1]}` calls itself",
                    hint="ONNX has no recursion: export the model again",
                )
            else:
                path[callee] = iter(functions[callee].calls)


def _measure(body: _Function, functions: dict[Key, _Function], name: str) -> None:
    """Adds to a body what its calls stand for."""
    body.expanded = body.nodes
    for key, level in body.calls:
        body.levels = max(body.levels, level + functions[key].levels)
        # Kept from growing: doubled a thousand times, a count is a number of a thousand bits.
        body.expanded = min(body.expanded + functions[key].expanded, MOST_EXPANDED + 1)
    if body.levels > MOST_LEVELS:
        raise ModelError(f"calls and subgraphs of {name} nest more than {MOST_LEVELS} deep")
    if body.calls and body.expanded > MOST_EXPANDED:
        raise ModelError(
            f"the calls of {name} stand for more than {MOST_EXPANDED} nodes",
            hint="export the model without functions, if it is meant to be that large",
        )
