"""Cuts of a graph: what must cross them, and which of them can ever be best.

A cut is a downward-closed set of nodes. Along a graph's order, position `i` is the cut of
its first `i` nodes: `0` puts every node above, `n` every node below. Two accountings of
what a cut costs exist:

- `live`: the bytes of the live values, those made below the cut (or model inputs) and read
  above it, each counted once. It is what must travel, and what slicing sends.
- `layer-input`: the bytes of the inputs of the one node above the cut, `AD_l` in Kayal &
  Leon-Garcia (IEEE Access 2024), section III-A. Inside a residual or squeeze-excite block
  it leaves out tensors that must travel; it is here to reproduce that paper.

A cut is dominated if an earlier one needs no more bytes: moving the boundary back gives
work to a faster and cheaper tier and sends no more (their eq. 15). What is left, the
staircase of minima, are the candidate cuts. Position `n` sends nothing and is always
possible; it is not listed among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, takewhile
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.errors import CutError, check_name
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.states import State

Accounting = Literal["live", "layer-input"]
Sizes = Callable[[str], "int | None"]

#: Stands for an unknown number of bytes in arrays of sizes, and for cuts that cannot be.
UNKNOWN = -1


def cut_nbytes(graph: Graph, size: Sizes, accounting: Accounting = "live") -> NDArray[np.int64]:
    """Bytes that cross each cut of the graph's order.

    Args:
        graph: A graph of n nodes.
        size: Size in bytes of a value, None if unknown.
        accounting: `live` or `layer-input`.

    Returns:
        Shape (n + 1,): bytes at positions 0 to n, `UNKNOWN` where a value of unknown size
        would cross.

    Raises:
        InputError: The accounting is neither.
    """
    check_name("accounting", accounting, get_args(Accounting))
    if accounting == "layer-input":
        sums = [_sum(size(value) for value in node.inputs) for node in graph.nodes]
        return np.array([*sums, 0], dtype=np.int64)
    steps = [0] * (len(graph.nodes) + 2)  # a list: numpy takes longer for single elements
    unknown = [0] * (len(graph.nodes) + 2)
    for value, born, last in lifetimes(graph):
        nbytes = size(value)
        counts, amount = (unknown, 1) if nbytes is None else (steps, nbytes)
        counts[born] += amount
        counts[last + 1] -= amount
    totals = np.cumsum(np.array(steps, dtype=np.int64))[:-1]
    totals[np.cumsum(unknown)[:-1] > 0] = UNKNOWN
    return totals


def lifetimes(graph: Graph) -> Iterator[tuple[str, int, int]]:
    """First and last position at which each data-flow value is live, by the first.

    Values that no node reads, in this run or the next, are left out: they never cross a cut. Nor
    do the states that model inputs bring: they are where they are read.
    """
    last_use, next_readers = graph.last_use, graph.next_readers
    kept = {state.input for state in graph.states}
    for born, values in enumerate(chain((graph.inputs,), (node.outputs for node in graph.nodes))):
        for value in values:
            last = last_use.get(value, -1)
            if value in next_readers:
                last = max(last, *next_readers[value], -1)
            if last >= born and value not in kept:
                yield value, born, last


def fed_back(graph: Graph) -> Iterator[tuple[State, tuple[int, ...], int]]:
    """States whose new value is made after nodes that need it in the next run.

    Yields:
        Each with the positions of those who need it and of its maker. A cut with one of the
        former below it and the latter above parts the state.
    """
    for state in graph.states:
        readers = graph.state_readers[state.input]
        maker = -1 if state.output is None else graph.producer.get(state.output, -1)
        if readers and readers[0] < maker:
            yield state, readers, maker


def parted_states(graph: Graph) -> NDArray[np.bool_]:
    """The positions at which no link can be cut: a state would be parted.

    Returns:
        Shape (n + 1,).
    """
    steps = np.zeros(len(graph.nodes) + 2, dtype=np.int64)
    for _, readers, maker in fed_back(graph):
        steps[readers[0] + 1] += 1
        steps[maker + 1] -= 1
    parted: NDArray[np.bool_] = np.cumsum(steps)[:-1] > 0
    return parted


def check_states(graph: Graph, positions: Iterable[int]) -> None:
    """Holds cuts against the states of a graph.

    Raises:
        CutError: One parts a state; the message names it and the nearest cuts that do not.
    """
    if not graph.states:
        return
    parted = parted_states(graph)
    whole = np.flatnonzero(~parted)
    for position in positions:
        if not 0 <= position <= len(graph.nodes) or not parted[position]:
            continue
        state = next(s for s, readers, maker in fed_back(graph) if readers[0] < position <= maker)
        below, above = whole[whole < position].max(), whole[whole > position].min()
        raise CutError(
            f"cut {position} parts state `{state.input}` from `{state.output}`",
            context="a state never travels down: what reads it runs where it is made, or above",
            hint=f"the nearest cuts are {below} and {above}; or --state none sends it each time",
        )


def live_values(graph: Graph, position: int) -> tuple[str, ...]:
    """The values that must cross the cut at `position`, in the order they are made."""
    made = takewhile(lambda life: life[1] <= position, lifetimes(graph))
    return tuple(value for value, _, last in made if position <= last)


def live_values_of_all(graph: Graph) -> Iterator[tuple[str, ...]]:
    """The live values of positions 0 to n, one after the other, in linear time overall."""
    ends: dict[int, list[str]] = {}
    starts: dict[int, list[str]] = {}
    for value, born, last in lifetimes(graph):
        starts.setdefault(born, []).append(value)
        ends.setdefault(last + 1, []).append(value)
    live: dict[str, None] = {}
    for position in range(len(graph.nodes) + 1):
        for value in ends.get(position, ()):
            del live[value]
        live.update(dict.fromkeys(starts.get(position, ())))
        yield tuple(live)


def crossing_values(graph: Graph, position: int, accounting: Accounting = "live") -> tuple[str, ...]:
    """The values that an accounting charges at `position`."""
    if accounting == "live":
        return live_values(graph, position)
    return graph.nodes[position].inputs if position < len(graph.nodes) else ()


def staircase(nbytes: NDArray[np.int64], start: int = 0) -> tuple[int, ...]:
    """The candidate cuts: positions that need fewer bytes than every earlier one.

    Args:
        nbytes: Bytes at positions 0 to n, as `cut_nbytes` gives them.
        start: The first position to consider; a prefix pinned below restarts the stairs.

    Returns:
        Positions in ascending order, `n` left out. Positions of unknown size are passed over.
    """
    body = nbytes[start:-1].astype(np.float64)
    body[body == UNKNOWN] = np.inf
    if not body.size:
        return ()
    best_before = np.concatenate(([np.inf], np.minimum.accumulate(body)[:-1]))
    return tuple(int(at) + start for at in np.flatnonzero(body < best_before))


def outputs_above(graph: Graph, size: Sizes) -> NDArray[np.int64]:
    """Bytes of model outputs that are made above each cut.

    Returns:
        Shape (n + 1,), `UNKNOWN` where one of unknown size is made above.
    """
    steps = np.zeros(len(graph.nodes) + 1, dtype=np.int64)
    unknown = np.zeros(len(graph.nodes) + 1, dtype=np.int64)
    for value in graph.results:
        made = graph.producer.get(value)
        if made is not None:
            nbytes = size(value)
            steps[made] += nbytes or 0
            unknown[made] += nbytes is None
    totals = np.cumsum(steps[::-1])[::-1]
    totals[np.cumsum(unknown[::-1])[::-1] > 0] = UNKNOWN
    return totals


def _sum(sizes: Iterator[int | None]) -> int:
    total = 0
    for nbytes in sizes:
        if nbytes is None:
            return UNKNOWN
        total += nbytes
    return total
