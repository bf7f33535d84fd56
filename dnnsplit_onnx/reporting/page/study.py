"""What the page's script explores: the figures that `evaluate` needs, at every position, as JSON.

`pricing.js` prices and plans with these as `planning.objective` and planner `exact` do along the
order; a test holds the two against each other in a browser.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.planning.problem import Problem
from dnnsplit_onnx.planning.waiting import Station, link_station, tier_station
from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.page.markup import Markup
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.cuts import UNKNOWN

#: Of more positions, the candidates, the plan's cuts and others evenly between them are explored.
MOST_POSITIONS = 4000


def study_of(problem: Problem, plan: Plan) -> dict[str, Any]:
    """The figures of a problem, JSON-ready.

    Args:
        problem: What the plan answers.
        plan: The plan that the page is about.
    """
    topology, costs = problem.topology, problem.costs
    at = positions(problem, plan)
    objective = "latency" if plan.objective in ("custom", "ttft", "tpot") else plan.objective
    limits = topology.limits
    return {
        "size": costs.size,
        "passes": costs.passes,
        "at": at.tolist(),
        "objective": objective,
        "cuts": list(plan.cuts),
        "flops": costs.flops_below[at].tolist(),
        "up": costs.up_nbytes[at].tolist(),
        "down": costs.down_nbytes[at].tolist(),
        "tiers": [_tier(problem, t, at) for t in range(len(topology.tiers))],
        "links": [_link(problem, t, at) for t in range(len(topology.links))],
        "limits": {
            "latency": _scaled(limits.deadline_ms, 1e3),
            "cost": limits.budget_usd,
            "energy": limits.energy_j,
            "throughput": limits.throughput_per_s,
        },
        "back": limits.returns,
        "weights": None if problem.weights is None else problem.weights.to_dict(),
    }


def positions(problem: Problem, plan: Plan) -> np.ndarray:
    """The positions that are explored, ascending, 0 and n among them."""
    size = problem.costs.size
    if size < MOST_POSITIONS:
        return np.arange(size + 1)
    spread = np.linspace(0, size, MOST_POSITIONS // 2).astype(np.intp).tolist()
    return np.array(sorted({*spread, *problem.candidates[: MOST_POSITIONS // 2], *plan.cuts, 0, size}))


def _scaled(limit: float | None, factor: float) -> float | None:
    return None if limit is None else limit / factor


def _tier(problem: Problem, t: int, at: np.ndarray) -> dict[str, Any]:
    tier, costs = problem.topology.tiers[t], problem.costs
    by_flops = tier.cost_model == "gflops" and not costs.is_custom and len(tier.machines) < 2
    window = problem.windows(())[t]
    speed = tier.singles[0].gflops if by_flops else None
    return {
        "name": tier.name,
        "gflops": speed,
        "below": None if by_flops else costs.seconds_below[t, at].tolist(),
        "usd_per_s": tier.usd_per_s,
        "fee": costs.passes * tier.usd_per_request,
        "watts": problem.topology.tier_watts[t],
        "station": _station(tier_station(problem.topology, t)),
        "first": None if window is None else np.searchsorted(at, window[at]).tolist(),
    }


def _link(problem: Problem, t: int, at: np.ndarray) -> dict[str, Any]:
    link, is_open = problem.topology.links[t], problem.open[t, at]
    return {
        "mbps": link.bandwidth_mbps,
        "down_mbps": link.down_mbps,
        "delay_ms": link.delay_ms,
        "usd_per_s": (link.usd_per_hour or 0.0) / 3600.0,
        "usd_per_gb": link.usd_per_gb,
        "watts": problem.topology.link_watts[t],
        "station": _station(link_station(problem.topology, t)),
        "closed": np.flatnonzero(~is_open).tolist(),
    }


def _station(station: Station) -> dict[str, float]:
    return {"servers": station.servers, "capacity": station.capacity, "rate": station.requests_per_s}


def tensors_of(analysis: Analysis) -> dict[str, Any]:
    """The nodes, and the values between them: who makes each and who reads it.

    Returns:
        `nodes`: operator and name of each position. `kinds`: types and shapes in words.
        `values`: name, place of its kind, bytes, the position from which on it is made, the
        positions that read it, and whether it is a state that stays where it is read. Of a name
        that begins with that of the node that makes it, a list holds what follows.
    """
    graph, types = analysis.graph, analysis.types
    readers: dict[str, list[int]] = {}
    for at, node in enumerate(graph.nodes):
        for value in dict.fromkeys(node.inputs):
            readers.setdefault(value, []).append(at)
    kept = {state.input for state in graph.states}
    kinds: dict[str, int] = {}
    values = []
    for name in graph.values:
        kind = types[name]
        shape = "?" if kind.shape is None else " x ".join("?" if d is None else str(d) for d in kind.shape)
        nbytes, made = analysis.link_nbytes(name), graph.producer.get(name, -1)
        maker = units.clean(graph.nodes[made].name) if made >= 0 else ""
        said = units.clean(name)
        values.append(
            [
                [said.removeprefix(maker)] if maker and said.startswith(maker) else said,
                kinds.setdefault(f"{kind.dtype_name or kind.kind} {shape or 'scalar'}", len(kinds)),
                UNKNOWN if nbytes is None else nbytes,
                made + 1,
                readers.get(name, []),
                int(name in kept),
            ]
        )
    nodes = [[units.clean(node.op_type), units.clean(node.name)] for node in graph.nodes]
    return {"nodes": nodes, "kinds": list(kinds), "values": values}


def as_script(data: dict[str, Any]) -> Markup:
    """Data as JSON that cannot end the element it stands in."""
    written = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return Markup(written.replace("<", "\\u003c"))


def settings_now(topology: Topology) -> dict[str, Any]:
    """The settings that the sliders start from, as `pricing.js` takes them."""
    links: Sequence[Any] = topology.links
    return {
        "speed": [1.0] * len(topology.tiers),
        "mbps": [link.bandwidth_mbps for link in links],
        "down_mbps": [link.down_mbps for link in links],
        "delay_ms": [link.delay_ms for link in links],
        "back": topology.limits.returns,
    }
