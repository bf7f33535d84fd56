"""Random problems: cost tables, topologies and limits, from a seed or drawn by hypothesis.

Figures are small whole numbers times a scale more often than not, so that ties, idle nodes,
equal tiers and limits that are met exactly are common.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Limits, Link, Topology
from dnnsplit_onnx.planning.costs import CostTable
from dnnsplit_onnx.planning.planners import Problem
from dnnsplit_onnx.planning.weights import Weights
from dnnsplit_onnx.work.cuts import UNKNOWN
from dnnsplit_onnx.work.memory import StageMemory

#: The most nodes for each number of tiers, so that every combination can be tried.
NODES = {1: 8, 2: 10, 3: 9, 4: 7, 5: 6, 6: 5, 7: 4, 8: 4}
OBJECTIVES = ("latency", "cost", "throughput", "energy")
ALL_OBJECTIVES = (*OBJECTIVES, "weighted")


def random_costs(
    rng: np.random.Generator, size: int, rates: list[float], *, measured: bool = False
) -> CostTable:
    """Costs of `size` nodes; `measured` gives each node and tier seconds of its own."""
    flops = rng.integers(0, 6, size) * int(rng.choice([1, 10**9]))
    below = np.concatenate(([0], np.cumsum(flops))).astype(np.int64)
    seconds = below / (np.array(rates)[:, None] * 1e9)
    if measured:
        each = rng.random((len(rates), size)) * rng.choice([1e-3, 1, 1e3])
        seconds = np.concatenate((np.zeros((len(rates), 1)), np.cumsum(each, axis=1)), axis=1)
    up = rng.integers(0, 8, size + 1) * int(rng.choice([1, 10**6]))
    up[-1] = 0
    if size and rng.random() < 0.2:
        up[rng.integers(0, size)] = UNKNOWN
    outputs = rng.integers(0, 3, size) * (rng.random(size) < 0.3)
    down = np.concatenate((np.cumsum(outputs[::-1])[::-1], [0]))
    return CostTable(seconds, below, up.astype(np.int64), down.astype(np.int64))


def random_memory(rng: np.random.Generator, size: int) -> StageMemory:
    """What stages need, with shared weights and outputs that lie idle."""
    reads = rng.integers(0, 3, size)
    outputs = [
        (made, int(rng.integers(made + 1, size + 1)), float(rng.integers(0, 5)))
        for made in np.flatnonzero(rng.random(size) < 0.3).tolist()
    ]
    return StageMemory(
        held=rng.integers(0, 9, size).astype(np.float64),
        weight_ends=np.concatenate(([0], np.cumsum(reads))),
        weight_ids=rng.integers(0, 4, int(reads.sum())),
        weight_nbytes=rng.integers(0, 9, 4).astype(np.float64),
        outputs=tuple(outputs),
    )


def random_topology(rng: np.random.Generator, count: int, *, ascending: bool = False) -> Topology:
    """A line of `count` tiers; `ascending` ones keep the paper's equations 12 to 14."""
    rates = rng.choice([0.5, 1.0, 2.0, 3.0, 7.0, 10.0, 100.0], count)
    scale = float(rng.choice([0.0, 1.0, 1e4]))
    prices = rng.integers(0, 5, count) * scale
    if ascending:
        rates = np.sort(rates)
        per_flop = np.sort(rng.permutation(20)[:count] + 1.0)[::-1]
        prices = per_flop * rates
    tiers = [
        Tier(
            name=f"tier{t}",
            gflops=float(rates[t]),
            usd_per_hour=float(prices[t]),
            watts=_maybe(rng, 0.8, float(rng.integers(0, 5))),
        )
        for t in range(count)
    ]
    links = [
        _random_link(rng, 1.0 if ascending else scale, low=1 if ascending else 0) for _ in range(count - 1)
    ]
    back = bool(rng.random() < 0.3)
    return Topology(tiers=tuple(tiers), links=tuple(links), limits=Limits(return_output=back))


def _random_link(rng: np.random.Generator, scale: float, low: int) -> Link:
    kind = rng.random()
    return Link(
        bandwidth_mbps=float(rng.choice([1.0, 8.0, 100.0])),
        down_mbps=_maybe(rng, 0.3, float(rng.choice([1.0, 5.0]))),
        delay_ms=float(rng.choice([0.0, 1.0, 1000.0])),
        usd_per_hour=float(rng.integers(low, 5)) * scale if kind < 0.4 + low else None,
        usd_per_gb=float(rng.integers(0, 5)) if kind > 0.8 and not low else None,
        watts=_maybe(rng, 0.9, float(rng.integers(0, 3))),
    )


