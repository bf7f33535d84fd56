"""The one objective: what any plan takes, whoever made it.

With K tiers, cuts S_0 <= ... <= S_{K-2} (positions along the graph's order), and D(S) the
bytes that cross S (design, section 3; Kayal & Leon-Garcia, IEEE Access 2024, eqs. 1-11,
16-24 with their faults corrected):

- a stage takes P_t(S_t) - P_t(S_{t-1}) seconds, P_t being the seconds of a prefix;
- link t takes 8 D(S_t) / bandwidth_t + delay_t if any node remains above S_t, else 0, and
  the same for the outputs made above it, if they must return;
- latency is the sum of all, cost and energy the weighted sums, throughput one over the
  largest.

Sums are correctly rounded (`math.fsum`), so they do not depend on the order of their terms:
plans that tie in exact arithmetic tie here, and a limit exactly at a plan's figure is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.costs import CostTable
from dnnsplit_onnx.cuts import UNKNOWN
from dnnsplit_onnx.errors import PlanError
from dnnsplit_onnx.plans import Figures, Plan, Stage, Transfer
from dnnsplit_onnx.topology import Limits, Link, Topology


def evaluate(plan: Plan | Sequence[int], costs: CostTable, topology: Topology) -> Figures:
    """What one request takes under a plan.

    Args:
        plan: A plan, or its cuts: the position that each link crosses, from tier 0 up.
        costs: The costs of the graph on the topology's tiers.
        topology: The tiers and links.

    Raises:
        PlanError: The cuts are not as many as the links, or not ascending positions of
            the graph.
    """
    cuts = tuple(plan.cuts if isinstance(plan, Plan) else plan)
    bounds = (0, *cuts, costs.size)
    if len(cuts) != len(topology.link):
        raise PlanError(f"a plan over {len(topology.tier)} tiers has {len(topology.link)} cuts, not {len(cuts)}")
    if any(low > high for low, high in zip(bounds, bounds[1:], strict=False)):
        raise PlanError(f"cuts {list(cuts)} are not ascending positions from 0 to {costs.size}")

    stages = tuple(_stage(t, bounds[t], bounds[t + 1], costs, topology) for t in range(len(topology.tier)))
    links = tuple(_transfer(t, cuts[t], costs, topology) for t in range(len(topology.link)))
    steps = [part.seconds for part in (*stages, *links)]
    energies = [part.energy_j for part in (*stages, *links) if part.seconds != 0]
    return Figures(
        stages=stages,
        links=links,
        latency_s=_latency(bounds, costs, links),
        cost_usd=math.fsum(part.cost_usd for part in (*stages, *links)),
        throughput_per_s=_throughput(steps),
        energy_j=None if None in energies else math.fsum(e for e in energies if e is not None),
    )


def violations(figures: Figures, limits: Limits) -> tuple[str, ...]:
    """The limits that a plan breaks, each as a sentence that says by how much."""
    broken = []
    # In the user's own unit, so that a limit copied from a report is met exactly.
    for what, value, limit, unit in (
        ("latency", figures.latency_s * 1e3, limits.deadline_ms, "ms"),
        ("cost", figures.cost_usd, limits.budget_usd, "USD"),
        ("energy", math.nan if figures.energy_j is None else figures.energy_j, limits.energy_j, "J"),
    ):
        if limit is None or value <= limit:
            continue
        if math.isnan(value):
            broken.append(f"{what} is unknown, and limited to {limit:.6g} {unit}")
        else:
            broken.append(f"{what} {value:.6g} {unit} exceeds {limit:.6g} {unit} by {value - limit:.3g} {unit}")
    return tuple(broken)


def link_seconds(link: Link, costs: CostTable, return_output: bool) -> NDArray[np.float64]:
    """Seconds that a link is busy for each cut.

    Returns:
        Shape (n + 1,); NaN where the size of what crosses is unknown.
    """
    up = np.where(costs.up_nbytes == UNKNOWN, np.nan, costs.up_nbytes)
    seconds = 8 * up / (link.bandwidth_mbps * 1e6) + link.delay_ms / 1e3
    seconds[-1] = 0.0  # no node remains above the last position
    if return_output:
        down = np.where(costs.down_nbytes == UNKNOWN, np.nan, costs.down_nbytes)
        rate = (link.down_mbps or link.bandwidth_mbps) * 1e6
        seconds = seconds + np.where(down == 0, 0.0, 8 * down / rate + link.delay_ms / 1e3)
    return seconds


def link_cost_usd(
    link: Link, costs: CostTable, return_output: bool, seconds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Price of a link for each cut, shape (n + 1,); `seconds` as `link_seconds` gives them."""
    if link.usd_per_gb is None:
        return seconds * ((link.usd_per_hour or 0.0) / 3600.0)
    nbytes = np.where(costs.up_nbytes == UNKNOWN, np.nan, costs.up_nbytes)
    nbytes[-1] = 0.0
    if return_output:
        nbytes = nbytes + np.where(costs.down_nbytes == UNKNOWN, np.nan, costs.down_nbytes)
    return nbytes * (link.usd_per_gb / 1e9)


def _stage(t: int, start: int, stop: int, costs: CostTable, topology: Topology) -> Stage:
    tier = topology.tier[t]
    below = costs.seconds_below[t]
    seconds = float(below[stop] - below[start])
    energy = None if tier.watts is None else tier.watts * seconds
    flops = int(costs.flops_below[stop] - costs.flops_below[start])
    return Stage(tier.name, start, stop, flops, seconds, tier.usd_per_s * seconds, energy)


def _transfer(t: int, cut: int, costs: CostTable, topology: Topology) -> Transfer:
    link = topology.link[t]
    back = topology.limits.return_output
    one = CostTable(  # the last two positions of a graph are all that one cut needs
        costs.seconds_below[:, :0],
        costs.flops_below[[cut, -1]],
        costs.up_nbytes[[cut, -1]],
        costs.down_nbytes[[cut, -1]],
    )
    at = 1 if cut == costs.size else 0
    times = link_seconds(link, one, back)
    seconds = float(times[at])
    price = float(link_cost_usd(link, one, back, times)[at])
    up = int(costs.up_nbytes[cut]) if cut < costs.size else 0
    down = int(costs.down_nbytes[cut]) if back else 0
    names = topology.names
    energy = None if link.watts is None else link.watts * seconds
    return Transfer(
        names[t], names[t + 1], cut, None if up == UNKNOWN else up, max(down, 0), seconds, price, energy
    )


def _latency(bounds: tuple[int, ...], costs: CostTable, links: tuple[Transfer, ...]) -> float:
    terms = [link.seconds for link in links]
    for t, below in enumerate(costs.seconds_below):
        terms += [float(below[bounds[t + 1]]), -float(below[bounds[t]])]
    return math.fsum(terms)


def _throughput(steps: list[float]) -> float:
    if any(math.isnan(step) for step in steps):
        return math.nan
    slowest = max(steps)
    return 1.0 / slowest if slowest > 0 else math.inf
