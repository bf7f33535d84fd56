"""Minimum cuts over K - 1 nested copies of a graph: the best plan over the whole DAG.

For an additive figure a plan is a chain of downward-closed sets S_0 <= ... <= S_{K-2}, not
only of prefixes of one order, and takes

    sum over t of [ sum over v in S_t of (c_t(v) - c_{t+1}(v)) + b_t D(S_t) + d_t [S_t != V] ]

and what the top tier would take for everything. Each term is the weight of edges cut in copy
t of the graph: a node pays if it is below (or, where the difference is negative, if it is
not), a value made below and read above pays once, through a node of its own, and a link's
delay is a node that every last node of the graph holds on to. Copies nest by an edge from
each node to itself in the next copy. Outputs that return are paid by nodes that are above.

Rules are edges that are never cut: a node that must be below a link hangs on the source in
that copy, one that must be above it on the sink. What a tier charges for a request at all is a
node that whatever runs there holds on to; for a tier between others, whether it runs anything
is no minimum cut, so both answers are tried.

Floats are exact fractions, and capacities these times a common denominator, whole numbers, so the
optimum is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, pairwise, product

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.planning.rules import Rules
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.envelope import Blocks, contract_within
from dnnsplit_onnx.work.maxflow import Network

#: Networks of more blocks and values, over all copies, take seconds.
MOST = 20_000
#: Tiers between others that charge for a request at all: each doubles the cuts to find. What
#: more of them charge is left out, so that the optimum is a bound and no more.
MOST_CHARGING = 4


@dataclass(frozen=True, slots=True)
class LinkRates:
    """What a link takes: for each byte and each use, away from tier 0 and back."""

    up: Fraction
    down: Fraction
    delay: Fraction

    def plus(self, weight: float, other: LinkRates) -> LinkRates:
        """These and, times a weight, others."""
        factor = Fraction(weight)
        return LinkRates(
            self.up + factor * other.up, self.down + factor * other.down, self.delay + factor * other.delay
        )

    @classmethod
    def none(cls) -> LinkRates:
        """A link that takes nothing."""
        return cls(Fraction(0), Fraction(0), Fraction(0))


@dataclass(frozen=True)
class DagFigure:
    """A figure that is a sum over nodes, crossing values and links in use.

    Attributes:
        below: Shape (K, n + 1): what each tier takes for the first nodes of the order.
        links: What each link takes.
        fees: What each tier takes if it runs anything.
        constant: What every plan takes.
    """

    below: NDArray[np.float64]
    links: tuple[LinkRates, ...]
    fees: tuple[float, ...] = ()
    constant: float = 0.0


@dataclass(frozen=True)
class DagOptimum:
    """What the best plan over all downward-closed sets takes.

    Attributes:
        value: The figure.
        sets: For each link, the positions below it.
    """

    value: float
    sets: tuple[frozenset[int], ...]


def minimum(
    figure: DagFigure, analysis: Analysis, rules: Rules | None, *, back: bool, merge: bool
) -> DagOptimum | None:
    """The plan over the DAG that keeps the rules and takes least.

    Args:
        figure: What is to be least.
        analysis: The graph, priced by live values.
        rules: What nodes must keep to, numbers of nodes apart.
        back: Whether outputs return to tier 0.
        merge: Whether nodes may be contracted: only where no tier is worse than the one below.

    Returns:
        The optimum; None if there is none, or the graph is too large.
    """
    if rules is not None and rules.contradiction is not None:
        return None
    links = len(figure.links)
    held = frozenset() if rules is None else rules.held
    blocks = contract_within(MOST // max(links, 1), analysis, merge=merge and not back, held=held)
    if blocks is None or links * (len(blocks.work) + len(blocks.values)) > MOST:
        return None
    copies = _Copies(figure, analysis, blocks, rules, back)
    found = [optimum for idle in copies.idle() if (optimum := copies.solve(idle)) is not None]
    return min(found, key=lambda optimum: optimum.value, default=None)


@dataclass
class _Copies:
    """The network of nested copies; all it weighs is whole, in units of one over `scale`."""

    figure: DagFigure
    analysis: Analysis
    blocks: Blocks
    rules: Rules | None
    back: bool
    edges: list[tuple[int, int, int | None]] = field(default_factory=list)
    constant: int = 0

    def __post_init__(self) -> None:
        self.links = len(self.figure.links)
        self.width = len(self.blocks.work) + len(self.blocks.values) + 2  # of a copy: two for delays
        runs = self._runs()
        below = [[entry.as_integer_ratio() for entry in row[runs].tolist()] for row in self.figure.below]
        fees = [Fraction(fee) for fee in self.figure.fees] or [Fraction(0)] * (self.links + 1)
        rates = [(link.up, link.down, link.delay) for link in self.figure.links]
        start = Fraction(self.figure.constant)
        denominators = {under for row in below for _, under in row}
        denominators |= {part.denominator for part in (start, *fees, *chain.from_iterable(rates))}
        self.scale = math.lcm(*denominators)
        self.start = self._whole(start)
        sums = [[over * (self.scale // under) for over, under in row] for row in below]
        self.taken = self._taken(sums, [self.blocks.block[at] for at in runs[:-1]])
        self.rates = [tuple(map(self._whole, parts)) for parts in rates]
        self.fees = list(map(self._whole, fees))
        self.charging = [t for t in range(1, self.links) if self.fees[t]][:MOST_CHARGING]

    def _whole(self, part: Fraction) -> int:
        return part.numerator * (self.scale // part.denominator)

    def _runs(self) -> list[int]:
        """The first positions of nodes in a row that are of one block, and the end of the last."""
        block = self.blocks.block
        return [*(at for at in range(len(block)) if not at or block[at] != block[at - 1]), len(block)]

    def _taken(self, below: list[list[int]], blocks: list[int]) -> list[list[int]]:
        """For each tier, what each block takes, from the very floats that `evaluate` uses.

        Args:
            below: For each tier, what it takes for all nodes before each run, and before the end.
            blocks: The block of each run.
        """
        rows = []
        for sums in below:
            row = [0] * len(self.blocks.work)
            for block, (low, high) in zip(blocks, pairwise(sums), strict=True):
                row[block] += high - low
            rows.append(row)
        return rows

    def idle(self) -> Iterator[frozenset[int]]:
        """The sets of tiers to be tried idle, of those between others that charge for a request."""
        for answers in product((False, True), repeat=len(self.charging)):
            yield frozenset(t for t, is_idle in zip(self.charging, answers, strict=True) if is_idle)

    def solve(self, idle: frozenset[int]) -> DagOptimum | None:
        """The best plan that leaves some tiers idle; None if there is none."""
        self.edges = []
        self.constant = sum(self.taken[-1]) + self.start
        for t in range(self.links):
            self._blocks(t)
            self._values(t)
            self._delay(t)
            self._rules(t)
            if self.back:
                self._outputs(t)
        self._charges(idle)
        ranks = [0, 0, *(rank for t in range(self.links) for rank in self._ranks(t)), -1]
        network = Network(ranks)
        for tail, head, capacity in self.edges:
            network.add(tail, head, capacity)
        try:
            flow, below = network.minimum_cut()
        except ValueError:
            return None
        sets = [
            frozenset(
                self.blocks.members(b for b in range(len(self.blocks.work)) if below[self._block(t, b)])
            )
            for t in range(self.links)
        ]
        return DagOptimum(float(Fraction(flow + self.constant, self.scale)), tuple(sets))

    def _ranks(self, t: int) -> list[float]:
        """Blocks in order, each value after the block that makes it, copies side by side."""
        step = 0.5 * t / self.links
        blocks = [2 * block + step for block in range(len(self.blocks.work))]
        values = [(-1 if maker is None else 2 * maker + 1) + step for _, maker, _ in self.blocks.values]
        return [*blocks, *values, -1, -1]

    def _block(self, t: int, block: int) -> int:
        return 2 + t * self.width + block

    def _blocks(self, t: int) -> None:
        for block, (here, above) in enumerate(zip(self.taken[t], self.taken[t + 1], strict=True)):
            node, saved = self._block(t, block), here - above
            if saved >= 0:
                self.edges.append((node, Network.SINK, saved))
            else:
                self.edges.append((Network.SOURCE, node, -saved))
                self.constant += saved
            if t + 1 < self.links:
                self.edges.append((node, self._block(t + 1, block), None))

    def _values(self, t: int) -> None:
        for at, (nbytes, maker, readers) in enumerate(self.blocks.values):
            node = self._block(t, len(self.blocks.work) + at)
            tail = Network.SOURCE if maker is None else self._block(t, maker)
            price = None if nbytes is None else self.rates[t][0] * nbytes
            if len(readers) == 1:  # one edge says as much as a node between
                node = self._block(t, readers[0])
            self.edges.append((tail, node, price))
            for reader in readers:
                head = self._block(t, reader)
                if head != node:
                    self.edges.append((node, head, None))
                if maker is not None:
                    self.edges.append((head, tail, None))

    def _delay(self, t: int) -> None:
        """Paid if any block is above: then one whose outputs no later block reads is."""
        node = self._block(t, self.width - 2)
        price = self.rates[t][2]
        if t == self.links - 1:  # the last tier runs something
            price += self.fees[-1]
        self.edges.append((Network.SOURCE, node, price))
        # What a state's readers read comes later only if they do; the others are below without it.
        inner = {
            maker for _, maker, readers in self.blocks.values if maker is not None and maker < readers[-1]
        }
        for block in range(len(self.blocks.work)):
            if block not in inner:
                self.edges.append((node, self._block(t, block), None))

    def _rules(self, t: int) -> None:
        if self.rules is None:
            return
        for block in {self.blocks.block[at] for at in self.rules.below[t]}:
            self.edges.append((Network.SOURCE, self._block(t, block), None))
        for block in {self.blocks.block[at] for at in self.rules.above[t]}:
            self.edges.append((self._block(t, block), Network.SINK, None))

    def _charges(self, idle: frozenset[int]) -> None:
        """What tiers take for a request at all; that of the last stands with its delay."""
        if not self.links or not any(self.fees[:-1]):
            if not self.links:
                self.constant += self.fees[-1]
            return
        blocks = range(len(self.blocks.work))
        first = 2 + self.links * self.width
        self.edges.append((first, Network.SINK, self.fees[0]))
        self.edges += [(self._block(0, block), first, None) for block in blocks]
        for t in self.charging:
            if t in idle:
                self.edges += [(self._block(t, block), self._block(t - 1, block), None) for block in blocks]
            else:
                self.constant += self.fees[t]

    def _outputs(self, t: int) -> None:
        """Outputs made above the link come back over it."""
        graph = self.analysis.graph
        delay = self._block(t, self.width - 1)
        self.edges.append((Network.SOURCE, delay, self.rates[t][2]))
        for value in graph.results:
            maker = graph.producer.get(value)
            if maker is None:
                continue
            node, nbytes = self._block(t, self.blocks.block[maker]), self.analysis.returned_nbytes(value)
            price = None if nbytes is None else self.rates[t][1] * nbytes
            self.edges.append((Network.SOURCE, node, price))
            if nbytes != 0:
                self.edges.append((delay, node, None))
