"""Planner `coedge`: rows in one proportion for the whole network, as Zeng et al. share them.

L. Zeng, X. Chen, Z. Zhou, L. Yang and J. Zhang, "CoEdge: Cooperative DNN inference with adaptive
workload partitioning over heterogeneous edge devices", IEEE/ACM Transactions on Networking 2021,
arXiv 2012.03257. Devices share the rows of the input in proportions lambda_i that hold for every
layer; after each layer a device fetches the rows of padding that it lacks from its neighbour. The
proportions solve a linear program, whose constraint that a device has no rows or at least as many
as the padding is relaxed first and restored by a threshold: devices below it are taken out, and
the program is solved again for the others.

Public are the abstract and summaries; what is assumed:

1. The published program minimises energy under a deadline. Devices here have no watts of their
   own, so the least latency is what is minimised: the program is then
   min T with lambda_i (C_i + X_i) <= T and sum of lambda_i = 1, C_i being device i's seconds for
   all rows and X_i those of sending it all rows of the input (none for the first device). Its
   solution is in closed form: lambda_i in proportion to 1 / (C_i + X_i).
2. The threshold is the largest share that the padding of one layer is of its rows. Of the
   devices below it the one with the smallest share is taken out first.
3. All layers that rows can be followed through are shared, the others run on the first device,
   and nothing runs on tiers above.
4. Devices of this package do not talk to each other during a region: rows of padding are computed
   again. So the plan is judged by that, and a note says what exchanging them would have taken.
"""

from __future__ import annotations

import numpy as np

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.planning.planners.published.pairs import need_objective
from dnnsplit_onnx.planning.problem import Problem, Solution
from dnnsplit_onnx.planning.sharing import share_fixed
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.tiling import Region, longest_region
from dnnsplit_onnx.work.tiling.rows import Window

_NAME = "coedge"


def plan(problem: Problem) -> Solution:
    """Rows in the proportions of the relaxed program, thresholded.

    Raises:
        InputError: The objective is not latency, or tier 0 is one machine.
    """
    need_objective(problem, _NAME, "latency")
    tier, rows, analysis = problem.topology.tiers[0], problem.costs.rows, problem.analysis
    if rows is None or analysis is None or tier.lan is None:
        raise InputError(
            f"planner `{_NAME}` shares rows among machines, and tier `{tier.name}` is one",
            hint="name several, [[tier.machine]], or use planner `exact`",
        )
    regions = _regions(analysis)
    per_byte = 8 / (tier.lan.bandwidth_mbps * 1e6)
    inputs = sum(analysis.types.nbytes(name) or 0 for region in regions for name in region.inputs)
    seconds = rows.below[:, -1] + per_byte * inputs * (np.arange(len(rows.below)) > 0)
    proportions = _thresholded(seconds, _padding(regions))
    shared = share_fixed(analysis, tier, rows.machines_s, proportions)
    exchanged = _exchanged(analysis, regions, rows.below, proportions, per_byte, tier.lan.delay_ms / 1e3)
    kept = sum(share > 0 for share in proportions)
    note = (
        f"{kept} of {len(proportions)} machines have rows; with the rows of padding exchanged after each "
        f"layer, as published, they would take {exchanged * 1e3:.4g} ms"
    )
    cuts = (problem.costs.size,) * len(problem.topology.links)
    return Solution(cuts, "none", 1, (note,), rows=shared)


def _regions(analysis: Analysis) -> list[Region]:
    regions, at = [], 0
    while at < len(analysis.graph.nodes):
        region = longest_region(analysis.graph, analysis.types, at)
        at = at + 1 if region is None else region.stop
        regions += [] if region is None else [region]
    return regions


def _padding(regions: list[Region]) -> float:
    """The largest share that the padding of one layer is of its rows."""
    shares = [
        (step.motion.extent // 2) / step.input_height
        for region in regions
        for step in region.steps
        if isinstance(step.motion, Window)
    ]
    return max(shares, default=0.0)


def _thresholded(seconds: np.ndarray, least: float) -> list[float]:
    """Proportions of the program, machines below the threshold taken out one by one."""
    alive = np.ones(len(seconds), dtype=np.bool_)
    while True:
        speeds = np.where(alive, 1 / np.maximum(seconds, 1e-30), 0.0)
        proportions = speeds / speeds.sum()
        below = alive & (proportions < least)
        if not below.any() or alive.sum() == 1:
            return [float(share) for share in proportions]
        alive[np.argmin(np.where(below, proportions, np.inf))] = False


def _exchanged(
    analysis: Analysis,
    regions: list[Region],
    below: np.ndarray,
    proportions: list[float],
    per_byte: float,
    delay_s: float,
) -> float:
    """Seconds by the published pattern: layer by layer, padding fetched in between."""
    each = np.diff(below, axis=1)
    total = float(below[0, -1])
    others = sum(share > 0 for share in proportions[1:])
    for region in regions:
        total -= float(each[0, region.start : region.stop].sum())
        ends = (*region.inputs, *region.outputs)
        moved = sum(analysis.types.nbytes(name) or 0 for name in ends) * sum(proportions[1:])
        total += per_byte * moved + 2 * delay_s * others
        for step in region.steps:
            total += max(share * row[step.position] for share, row in zip(proportions, each, strict=True))
            if others and isinstance(step.motion, Window) and step.motion.extent > 1:
                nbytes = analysis.types.nbytes(step.reads[0][1]) or 0
                total += per_byte * nbytes * (step.motion.extent // 2) / step.input_height + delay_s
    return total
