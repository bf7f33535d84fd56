"""Rules of a tiers file that name nodes: pins, prefixes and private tiers.

Along a graph's order each becomes a set of positions that a link may be cut at. With link t
between tier t and tier t + 1, and v the position of a node:

1. pinned to tier t: link t is cut after v, link t - 1 not after it;
2. `min_prefix` and `max_prefix` of tier t: bounds on the cut of link t;
3. private tiers: above the last of them only such values may be live as depend on the
   model's inputs through the node `private_until` alone. Whatever goes around that node,
   a residual branch or the input itself, holds the cut back.
"""

from __future__ import annotations

from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.errors import TopologyError
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.work.cuts import lifetimes


def allowed_cuts(graph: Graph, topology: Topology) -> NDArray[np.bool_] | None:
    """The positions that each link may be cut at.

    Returns:
        Shape (K - 1, n + 1), None if there are no such rules.

    Raises:
        TopologyError: A rule names nothing in the graph.
    """
    if not any(t.pin or t.private or t.min_prefix or t.max_prefix is not None for t in topology.tiers):
        return None
    size = len(graph.nodes)
    # One row more at either end: below tier 0 nothing runs, above the last tier all has.
    rows = np.ones((len(topology.tiers) + 1, size + 1), dtype=np.bool_)
    rows[0, 1:], rows[-1, :-1] = False, False
    for t, tier in enumerate(topology.tiers):
        for name in tier.pin:
            at = _position(graph, name, f"tier.{tier.name}.pin")
            rows[t, at + 1 :] = False
            rows[t + 1, : at + 1] = False
        rows[t + 1, : min(tier.min_prefix or 0, size)] = False
        if tier.max_prefix is not None:
            rows[t + 1, tier.max_prefix + 1 :] = False
    private = [t for t, tier in enumerate(topology.tiers) if tier.private]
    if private:
        rows[private[-1] + 1] &= _safe(graph, topology.limits.private_until)
    # A rule of the lowest or highest tier that cannot be kept at all closes every link.
    return rows[1:-1] & bool(rows[0, 0] and rows[-1, -1])


def _safe(graph: Graph, until: str | None) -> NDArray[np.bool_]:
    """Positions at which no live value depends on the inputs but through one node."""
    through = None if until is None else _position(graph, until, "limits.private_until")
    bare = set(graph.inputs)  # values, not nodes, so `graph.dag` does not know: one pass finds them
    for at, node in enumerate(graph.nodes):
        if at != through and not bare.isdisjoint(node.inputs):
            bare.update(node.outputs)
    steps = np.zeros(len(graph.nodes) + 2, dtype=np.int64)  # how many bare values are live
    for value, born, last in lifetimes(graph):
        if value in bare:
            steps[born] += 1
            steps[last + 1] -= 1
    safe: NDArray[np.bool_] = np.cumsum(steps)[:-1] == 0
    return safe


def _position(graph: Graph, name: str, key: str) -> int:
    """The position of the node of a name, or of the node that makes a value of that name."""
    at = graph.position_of_node.get(name, graph.producer.get(name))
    if at is not None:
        return at
    if name in graph.inputs:
        raise TopologyError(
            f"`{key}` = {name!r}: this is a model input, which is born on tier 0",
            hint="name a node, or a value that a node makes",
        )
    close = get_close_matches(name, [*graph.position_of_node, *graph.producer], n=3)
    hint = f"did you mean {' or '.join(f'`{c}`' for c in close)}?" if close else "`inspect` lists the nodes"
    raise TopologyError(f"`{key}` = {name!r}: the model has no node or value of this name", hint=hint)
