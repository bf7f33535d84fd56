"""The order of a graph's nodes: that of the file, or one that has the envelope's cuts.

Positions count nodes in an order, so which cuts can be named at all depends on it. The
order named `envelope` makes every cut of the parametric envelope a prefix; in between, it
takes the file's order or a greedy one, whichever keeps fewer bytes live. It is a function
of the model alone.
"""

from __future__ import annotations

from dataclasses import replace
from heapq import heapify, heappop, heappush

from dnnsplit_onnx.errors import InputError, check_name
from dnnsplit_onnx.graph.copies import with_copies_late
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.identity import in_file_order
from dnnsplit_onnx.graph.shapes import bind_shapes, free_dimensions
from dnnsplit_onnx.graph.state_order import with_states_together
from dnnsplit_onnx.graph.state_shapes import with_near_shapes
from dnnsplit_onnx.work.analysis import CUSTOM, ORDERS, Analysis, measure
from dnnsplit_onnx.work.envelope import envelope, readers_of_values
from dnnsplit_onnx.work.passes import Passes

#: Stands for a height, a width or a length where the model leaves it open.
_USUAL = 256


def in_order(analysis: Analysis, name: str) -> Analysis:
    """An analysis with its graph in the order of a name.

    Args:
        analysis: The analysis, in whatever order.
        name: `file` is the order of the file; `envelope` makes all cuts of the envelope
            prefixes, and in between keeps live bytes low.

    Raises:
        InputError: The name is neither.
    """
    if name == CUSTOM:
        raise InputError(
            "an order made for one plan cannot be made again from its name",
            hint="plan with cuts that are positions of the order `envelope` or `file`",
        )
    check_name("node order", name, ORDERS)
    if name == analysis.order:
        return analysis
    analysis = _in_order_of(analysis, in_file_order(analysis.graph), "file")
    if name == "file":
        return analysis
    order = _envelope_order(canonical(analysis))
    ordered = with_near_shapes(analysis.graph.reordered(order))
    return _in_order_of(analysis, with_copies_late(with_states_together(ordered)), name)


def in_order_of(analysis: Analysis, graph: Graph) -> Analysis:
    """An analysis in the order of a graph that was reordered to hold cuts a user named."""
    return analysis if graph is analysis.graph else _in_order_of(analysis, graph, CUSTOM)


def _in_order_of(analysis: Analysis, graph: Graph, name: str) -> Analysis:
    """An analysis with its nodes in the order of a graph of the same nodes."""
    if graph is analysis.graph and not isinstance(analysis, Passes):
        return replace(analysis, order=name)
    work = {node.index: part for node, part in zip(analysis.graph.nodes, analysis.work, strict=True)}
    ordered = tuple(work[node.index] for node in graph.nodes)
    there = replace(analysis, graph=graph, work=ordered, order=name)
    if isinstance(there, Passes):
        return replace(
            there, parts=tuple((_in_order_of(part, graph, name), count) for part, count in there.parts)
        )
    return there


def canonical(analysis: Analysis) -> Analysis:
    """The analysis at one fixed binding of the model's symbolic dimensions.

    Positions must mean the same cut whatever a user binds, so the order may not depend on
    it. It is computed with 1 for every open first dimension, which is a batch more often than
    not, and `_USUAL` for the others; what cannot be sized so stays unknown.
    """
    graph = analysis.graph
    firsts = set(free_dimensions(graph, {}, axis=0))
    names = free_dimensions(graph, {})
    if not names:
        return analysis
    return measure(graph, bind_shapes(graph, {name: 1 if name in firsts else _USUAL for name in names}))


def _envelope_order(analysis: Analysis) -> list[int]:
    """The present positions of the nodes, in the order named `envelope`."""
    analysis = replace(analysis, input_nbytes={})  # a topology's, and no part of the model
    order: list[int] = []
    done: frozenset[int] = frozenset()
    readers = readers_of_values(analysis.graph)
    left = {value: len(users) for value, users in readers.items()}
    for cut in envelope(analysis):
        order += _layer(analysis, sorted(cut - done), readers, left)
        done = cut
    return order


def _layer(
    analysis: Analysis, nodes: list[int], readers: dict[str, list[int]], left: dict[str, int]
) -> list[int]:
    """The nodes between two cuts, in the file's order or a greedy one, whichever holds less.

    Args:
        analysis: The whole.
        nodes: The nodes between the cuts, in the file's order.
        readers: For each value of the whole, the positions of its readers.
        left: For each value, how many readers have not run yet; those between the cuts are
            taken off. All layers share it, so that each costs what it holds and no more.
    """
    order = nodes
    if len(nodes) >= 3:
        greedy = _Greedy(analysis, nodes, readers, left).order()
        trials = [(_held(_Greedy(analysis, trial, readers, left), trial), trial) for trial in (nodes, greedy)]
        order = min(trials, key=lambda trial: trial[0])[1]
    for at in nodes:
        for value in analysis.graph.nodes[at].inputs:
            left[value] -= 1
    return order


def _held(greedy: _Greedy, nodes: list[int]) -> int:
    """The sum of live bytes after each of the nodes but for what is live at the start."""
    total = live = 0
    for at in nodes:
        live += greedy.run(at)
        total += live
    return total


class _Greedy:
    """Runs nodes one by one, next the one after which fewest bytes are live."""

    def __init__(
        self, analysis: Analysis, nodes: list[int], readers: dict[str, list[int]], left: dict[str, int]
    ) -> None:
        self.graph, self._size = analysis.graph, analysis.types.nbytes
        self.nodes = set(nodes)
        self.readers = readers
        self.left = {value: left[value] for at in nodes for value in self.graph.nodes[at].inputs}

    def change(self, at: int) -> int:
        """Bytes that become live by running a node, less those that cease to be."""
        node, left = self.graph.nodes[at], self.left
        change = 0
        for value in node.outputs:
            if value in self.readers:
                change += self._size(value) or 0
        for value in node.inputs:
            if left[value] == 1:
                change -= self._size(value) or 0
        return change

    def run(self, at: int) -> int:
        """Runs a node; returns `change`."""
        change = self.change(at)
        for value in self.graph.nodes[at].inputs:
            self.left[value] -= 1
        return change

    def order(self) -> list[int]:
        waits = {at: self._inner_inputs(at) for at in self.nodes}
        ready = [(self.change(at), at) for at, count in waits.items() if not count]
        heapify(ready)
        order: list[int] = []
        done: set[int] = set()
        while ready:
            change, at = heappop(ready)
            if at in done or change != self.change(at):
                continue  # an entry from before another reader of its input ran
            done.add(at)
            self.run(at)
            order.append(at)
            node = self.graph.nodes[at]
            for value in node.outputs:
                for reader in self.readers.get(value, ()):
                    if reader in waits:
                        waits[reader] -= 1
                        if not waits[reader]:
                            heappush(ready, (self.change(reader), reader))
            for value in node.inputs:
                if self.left[value] == 1:  # its last reader now frees it
                    for reader in self.readers[value]:
                        if reader in waits and not waits[reader] and reader not in done:
                            heappush(ready, (self.change(reader), reader))
        return order

    def _inner_inputs(self, at: int) -> int:
        producer = self.graph.producer
        return sum([producer.get(value, -1) in self.nodes for value in self.graph.nodes[at].inputs])