def random_problem(rng: np.random.Generator, tiers: int, objective: str, *, limited: bool) -> Problem:
    """A problem small enough to try everything; its limits are met exactly by some plan."""
    size = int(rng.integers(0, NODES[tiers] + 1))
    topology = random_topology(rng, tiers, ascending=bool(rng.random() < 0.3))
    rates = [tier.gflops for tier in topology.tiers]
    costs = random_costs(rng, size, rates, measured=bool(rng.random() < 0.3))
    weights = random_weights(rng) if objective == "weighted" else None
    problem = Problem(costs, topology, objective, weights=weights)  # type: ignore[arg-type]
    return with_random_limits(rng, problem) if limited else problem


def random_weights(rng: np.random.Generator) -> Weights:
    """Weights of which some are often 0, as prices are; energy is often unknown."""
    chosen = {name: float(rng.choice([0.0, 1.0, 0.1, 1e3])) for name in ("latency", "cost", "energy")}
    if not any(chosen.values()):
        chosen["latency"] = 1.0
    return Weights.of(chosen)


def with_random_limits(rng: np.random.Generator, problem: Problem) -> Problem:
    """The problem with limits, each taken from some plan's own figure, some a little off."""
    limits: dict[str, Any] = {}
    for key, probability in (("deadline_ms", 0.5), ("budget_usd", 0.5), ("energy_j", 0.3)):
        figures = problem.figures(random_cuts(rng, problem))
        value = {
            "deadline_ms": figures.latency_s * 1e3,
            "budget_usd": figures.cost_usd,
            "energy_j": figures.energy_j,
        }[key]
        if rng.random() < probability and value is not None and 0 < value < math.inf:
            limits[key] = value * float(rng.choice([1, 1, 1, 0.8, 1.3]))
    topology = problem.topology.with_limits(**limits)
    limited = replace(problem, topology=topology)
    return _with_random_rules(rng, limited) if rng.random() < 0.4 else limited


def _with_random_rules(rng: np.random.Generator, problem: Problem) -> Problem:
    """Memory, caps on links, and closed positions."""
    costs, topology = problem.costs, problem.topology
    memory = random_memory(rng, costs.size)
    tiers = []
    for tier in topology.tiers:
        start, stop = sorted(rng.integers(0, costs.size + 1, 2).tolist())
        need = memory.nbytes(start, stop)
        tiers.append(tier.model_copy(update={"memory_gb": _maybe(rng, 0.5, (need or 9) / 1e9)}))
    cap = float(costs.up_nbytes[rng.integers(0, costs.size + 1)]) / 1e6
    links = [link.model_copy(update={"max_mb": _maybe(rng, 0.2, max(cap, 0.0))}) for link in topology.links]
    allowed = rng.random((len(links), costs.size + 1)) < 0.8 if rng.random() < 0.5 else None
    topology = topology.model_copy(update={"tiers": tuple(tiers), "links": tuple(links)})
    return replace(problem, costs=replace(costs, memory=memory), topology=topology, allowed=allowed)


def random_cuts(rng: np.random.Generator, problem: Problem) -> list[int]:
    """Any plan."""
    return sorted(rng.integers(0, problem.costs.size + 1, len(problem.topology.links)).tolist())


def _maybe(rng: np.random.Generator, probability: float, value: float) -> float | None:
    return value if rng.random() < probability else None


generators = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@st.composite
def problems(
    draw: st.DrawFn, *, ascending: bool = False, objectives: tuple[str, ...] = OBJECTIVES, max_tiers: int = 8
) -> Problem:
    """Problems without limits; `ascending` ones keep the paper's equations 12 to 14."""
    rng = draw(generators)
    tiers = draw(st.integers(1, max_tiers))
    size = draw(st.integers(0, NODES[tiers]))
    topology = random_topology(rng, tiers, ascending=ascending)
    costs = random_costs(rng, size, [tier.gflops for tier in topology.tiers])
    return Problem(costs, topology, draw(st.sampled_from(objectives)))  # type: ignore[arg-type]
