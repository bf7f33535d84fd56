"""Where each node of a graph stands: rows along the order, and lanes for what is live.

A row is a node, or several in a row where there are too many to draw. A value has a lane
from the row that makes it down to the last that reads it, so the lanes in use beside a cut
are the values that cross it. A row stands in the lane of a value that ends there, which
keeps the main line straight and puts branches beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.reporting.page.blocks import leaves

#: A graph of more nodes has those of a block that follow one another drawn as one row, or, where
#: names say nothing, its straight chains.
MOST_SINGLE = 1500
#: One of more rows even so has neighbours drawn as one.
MOST_ROWS = 2500
# A chain is cut into rows of so many nodes, so that a model that is one chain keeps a shape.
_LONGEST = 8


@dataclass(frozen=True, slots=True)
class Row:
    """What is drawn as one.

    Attributes:
        start, stop: Positions; both -1 for a model input, above the first node.
        stage: Index of the tier, -1 for a model input.
        lane: Its column.
        value: The model input that it stands for, "" for nodes.
    """

    start: int
    stop: int
    stage: int
    lane: int = 0
    value: str = ""


@dataclass(frozen=True, slots=True)
class Wire:
    """Values that one row makes and the same others read.

    Attributes:
        source: Index of the row that makes them.
        readers: Indices of the rows that read them, ascending.
        lane: Their column.
        values: Their names.
    """

    source: int
    readers: tuple[int, ...]
    lane: int
    values: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """Rows and wires.

    Attributes:
        rows: From the model's inputs down.
        wires: What runs between them.
        lanes: How many columns there are.
    """

    rows: tuple[Row, ...]
    wires: tuple[Wire, ...]
    lanes: int


def lay_out(
    graph: Graph, stage_of: Sequence[int], most_single: int = MOST_SINGLE, most_rows: int = MOST_ROWS
) -> Layout:
    """Places the nodes of a graph.

    Args:
        graph: The graph, in the order that positions count.
        stage_of: For each position, the index of the tier that runs the node.
        most_single: Up to so many nodes, each has a row of its own.
        most_rows: About the most rows that nodes may take.
    """
    spans = _spans(graph, stage_of, most_single, most_rows)
    rows = [Row(-1, -1, -1, value=name) for name in graph.inputs]
    rows += [Row(start, stop, stage_of[start]) for start, stop in spans]
    placed, wires, lanes = _in_lanes(rows, _read_by(graph, rows))
    return Layout(tuple(placed), tuple(wires), lanes)


def _spans(graph: Graph, stage_of: Sequence[int], most_single: int, most_rows: int) -> list[tuple[int, int]]:
    """The positions of each row of nodes; none holds nodes of two tiers."""
    size = len(graph.nodes)
    if size <= most_single:
        return [(at, at + 1) for at in range(size)]
    block = leaves(graph)
    named = _grouped(size, stage_of, lambda start, at: bool(block[at]) and block[at] == block[start])
    if len(named) <= most_single:
        return named
    follows = _follows(graph)
    chains = _grouped(size, stage_of, lambda start, at: follows[at] and at - start < _LONGEST)
    if len(chains) <= most_rows:
        return chains
    each = -(-size // most_rows)
    return _grouped(size, stage_of, lambda start, at: at - start < each)


def _grouped(size: int, stage_of: Sequence[int], joins: Callable[[int, int], bool]) -> list[tuple[int, int]]:
    """Spans of positions; `joins` tells whether one that starts at a place takes a position in."""
    spans, start = [], 0
    for at in range(1, size + 1):
        if at == size or stage_of[at] != stage_of[start] or not joins(start, at):
            spans.append((start, at))
            start = at
    return spans


def _follows(graph: Graph) -> list[bool]:
    """For each position, whether its node reads what the one before makes, and nobody else does."""
    readers: dict[str, int] = {}
    for node in graph.nodes:
        for value in node.inputs:
            readers[value] = readers.get(value, 0) + 1
    found = [False] * len(graph.nodes)
    for at in range(1, len(graph.nodes)):
        before, node = graph.nodes[at - 1], graph.nodes[at]
        used = [value for value in before.outputs if value in readers]
        found[at] = list(node.inputs) == used and len(used) == 1 and readers[used[0]] == 1
    return found


def _read_by(graph: Graph, rows: Sequence[Row]) -> list[dict[tuple[int, ...], list[str]]]:
    """For each row, the values it makes that other rows read, by these rows."""
    row_of: dict[str, int] = {}
    readers: dict[str, dict[int, None]] = {}
    for at, row in enumerate(rows):
        if row.value:
            row_of[row.value] = at
            continue
        for node in graph.nodes[row.start : row.stop]:
            for value in node.inputs:
                if row_of[value] != at:
                    readers.setdefault(value, {})[at] = None
            row_of.update(dict.fromkeys(node.outputs, at))
    found: list[dict[tuple[int, ...], list[str]]] = [{} for _ in rows]
    for value, where in readers.items():
        found[row_of[value]].setdefault(tuple(where), []).append(value)
    return found


def _in_lanes(
    rows: Sequence[Row], made: Sequence[dict[tuple[int, ...], list[str]]]
) -> tuple[list[Row], list[Wire], int]:
    """Gives every row and wire a column."""
    lanes: list[int] = []  # for each column, the row at which its wire ends; -1 if it is free
    placed, wires = [], []
    for at, row in enumerate(rows):
        ending = [lane for lane, last in enumerate(lanes) if last == at]
        for lane in ending:
            lanes[lane] = -1
        mine = ending[0] if ending else _free(lanes)
        placed.append(Row(row.start, row.stop, row.stage, mine, row.value))
        # The wire that goes farthest keeps the lane: what bypasses others runs straight.
        for order, readers in enumerate(sorted(made[at], key=lambda where: -where[-1])):
            lane = mine if order == 0 else _free(lanes)
            lanes[lane] = readers[-1]
            wires.append(Wire(at, readers, lane, tuple(made[at][readers])))
    return placed, wires, len(lanes)


def _free(lanes: list[int]) -> int:
    """A free column, a new one if there is none."""
    if -1 not in lanes:
        lanes.append(-1)
    return lanes.index(-1)
