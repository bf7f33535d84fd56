"""The order of a graph's nodes: that of the file, or one that has the envelope's cuts.

Positions count nodes in an order, so which cuts can be named at all depends on it. The
order named `envelope` makes every cut of the parametric envelope a prefix; in between, it
takes the file's order or a greedy one, whichever keeps fewer bytes live. It is a function
of the model alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from heapq import heapify, heappop, heappush
from itertools import accumulate

from dnnsplit_onnx.errors import InputError, check_name
from dnnsplit_onnx.graph.copies import with_copies_late
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.identity import in_file_order
from dnnsplit_onnx.graph.shapes import bind_shapes, free_dimensions
from dnnsplit_onnx.graph.state_order import with_states_together
from dnnsplit_onnx.graph.state_shapes import with_near_shapes
from dnnsplit_onnx.work.analysis import CUSTOM, ORDERS, Analysis, measure
from dnnsplit_onnx.work.envelope import corners_of
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
    # Bytes of inputs are a topology's, and no part of the model. A graph keeps what it is asked for,
    # and nobody asks for anything in this order again.
    analysis = replace(analysis, input_nbytes={}, graph=replace(analysis.graph))
    blocks, cuts = corners_of(analysis)
    layers = _Layers(analysis)
    order: list[int] = []
    done: frozenset[int] = frozenset()
    for cut in cuts:
        order += layers.order(blocks.members(cut - done))
        done = cut
    return order


class _Layers:
    """Orders the nodes between one cut and the next, layer by layer.

    Values are numbers here, since each is looked at several times.
    """

    def __init__(self, analysis: Analysis) -> None:
        graph = analysis.graph
        number = {value: at for at, value in enumerate(graph.values)}
        self.inputs = [tuple([number[value] for value in node.inputs]) for node in graph.nodes]
        self.maker = [graph.producer.get(value, -1) for value in number]
        self.sizes = [analysis.types.nbytes(value) or 0 for value in number]
        self.readers: list[list[int]] = [[] for _ in number]
        for at, values in enumerate(self.inputs):
            for value in values:
                self.readers[value].append(at)
        self.left = list(map(len, self.readers))  # how many readers of each have not run yet
        self.made = [0] * len(self.inputs)  # bytes that each makes and somebody reads
        for value, (maker, users) in enumerate(zip(self.maker, self.readers, strict=True)):
            if maker >= 0 and users:
                self.made[maker] += self.sizes[value]
        made = accumulate((len(node.outputs) for node in graph.nodes), initial=len(graph.inputs))
        self.first = list(made)  # the number of the first value that each makes; they are in a row

    def order(self, nodes: list[int]) -> list[int]:
        """The nodes of the next layer, in the file's order or a greedy one, whichever holds less.

        Args:
            nodes: Those between the cuts, in the file's order; all below them had their turn.
        """
        if len(nodes) < 3:
            self._held(nodes)
            return nodes
        greedy, held = self._greedy(nodes)
        if greedy == nodes:
            return nodes
        for at in nodes:
            for value in self.inputs[at]:
                self.left[value] += 1
        return nodes if self._held(nodes) <= held else greedy

    def _change(self, at: int) -> int:
        """Bytes that become live by running a node, less those that cease to be."""
        left = self.left
        return self.made[at] - sum([self.sizes[value] for value in self.inputs[at] if left[value] == 1])

    def _held(self, nodes: list[int]) -> int:
        """Runs nodes: the sum of live bytes after each of them but for what is live at the start."""
        total = live = 0
        for at in nodes:
            live += self._change(at)
            total += live
            for value in self.inputs[at]:
                self.left[value] -= 1
        return total

    def _greedy(self, nodes: list[int]) -> tuple[list[int], int]:
        """Runs nodes one by one, next the one after which fewest bytes are live; and `_held` of that."""
        waits = dict.fromkeys(nodes, 0)  # for how many values of the layer each waits
        for at in nodes:
            waits[at] = sum([self.maker[value] in waits for value in self.inputs[at]])
        ready = [(self._change(at), at) for at, count in waits.items() if not count]
        heapify(ready)
        order: list[int] = []
        total = live = 0
        while ready:
            change, at = heappop(ready)
            if waits[at] or change != self._change(at):
                continue  # an entry from before another reader of its input ran
            waits[at] = -1  # it had its turn
            live += change
            total += live
            order.append(at)
            for value in self.inputs[at]:
                self.left[value] -= 1
            for reader in self._nearer(at, waits):
                heappush(ready, (self._change(reader), reader))
        return order, total

    def _nearer(self, at: int, waits: dict[int, int]) -> Iterator[int]:
        """Nodes of the layer that can run now that one has, or now free what it read too."""
        for value in range(self.first[at], self.first[at + 1]):
            for reader in self.readers[value]:
                if reader in waits:
                    waits[reader] -= 1
                    if not waits[reader]:
                        yield reader
        for value in self.inputs[at]:
            if self.left[value] == 1:  # its last reader now frees it
                yield from (reader for reader in self.readers[value] if not waits.get(reader, -1))
