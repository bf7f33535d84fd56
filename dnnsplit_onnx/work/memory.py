"""What a stage needs in memory: its weights, and its live values at their worst moment.

A stage runs the nodes of positions `start` to `stop` in order. While node i runs it holds

1. the weights that any of its nodes reads or holds inside, shared ones once, and the states, which it keeps
   from run to run as it keeps weights;
2. the values live at cut i: made before it and still needed, here or further up, those that
   only pass through included;
3. what node i makes;
4. the model outputs that it has made already and nobody needs further: they stay here.

A stage without nodes holds nothing: what passes through it is the link's business. What a
stage needs never falls when nodes are added at either end, so for each stop there is a
first start that fits, and it never moves back: one sweep finds them all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.work.cuts import Sizes, cut_nbytes


@dataclass(frozen=True)
class StageMemory:
    """Memory of every stage of a graph of n nodes, ready to be asked.

    Attributes:
        held: Shape (n,): bytes of points 2 and 3 for each node; infinite where unknown.
        weight_ends: Shape (n + 1,): where each node's weights end in the two arrays below.
        weight_ids: Numbers of the weights that nodes read, node after node.
        weight_nbytes: Bytes of each number; infinite where unknown.
        weight_names: The weight, or the state's input, that each number stands for.
        outputs: Model outputs (point 4): the position that makes each, the first position
            at which nobody needs it, and its bytes.
    """

    held: NDArray[np.float64]
    weight_ends: NDArray[np.intp]
    weight_ids: NDArray[np.intp]
    weight_nbytes: NDArray[np.float64]
    outputs: tuple[tuple[int, int, float], ...]
    weight_names: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of nodes, n."""
        return len(self.held)

    def nbytes(self, start: int, stop: int) -> int | None:
        """Bytes that the stage from `start` to `stop` needs, None if unknown."""
        if start == stop:
            return 0
        held = self.held[start:stop].copy()
        for made, idle, nbytes in self._kept:
            if made >= start and idle < stop:
                held[idle - start :] += nbytes
        read = self.weight_ids[self.weight_ends[start] : self.weight_ends[stop]]
        ids = sorted(set(read.tolist()))  # np.unique would import numpy.ma
        total = float(held.max()) + float(self.weight_nbytes[ids].sum())
        return int(total) if np.isfinite(total) else None

    def first_starts(self, limit: float) -> NDArray[np.intp]:
        """For each stop, the first start of a stage that needs at most `limit` bytes.

        Returns:
            Shape (n + 1,), ascending; the stop itself where only an empty stage fits.
        """
        window = _Window(self)
        first = np.zeros(self.size + 1, dtype=np.intp)
        for stop in range(1, self.size + 1):
            window.grow()
            while window.start < stop and window.nbytes > limit:
                window.shrink()
            first[stop] = window.start
        return first

    @cached_property
    def _kept(self) -> tuple[tuple[int, int, float], ...]:
        """The outputs that can lie idle while another node runs."""
        return tuple(output for output in self.outputs if output[1] < self.size)


class _Window:
    """A stage that grows at its stop and shrinks at its start, always knowing its need."""

    def __init__(self, memory: StageMemory) -> None:
        self.memory = memory
        self.start = self.stop = 0
        self.held = memory.held.copy()
        self.leaving: dict[int, list[tuple[int, float]]] = {}
        for made, idle, nbytes in memory._kept:
            self.held[idle:] += nbytes
            if np.isfinite(nbytes):  # else unknown stays unknown, for all who come later
                self.leaving.setdefault(made, []).append((idle, nbytes))
        self.readers = np.zeros(len(memory.weight_nbytes), dtype=np.intp).tolist()
        self.weights = 0.0
        self.unknown_weights = 0
        self.peaks: deque[int] = deque()  # positions of falling need; the first is the worst

    @property
    def nbytes(self) -> float:
        if self.unknown_weights:
            return np.inf
        return self.weights + float(self.held[self.peaks[0]]) if self.peaks else 0.0

    def grow(self) -> None:
        self._push(self.stop)
        for weight in self._weights(self.stop):
            self.readers[weight] += 1
            if self.readers[weight] == 1:
                self._count(weight, 1)
        self.stop += 1

    def shrink(self) -> None:
        at = self.start
        self.start += 1
        for weight in self._weights(at):
            self.readers[weight] -= 1
            if self.readers[weight] == 0:
                self._count(weight, -1)
        if self.peaks and self.peaks[0] == at:
            self.peaks.popleft()
        if at in self.leaving:  # an output made below this stage is not held by it
            for idle, nbytes in self.leaving.pop(at):
                self.held[idle:] -= nbytes
            self.peaks.clear()
            for position in range(self.start, self.stop):
                self._push(position)

    def _push(self, position: int) -> None:
        need = self.held[position]
        while self.peaks and self.held[self.peaks[-1]] <= need:
            self.peaks.pop()
        self.peaks.append(position)

    def _weights(self, position: int) -> Iterator[int]:
        ends = self.memory.weight_ends
        yield from self.memory.weight_ids[ends[position] : ends[position + 1]].tolist()

    def _count(self, weight: int, sign: int) -> None:
        nbytes = float(self.memory.weight_nbytes[weight])
        if np.isinf(nbytes):
            self.unknown_weights += sign
        else:
            self.weights += sign * nbytes


def stage_memory(graph: Graph, size: Sizes, inner: Sequence[Mapping[str, int]] = ()) -> StageMemory:
    """The memory of the stages of a graph.

    Args:
        graph: The graph, its nodes in the order that stages count in.
        size: Bytes of a value or a weight as a tensor, None if unknown.
        inner: For each node, the bytes of weights inside it, by keys that are no names.
    """
    inside = {key: nbytes for node in inner for key, nbytes in node.items()}

    def held(name: str) -> float:
        nbytes = inside[name] if name in inside else size(name)
        return np.inf if nbytes is None else float(nbytes)

    live = cut_nbytes(graph, size)[:-1]  # as tensors, however inputs travel
    returned = frozenset(graph.outputs)
    made = [0.0] * len(graph.nodes)
    for at, node in enumerate(graph.nodes):
        for name in node.outputs:
            nbytes = size(name)
            if nbytes is not None:
                made[at] += nbytes
            # An optional output that nobody reads, a Dropout's mask, often has no known type.
            elif name in graph.last_use or name in returned:
                made[at] = np.inf
    ids: dict[str, int] = {}
    kept: list[list[str]] = [[] for _ in graph.nodes]
    for name, positions in graph.state_readers.items():
        for at in positions:
            kept[at].append(name)
    reads = [
        [ids.setdefault(name, len(ids)) for name in (*node.weights, *states, *held_in)]
        for node, states, held_in in zip(graph.nodes, kept, inner or [{}] * len(graph.nodes), strict=True)
    ]
    made_at = [
        (name, graph.producer[name]) for name in dict.fromkeys(graph.outputs) if name in graph.producer
    ]
    outputs = [(at, max(at, graph.last_use.get(name, at)) + 1, held(name)) for name, at in made_at]
    return StageMemory(
        held=np.where(live < 0, np.inf, live) + np.array(made).reshape(live.shape),
        weight_ends=np.cumsum([0, *map(len, reads)]),
        weight_ids=np.array([weight for row in reads for weight in row], dtype=np.intp),
        weight_nbytes=np.array([held(name) for name in ids], dtype=np.float64),
        outputs=tuple(outputs),
        weight_names=tuple(ids),
    )
