"""Rules of a tiers file that name nodes or inputs: pins, prefixes and private data.

They are part of the graph, not of an order of it. With link t between tier t and tier t + 1:

1. a node pinned to tier t is below link t, and above link t - 1;
2. private inputs of a tier, or all of them with `private`, may not leave it but through the
   node `private_until`: whatever reads them, or what was made of them around that node, is
   below the tier's link. A residual branch around it, or the input itself, so holds the cut
   back. Tiers below are private too, since the data comes from them;
3. `min_prefix` and `max_prefix` of tier t bound how many nodes are below link t.

The first two are hard edges of the minimum cut over the DAG (`planners.dag`); along an order,
all three become the positions that each link may be cut at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.errors import TopologyError, close_names
from dnnsplit_onnx.graph.cut_names import where_listed
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Topology


@dataclass(frozen=True)
class Rules:
    """What a topology's rules mean for a graph of n nodes on K tiers.

    Attributes:
        size: Number of nodes, n.
        below: For each link, the positions of the nodes that must be below it; closed, so
            that whatever these depend on is among them.
        above: For each link, those that must be above it; whatever depends on these, too.
        fewest: For each link, the least number of nodes below it.
        most: For each link, the largest.
        contradiction: Why nothing keeps the rules, if that is so, as a sentence.
    """

    size: int
    below: tuple[frozenset[int], ...]
    above: tuple[frozenset[int], ...]
    fewest: tuple[int, ...]
    most: tuple[int, ...]
    contradiction: str | None = None

    @property
    def counts(self) -> bool:
        """Whether numbers of nodes are bounded, which no minimum cut knows."""
        return any(self.fewest) or any(most < self.size for most in self.most)

    @property
    def held(self) -> frozenset[int]:
        """The nodes that some link has to have below it."""
        return frozenset().union(*self.below)

    def positions(self) -> NDArray[np.bool_]:
        """The positions that each link may be cut at along the order, shape (K - 1, n + 1)."""
        rows = np.ones((len(self.below), self.size + 1), dtype=np.bool_)
        for row, below, above, fewest, most in zip(
            rows, self.below, self.above, self.fewest, self.most, strict=True
        ):
            row[: max(fewest, 1 + max(below, default=-1))] = False
            row[min(most, min(above, default=self.size)) + 1 :] = False
        return rows & (self.contradiction is None)


def rules_of(graph: Graph, topology: Topology) -> Rules | None:
    """The rules of a topology for a graph, along the graph's order.

    Returns:
        The rules, None if there are none.

    Raises:
        TopologyError: A rule names nothing in the graph.
    """
    if not any(_has_rules(tier) for tier in topology.tiers):
        return None
    size, count = len(graph.nodes), len(topology.tiers)
    # A row more at the top: whatever is pinned anywhere is below that.
    below: list[set[int]] = [set() for _ in range(count)]
    above: list[set[int]] = [set() for _ in range(count)]
    pinned: dict[int, int] = {}
    contradiction = None
    for t, tier in enumerate(topology.tiers):
        for name in tier.pin:
            at = _position(graph, name, f"tier.{tier.name}.pin")
            if pinned.setdefault(at, t) != t:
                other = topology.tiers[pinned[at]].name
                contradiction = (
                    f"node `{graph.nodes[at].name}` is pinned to tier `{other}` and to tier `{tier.name}`"
                )
            below[t].add(at)
            if t:
                above[t - 1].add(at)
        below[t] |= _private(graph, tier, topology)
    fewest = [min(tier.min_prefix or 0, size) for tier in topology.tiers]
    most = [size if tier.max_prefix is None else min(tier.max_prefix, size) for tier in topology.tiers]
    _close(graph, below, above)
    contradiction = (
        contradiction or _crossed(graph, topology, below, above, pinned) or _miscounted(topology, most, size)
    )
    return Rules(
        size,
        tuple(frozenset(nodes) for nodes in below[:-1]),
        tuple(frozenset(nodes) for nodes in above[:-1]),
        tuple(fewest[:-1]),
        tuple(most[:-1]),
        contradiction,
    )


def _has_rules(tier: Tier) -> bool:
    prefixes = tier.min_prefix or tier.max_prefix is not None
    return bool(tier.pin or tier.private or tier.private_inputs or prefixes)


def _private(graph: Graph, tier: Tier, topology: Topology) -> set[int]:
    """The nodes that read private inputs of a tier, or what was made of them."""
    if not tier.private and not tier.private_inputs:
        return set()
    until = topology.limits.private_until
    through = None if until is None else _position(graph, until, "limits.private_until")
    kept = {state.input for state in graph.states if state.output is not None}
    for name in tier.private_inputs:
        if name not in graph.inputs:
            raise TopologyError(
                f"`tier.{tier.name}.private_inputs` = {name!r}: the model has no input of this name",
                hint=f"its inputs are {', '.join(graph.inputs)}",
            )
    # Values, not nodes, so `graph.dag` does not know. A state holds what earlier requests
    # left in it, so it is as private as what it is made of.
    bare = set(graph.inputs) - kept if tier.private else set(tier.private_inputs)
    while True:
        readers = set()
        for at, node in enumerate(graph.nodes):
            if not bare.isdisjoint(node.inputs):
                readers.add(at)
                if at != through:
                    bare.update(node.outputs)
        states = {state.input for state in graph.states if state.output in bare} - bare
        if not states:
            return readers
        bare |= states


def _close(graph: Graph, below: list[set[int]], above: list[set[int]]) -> None:
    """Adds what the nodes below depend on and what depends on those above; links nest."""
    for t in range(1, len(below)):
        below[t] |= below[t - 1]
    for t in range(len(above) - 2, -1, -1):
        above[t] |= above[t + 1]
    needs = [
        {graph.producer[value] for value in node.inputs if value in graph.producer} for node in graph.nodes
    ]
    for nodes in below:
        for at in range(max(nodes, default=-1), -1, -1):
            if at in nodes:
                nodes.update(needs[at])
    for nodes in above:
        for at in range(min(nodes, default=len(needs)), len(needs)):
            if not nodes.isdisjoint(needs[at]):
                nodes.add(at)


def _crossed(
    graph: Graph, topology: Topology, below: list[set[int]], above: list[set[int]], pinned: dict[int, int]
) -> str | None:
    """Names a node that must be on both sides of a link, and why, if there is one."""
    for t, (low, high) in enumerate(zip(below, above, strict=True)):
        both = low & high
        if not both:
            continue
        name, tier = graph.nodes[min(both)].name, topology.tiers[t].name
        lower = _pins(graph, topology, {at: to for at, to in pinned.items() if to <= t})
        upper = _pins(graph, topology, {at: to for at, to in pinned.items() if to > t})
        reasons = f"{lower or 'private data'} and {upper}"
        return (
            f"node `{name}` would have to run both on tier `{tier}` or below and on a tier above it, "
            f"because of {reasons}"
        )
    return None


def _pins(graph: Graph, topology: Topology, pinned: dict[int, int]) -> str:
    """A few pins, in words."""
    named = [f"`{graph.nodes[at].name}` pinned to `{topology.tiers[t].name}`" for at, t in pinned.items()]
    return ", ".join(named[:3])


def _miscounted(topology: Topology, most: list[int], size: int) -> str | None:
    """Names a prefix of the top tier that leaves nodes without one."""
    if most[-1] < size:
        name, left = topology.tiers[-1].name, size - most[-1]
        return f"`max_prefix` = {most[-1]} of the last tier, `{name}`, leaves {left} nodes nowhere to run"
    return None


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
    close = close_names(name, [*graph.position_of_node, *graph.producer], n=3)
    hint = f"did you mean {' or '.join(f'`{c}`' for c in close)}?" if close else where_listed(graph)
    raise TopologyError(f"`{key}` = {name!r}: the model has no node or value of this name", hint=hint)
