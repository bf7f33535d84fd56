"""The nested minimum cuts of lambda * work(S) + D(S) over all lambda >= 0, and an order with them.

S ranges over all downward-closed sets of the DAG, work is FLOPs, D(S) the bytes of the live
values, each counted once. On the plane of (work, bytes) these sets are the corners of the
lower convex hull, and they are nested (Eisner and Severance 1976; Gallo, Grigoriadis and
Tarjan 1989): found by taking two of them, L and R, and asking whether any set in between
lies below their line. Each question is one minimum cut on the nodes of R that are not in L.

Where a tier's seconds are proportional to FLOPs, and outputs stay where they are made, this
envelope alone holds an optimal plan without limits over the whole DAG, for any number of tiers
(design, section 4). Outputs that return add a term of their own, and other sets may be best.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.cuts import fed_back
from dnnsplit_onnx.work.maxflow import Network

#: Bytes, the block that makes a value, those that read it; see `Blocks.values`.
_Value = tuple[int | None, int | None, tuple[int, ...]]
#: Contracting ends with a pass that leaves more than this share.
_SHRUNK = 0.9


@dataclass(frozen=True)
class Blocks:
    """A graph with nodes contracted that a minimum cut need never part.

    A node whose outputs have one reader, and are no smaller than its inputs, can always be
    moved up to that reader: no more bytes cross, and no more work is below.

    Attributes:
        block: For each node, its block.
        work: FLOPs of each block.
        values: What can cross between blocks: bytes (None if unknown, so that it never
            crosses), the block that makes it (None for a model input), the blocks that
            read it, in this run or, where it is a state, in the next; so those who read a state
            may come before the block that makes it, and are below only with it.
    """

    block: tuple[int, ...]
    work: tuple[int, ...]
    values: tuple[_Value, ...]

    def members(self, blocks: Iterable[int]) -> list[int]:
        """The nodes of some blocks, in order."""
        chosen = set(blocks)
        return [node for node, block in enumerate(self.block) if block in chosen]


def contract(analysis: Analysis, *, merge: bool = True, held: Set[int] = frozenset()) -> Blocks:
    """The blocks of an analysis, as `contract_within` any number makes them."""
    blocks = contract_within(len(analysis.graph.nodes), analysis, merge=merge, held=held)
    assert blocks is not None, "there are no more blocks than nodes"
    return blocks


def contract_within(
    most: int, analysis: Analysis, *, merge: bool = True, held: Set[int] = frozenset()
) -> Blocks | None:
    """The blocks of an analysis; None if there are more than `most`.

    What is contracted may be contracted again: once a residual block is one, it passes on as much
    as it reads, and is one with the next.

    Args:
        most: How many blocks are of use.
        analysis: A graph with its work and sizes.
        merge: Whether to contract at all; otherwise each node is a block.
        held: Nodes that may not be moved up: a rule wants them below.
    """
    graph, count = analysis.graph, len(analysis.graph.nodes)
    if not merge and count > most:
        return None
    still = {at for _, users, maker in fed_back(graph) for at in (*users, maker)} | held
    reads = _Reads.of(analysis)
    block = np.arange(count)
    while merge:
        number = reads.merged(count, sorted(still))
        before, count = count, int(number.max(initial=-1)) + 1
        block, reads = number[block], reads.between(number)
        still = set(number[sorted(still)].tolist()) if still else still
        if count > _SHRUNK * before:
            break
    if count > most:
        return None
    work = [0] * count
    for at, flops in zip(block.tolist(), analysis.flops.tolist(), strict=True):
        work[at] += flops
    return Blocks(tuple(block.tolist()), tuple(work), tuple(reads.values()))


@dataclass(frozen=True)
class _Reads:
    """Who reads what: blocks, and the values that can cross between them.

    Attributes:
        nbytes: Bytes of each value, -1 if unknown.
        maker: The block that makes each, -1 for a model input.
        value: For each pair of a value and a block that reads it, the value; ascending.
        user: The block, ascending for each value.
    """

    nbytes: NDArray[np.int64]
    maker: NDArray[np.intp]
    value: NDArray[np.intp]
    user: NDArray[np.intp]

    @classmethod
    def of(cls, analysis: Analysis) -> _Reads:
        """Those of an analysis, each node a block."""
        readers, producer = readers_over_runs(analysis.graph), analysis.graph.producer
        sizes = map(analysis.link_nbytes, readers)
        nodes = np.arange(len(analysis.graph.nodes))
        return cls(
            np.array([-1 if size is None else size for size in sizes], dtype=np.int64),
            np.array([producer.get(value, -1) for value in readers], dtype=np.intp),
            np.repeat(np.arange(len(readers)), [len(users) for users in readers.values()]),
            np.fromiter(chain.from_iterable(readers.values()), dtype=np.intp),
        ).between(nodes)

    def between(self, number: NDArray[np.intp]) -> _Reads:
        """What is read across blocks once these have new numbers."""
        maker = np.where(self.maker < 0, -1, number[self.maker]) if len(number) else self.maker
        user = number[self.user]
        across = user != maker[self.value]
        pairs = np.sort(self.value[across] * len(number) + user[across])
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]
        value, user = np.divmod(pairs, max(len(number), 1))
        return _Reads(self.nbytes, maker, value, user)

    def merged(self, count: int, still: Sequence[int]) -> NDArray[np.intp]:
        """For each block, the number of the one it becomes part of: its only reader's, or its own.

        Args:
            count: How many blocks there are; each is read by later ones, but for some of `still`.
            still: Blocks that stay where they are.
        """
        nbytes, makes = self.nbytes[self.value], self.maker[self.value]
        made = np.zeros(len(self.maker), dtype=np.bool_)
        made[self.value] = True  # what nobody else reads makes no block any larger
        made &= self.maker >= 0
        grown = np.zeros(count, dtype=np.int64)  # bytes that each makes for others, less those it reads
        np.add.at(grown, self.maker[made], self.nbytes[made])
        np.subtract.at(grown, self.user, nbytes)
        may_move = grown >= 0
        may_move[self.user[nbytes < 0]] = False
        may_move[makes[(nbytes < 0) & (makes >= 0)]] = False
        may_move[still] = False
        by_maker = np.argsort(makes, kind="stable")
        ends = np.searchsorted(makes[by_maker], np.arange(count + 1)).tolist()
        users = self.user[by_maker].tolist()
        head = list(range(count))  # the block that a block is moved up to
        for at in reversed(np.flatnonzero(may_move).tolist()):
            above = {head[user] for user in users[ends[at] : ends[at + 1]]}
            if len(above) == 1:
                head[at] = above.pop()
        stays = np.array(head, dtype=np.intp)
        is_head = np.zeros(count, dtype=np.intp)
        is_head[stays] = 1
        number: NDArray[np.intp] = (np.cumsum(is_head) - 1)[stays]
        return number

    def values(self) -> Iterator[_Value]:
        """Those that some other block reads, as `Blocks` has them."""
        pairs = zip(self.value.tolist(), self.user.tolist(), strict=True)
        for value, users in groupby(pairs, key=itemgetter(0)):
            nbytes, maker = int(self.nbytes[value]), int(self.maker[value])
            read_by = tuple([user for _, user in users])
            yield None if nbytes < 0 else nbytes, None if maker < 0 else maker, read_by


def readers_of_values(graph: Graph) -> dict[str, list[int]]:
    """For each data-flow value that a node reads, the positions of its readers."""
    readers: dict[str, list[int]] = {}
    for at, node in enumerate(graph.nodes):
        for value in node.inputs:
            readers.setdefault(value, []).append(at)
    return readers


def readers_over_runs(graph: Graph) -> dict[str, list[int]]:
    """As `readers_of_values`, with those of the next run; without states, which are where they are read."""
    readers = readers_of_values(graph)
    for state in graph.states:
        readers.pop(state.input, None)
    for value, positions in graph.next_readers.items():
        is_sent = value in graph.producer or value in graph.fresh_inputs
        if positions and is_sent:
            readers[value] = sorted({*readers.get(value, ()), *positions})
    return readers


def envelope(analysis: Analysis) -> tuple[frozenset[int], ...]:
    """The nested minimum cuts, from none of the nodes to all of them.

    Between the last corner and the whole graph, where nothing crosses, come the corners of
    the hull of those cuts that keep the last node above: the best there are for whoever
    cannot run everything below.

    Args:
        analysis: A graph with its work and sizes.

    Returns:
        Sets of positions; each holds the one before it.
    """
    blocks, cuts = corners_of(analysis)
    return tuple(frozenset(blocks.members(cut)) for cut in cuts)


def corners_of(analysis: Analysis) -> tuple[Blocks, tuple[_Cut, ...]]:
    """The `envelope` as sets of blocks, which are few where nodes are many."""
    blocks = contract(analysis)
    if not blocks.work:
        return blocks, (frozenset(),)
    search = _Envelope(blocks)
    everything = frozenset(range(len(blocks.work)))
    corners = [frozenset[int](), *search.between(frozenset(), everything)]
    least = search.least_bytes(corners[-1], everything - {blocks.block[-1]})
    if least is not None:
        corners += [*search.between(corners[-1], least), least]
    return blocks, tuple(dict.fromkeys([*corners, everything]))


_Cut = frozenset[int]


class _Envelope:
    """Minimum cuts between two given ones."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self.most = 1 + sum(nbytes or 0 for nbytes, _, _ in blocks.values)

    def between(self, low: _Cut, high: _Cut) -> list[_Cut]:
        """The corners of the hull strictly between two of them, in order."""
        corners: list[_Cut] = []
        spans = [(low, high)]
        while spans:
            low, high = spans.pop()
            middle = self._below_the_line(low, high)
            if middle is None:
                corners.append(high)
            else:
                spans += [(middle, high), (low, middle)]
        return corners[:-1]

    def least_bytes(self, low: _Cut, high: _Cut) -> _Cut | None:
        """The cut between two that sends least, and of those has least work; None if `low` is it."""
        high = self._closed(high)
        if not low < high:
            return None
        found = self._minimum(low, high, work=1, nbytes=1 + sum(self.blocks.work))
        return found if self.nbytes(found) < self.nbytes(low) else None

    def _closed(self, cut: _Cut) -> _Cut:
        """The largest cut inside a set of blocks: whoever reads what is made above is above."""
        while True:
            above = (set(r) for _, maker, r in self.blocks.values if maker is not None and maker not in cut)
            smaller = cut.difference(*above)
            if smaller == cut:
                return cut
            cut = smaller

    def nbytes(self, cut: _Cut) -> int:
        """D(S), and more than any other where it is unknown."""
        total = 0
        for nbytes, maker, readers in self.blocks.values:
            if (maker is None or maker in cut) and not cut.issuperset(readers):
                total += self.most if nbytes is None else nbytes
        return total

    def work(self, cut: _Cut) -> int:
        """FLOPs of a cut."""
        return sum(self.blocks.work[block] for block in cut)

    def _below_the_line(self, low: _Cut, high: _Cut) -> _Cut | None:
        """A cut between two that lies below the line through them, if there is one.

        The line's slope is lambda = drop / run; all is multiplied by `run`, to be whole.
        """
        run, drop = self.work(high) - self.work(low), self.nbytes(low) - self.nbytes(high)
        if run <= 0 or drop <= 0:
            return None
        middle = self._minimum(low, high, work=drop, nbytes=run)
        is_below = drop * self.work(middle) + run * self.nbytes(middle) < drop * self.work(
            low
        ) + run * self.nbytes(low)
        return middle if is_below else None

    def _minimum(self, low: _Cut, high: _Cut, *, work: int, nbytes: int) -> _Cut:
        """The smallest cut between two of least weight, at prices a FLOP and a byte."""
        free = sorted(high - low)
        place = {block: at for at, block in enumerate(free, start=2)}
        values = [value for value in self.blocks.values if self._may_differ(value, low, high)]
        ranks = [2 * block for block in free] + [
            -1 if maker is None else 2 * maker + 1 for _, maker, _ in values
        ]
        network = Network([0, 0, *ranks])
        for block in free:
            network.add(place[block], Network.SINK, work * self.blocks.work[block])
        for at, (size, maker, readers) in enumerate(values, start=2 + len(free)):
            tail = Network.SOURCE if maker is None or maker in low else place[maker]
            network.add(tail, at, None if size is None else nbytes * size)
            for reader in readers:
                if reader in low:
                    continue
                head = place.get(reader, Network.SINK)
                network.add(at, head, None)
                if tail != Network.SOURCE and head != Network.SINK:
                    network.add(head, tail, None)  # a reader is below only with its input
        try:
            _, below = network.minimum_cut()
        except ValueError:  # values of unknown size cross every cut between the two
            return low
        return low.union(block for block in free if below[place[block]])

    @staticmethod
    def _may_differ(value: _Value, low: _Cut, high: _Cut) -> bool:
        """Whether a value crosses some cuts between two and not others."""
        _, maker, readers = value
        is_made_in_all = maker is None or maker in low
        if not is_made_in_all and maker not in high:
            return False
        if is_made_in_all and not high.issuperset(readers):
            return False  # it crosses them all
        return not low.issuperset(readers)
