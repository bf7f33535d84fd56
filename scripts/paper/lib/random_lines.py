"""Random infrastructures, and models brought down to the few cuts that matter on them.

Where a tier's seconds are proportional to FLOPs and outputs stay where they are made, the
candidates of the order `envelope` hold an optimal plan without limits over the whole DAG
(design, section 4), so a model is a handful of (FLOPs, bytes) pairs, and planning takes
microseconds.

How much a split can gain at all follows from these pairs. With W the FLOPs of the model and D0
the bytes of its input, let u(S) = work(S) / W and

    r = min over cuts S of u(S) + D(S) / D0.

No plan takes less than r times the best single tier, whatever the bandwidths and delays, and
whatever the tiers as long as none is slower than the one below. For a plan S_0 <= ... <= S_{K-2}
takes the sum over links of a_t work(S_t) + b_t D(S_t), and d_t unless S_t is everything, with
a_t, b_t, d_t >= 0, and what the top tier would take for all. Draw a number between 0 and r, the same
for all links, and make S_t everything if u(S_t) is above it, nothing if not: a single tier, as u
rises along the plan. Link t is then expected to take

    a_t W u / r + (b_t D0 + d_t) (1 - u / r) <= (a_t work(S_t) + b_t D(S_t) + d_t) / r

if u < r, since D(S_t) / D0 >= r - u; and a_t W <= a_t work(S_t) / r if not. So some single tier takes
no more than 1 / r times the plan. Two tiers, the upper one of any speed and a link over which the
input takes as long as everything on the edge, come as close to it as one likes. The same holds
for cost where no tier is dearer than the one below (eq. 13).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.costs import CostTable
from dnnsplit_onnx.planning.planners import Problem
from dnnsplit_onnx.planning.planners.replan import Replanner
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.codes import coded_nbytes
from dnnsplit_onnx.work.cuts import UNKNOWN, cut_nbytes, staircase
from lib.presets import numbers


@dataclass(frozen=True)
class Pairs:
    """A model as its candidate cuts: FLOPs below each, and bytes that cross it.

    Attributes:
        flops: Shape (m + 1,): ascending, from 0 to all.
        nbytes: Shape (m + 1,): descending, from the input's to 0.
    """

    flops: NDArray[np.int64]
    nbytes: NDArray[np.int64]

    @classmethod
    def of(cls, analysis: Analysis, code: str = "raw", input_nbytes: int | None = None) -> Pairs:
        """The pairs of an analysis in the order `envelope`.

        Args:
            analysis: The model.
            code: What values cross in, where it applies.
            input_nbytes: What all of its inputs take, as a rival sends them; in that code if None.

        Raises:
            ValueError: The size of its input is unknown, it has no work, or a cut in it has no
                bytes: the dimensions that were bound are too small for it.
        """

        def size(value: str) -> int | None:
            coded = coded_nbytes(code, analysis.types[value])
            return analysis.types.nbytes(value) if coded is None else coded

        nbytes = analysis.cut_nbytes() if code == "raw" else cut_nbytes(analysis.graph, size)
        if input_nbytes is not None:
            nbytes[0] = input_nbytes
        if nbytes[0] == UNKNOWN or analysis.flops_below[-1] == 0:
            raise ValueError("its input has no known size, or it no work that is counted")
        if (nbytes[:-1] == 0).any():
            raise ValueError("values inside it have no elements")
        at = [*staircase(nbytes), len(analysis.graph.nodes)]
        nbytes[-1] = 0
        return cls(analysis.flops_below[at], nbytes[at])

    @property
    def most_gain(self) -> float:
        """1 / r: what no split can gain more than over the best single tier."""
        return float(1 / (self.flops / self.flops[-1] + self.nbytes / self.nbytes[0]).min())

    def problem(self, topology: Topology) -> Problem:
        """What planners are asked on a topology whose tiers have `gflops`."""
        speeds = np.array([[(tier.gflops or np.nan) * 1e9] for tier in topology.tiers])
        none = np.zeros_like(self.nbytes)
        return Problem(CostTable(self.flops / speeds, self.flops, self.nbytes, none), topology, "latency")

    def gain(self, topology: Topology) -> float:
        """How many times less latency the best plan has than the best single tier; at least 1."""
        problem = self.problem(topology)
        solution = Replanner(problem).plan(topology.links)
        singles = min(problem.figures(cuts).latency_s for cuts in problem.single_tier)
        return singles / problem.figures(solution.cuts).latency_s


#: Keys of the ranges.
RANGES = ("edge_gflops", "faster", "bandwidth_mbps", "delay_ms")


def random_topologies(
    count: int, seed: int, ranges: Mapping[str, tuple[float, float]] | None = None
) -> list[Topology]:
    """Three tiers each, every figure log-uniform in its range.

    Args:
        count: How many.
        seed: Of the draws.
        ranges: Least and most of a figure, by its name in `RANGES`, in place of the one in
            `presets.toml`.
    """
    rng = np.random.default_rng(seed)
    bounds = {key: numbers(f"random.{key}") for key in RANGES} | dict(ranges or {})

    def draw(key: str) -> float:
        low, high = bounds[key]
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    found = []
    for _ in range(count):
        speeds = [draw("edge_gflops")]
        speeds += [speeds[-1] * draw("faster")]
        speeds += [speeds[-1] * draw("faster")]
        tiers = [{"name": f"tier{t}", "gflops": speed} for t, speed in enumerate(speeds)]
        links = [{"bandwidth_mbps": draw("bandwidth_mbps"), "delay_ms": draw("delay_ms")} for _ in speeds[1:]]
        found.append(parse_topology({"tier": tiers, "link": links}, "random"))
    return found
