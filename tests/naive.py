"""Section 3 of the design written down a second time, as plainly as it reads.

Nothing here uses the package's planners or objective: exact fractions, one node and one
link at a time. What floats the topology gives are taken at their word.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.costs import CostTable


def figures(cuts: Sequence[int], costs: CostTable, topology: Topology) -> dict[str, float | None]:
    """Latency, cost, throughput and energy of a plan whose cuts are all of known size."""
    size = costs.size
    bounds = [0, *cuts, size]
    latency = cost = energy = slowest = Fraction(0)
    energy_known = True
    waited = [Fraction(0) for _ in topology.tiers]  # what each tier waits for others
    for t, tier in enumerate(topology.tiers):
        seconds = Fraction(0)
        for node in range(bounds[t], bounds[t + 1]):
            seconds += Fraction(costs.seconds_below[t][node + 1]) - Fraction(costs.seconds_below[t][node])
        latency += seconds
        cost += seconds * Fraction(tier.usd_per_hour) / 3600
        slowest = max(slowest, seconds)
        if seconds and tier.watts is None:
            energy_known = False
        energy += seconds * Fraction(tier.watts or 0)
        waited = [so_far + (seconds if other != t else 0) for other, so_far in enumerate(waited)]
    for t, link in enumerate(topology.links):
        cut = cuts[t]
        seconds, nbytes = Fraction(0), 0
        if cut < size:  # a node remains above
            nbytes += int(costs.up_nbytes[cut])
            seconds += (
                Fraction(8 * nbytes) / (Fraction(link.bandwidth_mbps) * 10**6)
                + Fraction(link.delay_ms) / 1000
            )
        if topology.limits.return_output and costs.down_nbytes[cut] > 0:
            back = int(costs.down_nbytes[cut])
            rate = Fraction(link.down_mbps or link.bandwidth_mbps) * 10**6
            seconds += Fraction(8 * back) / rate + Fraction(link.delay_ms) / 1000
            nbytes += back
        latency += seconds
        slowest = max(slowest, seconds)
        if link.usd_per_gb is not None:
            cost += Fraction(nbytes, 10**9) * Fraction(link.usd_per_gb)
        else:
            cost += seconds * Fraction(link.usd_per_hour or 0) / 3600
        if seconds and link.watts is None:
            energy_known = False
        energy += seconds * Fraction(link.watts or 0)
        waited = [so_far + seconds for so_far in waited]
    energy += sum(Fraction(tier.idle_watts) * s for tier, s in zip(topology.tiers, waited, strict=True))
    return {
        "latency": float(latency),
        "cost": float(cost),
        "throughput": float(1 / slowest) if slowest else float("inf"),
        "energy": float(energy) if energy_known else None,
    }
