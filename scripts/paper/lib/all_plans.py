"""Every plan of three tiers at once, priced from the formulas of the paper and nothing else.

It shares no code with the planners or with the objective that judges them, so that agreement
with them says something.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Link, Topology
from dnnsplit_onnx.planning.costs import CostTable
from dnnsplit_onnx.planning.figures import Objective
from dnnsplit_onnx.planning.problem import Problem
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.cuts import Accounting, staircase
from lib.networks import LayerModel

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """A model of n layers or nodes in a line.

    Attributes:
        name: The network.
        parts: What is cut between: `keras layers` or `onnx nodes`.
        flops_below: Shape (n + 1,): FLOPs below each cut.
        nbytes: For either accounting, shape (n + 1,): bytes that cross each cut.
    """

    name: str
    parts: str
    flops_below: NDArray[np.int64]
    nbytes: dict[Accounting, NDArray[np.int64]]

    @classmethod
    def of_layers(cls, model: LayerModel) -> Line:
        """The line of Keras's layers, fp32."""
        below = np.concatenate(([0], np.cumsum(model.flops)))
        sizes: dict[Accounting, NDArray[np.int64]] = {
            "layer-input": 4 * model.elements("layer-input"),
            "live": 4 * model.elements("live"),
        }
        return cls(model.name, "keras layers", below, sizes)

    @classmethod
    def of_nodes(cls, name: str, analysis: Analysis) -> Line:
        """The line of an ONNX model's nodes."""
        sizes: dict[Accounting, NDArray[np.int64]] = {
            "layer-input": analysis.cut_nbytes("layer-input"),
            "live": analysis.cut_nbytes("live"),
        }
        return cls(name, "onnx nodes", analysis.flops_below, sizes)

    @property
    def size(self) -> int:
        """Number of layers or nodes, n."""
        return len(self.flops_below) - 1

    def candidates(self, accounting: Accounting) -> tuple[int, ...]:
        """The split points of eq. 15, and n: all below."""
        return (*staircase(self.nbytes[accounting]), self.size)

    def problem(self, case: Case, objective: Objective, accounting: Accounting) -> Problem:
        """What planners are asked."""
        up = self.nbytes[accounting]
        costs = CostTable(case.seconds_below(self), self.flops_below, up, np.zeros_like(up))
        return Problem(costs, case.topology, objective, accounting=accounting)

    def values(self, case: Case, objective: Objective, accounting: Accounting) -> _Floats:
        """Shape (n + 1, n + 1): what the plan of cuts (i, j) takes; infinite where i > j.

        Seconds for latency (eqs. 1-7 and 16), USD for cost (eqs. 8-11, and 17 with NE and NE-C put
        right), and for throughput the seconds of the slowest stage or link (eqs. 20-24, each link
        a stage of its own).
        """
        below = case.seconds_below(self)
        first, second = (_sent(link, self.nbytes[accounting]) for link in case.topology.links)
        if objective == "cost":
            below = below * np.array([[_usd_per_s(tier)] for tier in case.topology.tiers])
            first, second = (
                sent * _usd_per_s(link)
                for sent, link in zip((first, second), case.topology.links, strict=True)
            )
        on_edge, near_edge, on_cloud = below[0], below[1], below[2, -1] - below[2]
        total: _Floats
        if objective == "throughput":
            total = near_edge[None, :] - near_edge[:, None]
            np.maximum(total, np.maximum(on_edge, first)[:, None], out=total)
            np.maximum(total, np.maximum(on_cloud, second)[None, :], out=total)
        else:
            total = np.add.outer(on_edge + first - near_edge, near_edge + on_cloud + second)
        total[self._descending] = np.inf
        return total

    @cached_property
    def _descending(self) -> NDArray[np.bool_]:
        return np.tri(self.size + 1, k=-1, dtype=np.bool_)


@dataclass(frozen=True)
class Case:
    """A topology, and whether its tiers take each layer alike.

    Attributes:
        topology: Three tiers with `gflops`, two links.
        seed: If given, each layer takes each tier a time of its own: FLOPs over speed, times a
            random factor (log-normal, sigma 0.5), and a fixed 10 to 100 microseconds by the tier.
    """

    topology: Topology
    seed: int | None = None

    def seconds_below(self, line: Line) -> _Floats:
        """Shape (3, n + 1): seconds of each tier for the layers below each cut."""
        speeds = np.array([[(tier.gflops or np.nan) * 1e9] for tier in self.topology.tiers])
        if self.seed is None:
            below: _Floats = line.flops_below / speeds
            return below
        rng = np.random.default_rng(self.seed)
        each = np.diff(line.flops_below) / speeds * np.exp(0.5 * rng.standard_normal((3, line.size)))
        each = each + 10 ** rng.uniform(-5, -4, (3, 1))
        return np.concatenate((np.zeros((3, 1)), np.cumsum(each, axis=1)), axis=1)


def random_topology(rng: random.Random, *, is_ordered: bool) -> Topology:
    """Three tiers and two links.

    Args:
        rng: Where the numbers come from.
        is_ordered: Whether eqs. 12 and 13 hold, each tier being faster and cheaper by the FLOP than
            the one below it. Otherwise each fails somewhere.
    """
    speeds = sorted(10 ** rng.uniform(0.5, 4.5) for _ in range(3))
    per_flop = sorted((10 ** rng.uniform(-4, -2) for _ in range(3)), reverse=True)
    if not is_ordered:
        speeds, per_flop = _shuffled(rng, speeds), _shuffled(rng, per_flop)
    names = ("edge", "near-edge", "cloud")
    tiers = tuple(
        Tier(name=name, gflops=speed, usd_per_hour=speed * price)
        for name, speed, price in zip(names, speeds, per_flop, strict=True)
    )
    links = tuple(
        Link(
            bandwidth_mbps=10 ** rng.uniform(0, 3), delay_ms=rng.choice([0.0, 1.0, 10.0]), usd_per_hour=0.028
        )
        for _ in range(2)
    )
    return Topology(tiers=tiers, links=links)


def _shuffled(rng: random.Random, values: list[float]) -> list[float]:
    """The values in any order but theirs."""
    found = list(values)
    while found == values:
        rng.shuffle(found)
    return found


def _usd_per_s(part: Tier | Link) -> float:
    return (part.usd_per_hour or 0.0) / 3600


def _sent(link: Link, nbytes: NDArray[np.int64]) -> _Floats:
    """Seconds of a link for each cut, eqs. 2 and 4; nothing is sent where nothing is left to do."""
    seconds: _Floats = 8 * nbytes / (link.bandwidth_mbps * 1e6) + link.delay_ms / 1e3
    seconds[-1] = 0.0
    return seconds
