"""The best that any plan over the DAG can reach: one minimum cut over K - 1 nested copies.

For an additive figure a plan is a chain of downward-closed sets S_0 <= ... <= S_{K-2}, not
only of prefixes of one order, and takes

    sum over t of [ sum over v in S_t of (c_t(v) - c_{t+1}(v)) + b_t D(S_t) + d_t [S_t != V] ]

and what the top tier would take for everything. Each term is the weight of edges cut in copy
t of the graph: a node pays if it is below (or, where the difference is negative, if it is
not), a value made below and read above pays once, through a node of its own, and a link's
delay is a node that every last node of the graph holds on to. Copies nest by an edge from
each node to itself in the next copy. Outputs that return are paid by nodes that are above.

Capacities are the floats of `evaluate` as exact fractions, multiplied to whole numbers, so
the bound is exact; figures are compared with it up to the rounding of `evaluate`'s terms.
Limits are left out: with limits the bound holds, and a plan may not reach it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from dnnsplit_onnx.machines.topology import Link
from dnnsplit_onnx.planning.plans import Figures, Measure, Objective
from dnnsplit_onnx.planning.problem import Problem
from dnnsplit_onnx.planning.weights import Weights
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.envelope import Blocks, contract
from dnnsplit_onnx.work.maxflow import Network

#: Networks of more blocks and values, over all copies, take seconds.
MOST = 20_000
#: Relative rounding of the terms that `evaluate` adds.
ROUNDING = 1e-12


@dataclass(frozen=True)
class DagOptimum:
    """What the best plan over all downward-closed sets takes.

    Attributes:
        value: The figure.
        sets: For each link, the positions below it.
    """

    value: float
    sets: tuple[frozenset[int], ...]


def dag_optimum(problem: Problem, analysis: Analysis) -> DagOptimum | None:
    """The optimum over the DAG, limits and rules left out.

    Args:
        problem: A problem made of the analysis.
        analysis: The graph behind it, priced by live values.

    Returns:
        The optimum; None if the objective is not a sum, energies are not all known, or the
        graph is too large.
    """
    if problem.objective == "throughput" or problem.objective == "custom" or not _is_known(problem):
        return None
    measure: Measure = problem.objective
    # Contraction moves work up, so it needs tiers that are no worse the higher they are.
    merge = problem.is_dominated((measure,)) and not problem.topology.limits.return_output
    blocks = contract(analysis, merge=merge)
    links = len(problem.topology.links)
    if links * (len(blocks.work) + len(blocks.values)) > MOST:
        return None
    return _Copies(problem, analysis, blocks, measure).solve()


def _is_known(problem: Problem) -> bool:
    if problem.objective == "throughput" or problem.objective == "custom":
        return True
    if not problem.needs_energy((problem.objective,)):
        return True
    tiers, links = problem.topology.tiers, problem.topology.links
    return all(tier.watts is not None for tier in tiers) and all(link.watts is not None for link in links)


@dataclass(frozen=True)
class _Rates:
    """What a link takes: for each byte and each use, away from tier 0 and back."""

    up: Fraction
    down: Fraction
    delay: Fraction

    def plus(self, weight: float, other: _Rates) -> _Rates:
        """These and, times a weight, others."""
        factor = Fraction(weight)
        return _Rates(
            self.up + factor * other.up, self.down + factor * other.down, self.delay + factor * other.delay
        )


def _rates(link: Link, measure: Measure, weights: Weights | None) -> _Rates:
    if measure == "weighted":
        assert weights is not None, "the objective `weighted` has weights"
        total = _Rates(Fraction(0), Fraction(0), Fraction(0))
        for part, weight in weights.to_dict().items():
            total = total.plus(weight, _rates(link, part, None))  # type: ignore[arg-type]
        return total
    if measure == "cost" and link.usd_per_gb is not None:
        per_byte = Fraction(link.usd_per_gb / 1e9)
        return _Rates(per_byte, per_byte, Fraction(0))
    price = Fraction(1)
    if measure == "cost":
        price = Fraction((link.usd_per_hour or 0.0) / 3600.0)
    elif measure == "energy":
        price = Fraction(link.watts or 0.0)
    back = link.down_mbps or link.bandwidth_mbps
    return _Rates(
        price * 8 / Fraction(link.bandwidth_mbps * 1e6),
        price * 8 / Fraction(back * 1e6),
        price * Fraction(link.delay_ms / 1e3),
    )


class _Copies:
    """The network of nested copies; edges are gathered as fractions, then made whole."""

    def __init__(self, problem: Problem, analysis: Analysis, blocks: Blocks, measure: Measure) -> None:
        self.problem, self.analysis, self.blocks = problem, analysis, blocks
        self.links = [_rates(link, measure, problem.weights) for link in problem.topology.links]
        self.taken = self._taken(measure)
        self.back = problem.topology.limits.return_output
        self.width = len(blocks.work) + len(blocks.values) + 2  # of a copy: two nodes for delays
        self.edges: list[tuple[int, int, Fraction | None]] = []
        self.constant = sum(self.taken[-1], Fraction(0))

    def _taken(self, measure: Measure) -> list[list[Fraction]]:
        """For each tier, what each block takes, from the very floats that `evaluate` uses."""
        rows = []
        for below in self.problem.additive(measure).below:
            row = [Fraction(0)] * len(self.blocks.work)
            exact = [Fraction(entry) for entry in below.tolist()]
            for at, block in enumerate(self.blocks.block):
                row[block] += exact[at + 1] - exact[at]
            rows.append(row)
        return rows

    def solve(self) -> DagOptimum:
        for t in range(len(self.links)):
            self._blocks(t)
            self._values(t)
            self._delay(t)
            if self.back:
                self._outputs(t)
        scale = math.lcm(*(edge[2].denominator for edge in self.edges if edge[2] is not None))
        network = Network([0, 0, *(rank for t in range(len(self.links)) for rank in self._ranks(t))])
        for tail, head, capacity in self.edges:
            network.add(tail, head, None if capacity is None else int(capacity * scale))
        flow, below = network.minimum_cut()
        sets = [
            frozenset(
                self.blocks.members(b for b in range(len(self.blocks.work)) if below[self._block(t, b)])
            )
            for t in range(len(self.links))
        ]
        return DagOptimum(float(Fraction(flow, scale) + self.constant), tuple(sets))

    def _ranks(self, t: int) -> list[float]:
        """Blocks in order, each value after the block that makes it, copies side by side."""
        step = 0.5 * t / len(self.links)
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
            if t + 1 < len(self.links):
                self.edges.append((node, self._block(t + 1, block), None))

    def _values(self, t: int) -> None:
        for at, (nbytes, maker, readers) in enumerate(self.blocks.values):
            node = self._block(t, len(self.blocks.work) + at)
            tail = Network.SOURCE if maker is None else self._block(t, maker)
            self.edges.append((tail, node, None if nbytes is None else self.links[t].up * nbytes))
            for reader in readers:
                head = self._block(t, reader)
                self.edges.append((node, head, None))
                if maker is not None:
                    self.edges.append((head, tail, None))

    def _delay(self, t: int) -> None:
        """Paid if any block is above: then one whose outputs no block reads is."""
        node = self._block(t, self.width - 2)
        self.edges.append((Network.SOURCE, node, self.links[t].delay))
        inner = {maker for _, maker, _ in self.blocks.values}
        for block in range(len(self.blocks.work)):
            if block not in inner:
                self.edges.append((node, self._block(t, block), None))

    def _outputs(self, t: int) -> None:
        """Outputs made above the link come back over it."""
        graph, types = self.analysis.graph, self.analysis.types
        delay = self._block(t, self.width - 1)
        self.edges.append((Network.SOURCE, delay, self.links[t].delay))
        for value in graph.results:
            maker = graph.producer.get(value)
            if maker is None:
                continue
            node, nbytes = self._block(t, self.blocks.block[maker]), types.nbytes(value)
            self.edges.append((Network.SOURCE, node, None if nbytes is None else self.links[t].down * nbytes))
            if nbytes != 0:
                self.edges.append((delay, node, None))


def lower_bound(problem: Problem, analysis: Analysis) -> float | None:
    """What no plan over the DAG can fall below; see `plans.Plan.lower_bound`.

    None where machines share rows: what they take is no sum over nodes.
    """
    if problem.costs.rows is not None:
        return None
    if problem.objective == "throughput":
        return slowest_step_bound(problem)
    optimum = dag_optimum(problem, analysis)
    return None if optimum is None else optimum.value


def gap_above(bound: float, problem: Problem, figures: Figures) -> float:
    """How far a plan is above a bound, relative to the plan; 0 within rounding."""
    return relative_gap(bound, problem.objective, figures.value(problem.objective))


def relative_gap(bound: float, objective: Objective, value: float) -> float:
    """How far a plan's value is above a bound; see `gap_above`."""
    if objective == "throughput":
        value = 1 / value if value > 0 else math.inf
    gap = 0.0 if value == 0 else 1 - bound / value
    return gap if gap > ROUNDING else 0.0


def slowest_step_bound(problem: Problem) -> float:
    """Seconds that the slowest stage of any plan takes at least, for throughput.

    Some tier runs the node whose best tier is slowest, and some tier does at least its
    share of the least that all nodes take.
    """
    per_node = np.diff(problem.costs.seconds_below, axis=1).min(axis=0, initial=math.inf)
    if not per_node.size:
        return 0.0
    return max(float(per_node.max()), float(per_node.sum()) / len(problem.topology.tiers)) * (1 - ROUNDING)
