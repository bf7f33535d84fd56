"""Idle power: counted as written down plainly, and every exact planner stays exact with it."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations_with_replacement, pairwise

import numpy as np
import pytest

from dnnsplit_onnx.errors import InfeasibleError, TopologyError
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Link, Topology
from dnnsplit_onnx.planning.choosing import problem_of
from dnnsplit_onnx.planning.planners import Problem, get_planner
from dnnsplit_onnx.planning.planners.dag import dag_optimum
from dnnsplit_onnx.work.analysis import Analysis
from tests import naive
from tests.dags import closed_sets
from tests.planning.planners.test_dag import figure, random_dag_problem
from tests.strategies import random_cuts, random_problem

exact, exhaustive = get_planner("exact"), get_planner("exhaustive")
LINK = Link(bandwidth_mbps=1, watts=1)


def with_idle(rng: np.random.Generator, topology: Topology) -> Topology:
    """The same tiers; about half of them draw power while they wait."""
    tiers = tuple(
        tier.model_copy(update={"idle_watts": float(rng.choice([0.0, 0.0, 0.1, 1.0, 7.5]))})
        for tier in topology.tiers
    )
    return topology.model_copy(update={"tiers": tiers})


def idle_problem(seed: int, tiers: int, objective: str, *, limited: bool = False) -> Problem:
    rng = np.random.default_rng([seed, tiers, len(objective), limited])
    problem = random_problem(rng, tiers, objective, limited=limited)
    return replace(problem, topology=with_idle(rng, problem.topology))


def test_a_device_waits_while_the_cloud_works_and_the_link_sends() -> None:
    pair = Topology(
        tiers=(Tier("edge", gflops=1, watts=5, idle_watts=2), Tier("cloud", gflops=1, watts=100)),
        links=(LINK,),
    )
    assert pair.tier_watts == (5, 102)
    assert pair.link_watts == (3,)
    unknown = pair.with_tier("cloud", watts=None).with_link(0, watts=None)
    assert unknown.tier_watts == (5, None)
    assert unknown.link_watts == (None,)


def test_a_changed_topology_draws_what_it_says() -> None:
    one = Topology(tiers=(Tier("edge", gflops=1, watts=5), Tier("cloud", gflops=1, watts=9)), links=(LINK,))
    assert one.tier_watts == (5, 9)
    assert one.with_tier("edge", idle_watts=1).tier_watts == (5, 10)


def test_energy_is_what_each_tier_draws_in_work_and_in_waiting() -> None:
    seen = 0
    for seed in range(200):
        problem = idle_problem(seed, 1 + seed % 5, "energy")
        cuts = random_cuts(np.random.default_rng(seed), problem)
        expected = naive.figures(cuts, problem.costs, problem.topology)["energy"]
        found = problem.figures(cuts)
        if not problem.is_known[list(cuts)].all():
            continue
        assert (found.energy_j is None) == (expected is None)
        if expected is not None:
            assert found.energy_j == pytest.approx(expected, rel=1e-12, abs=1e-18)
            seen += expected > 0 and any(tier.idle_watts for tier in problem.topology.tiers)
    assert seen > 20


@pytest.mark.parametrize("limited", [False, True], ids=["free", "limited"])
@pytest.mark.parametrize("objective", ["energy", "weighted", "latency"])
def test_exact_matches_exhaustive(objective: str, limited: bool) -> None:
    planned = 0
    for seed in range(60):
        problem = idle_problem(seed, 2 + seed % 4, objective, limited=limited)
        values = []
        for planner in (exact, exhaustive):
            try:
                values.append(problem.figures(planner(problem).cuts).value(problem.objective))
            except (InfeasibleError, TopologyError):
                values.append(None)
        assert values[0] == values[1], f"seed {seed}"  # to the last bit, as without idle power
        planned += values[0] is not None
    assert planned > 10


def test_the_bound_over_the_dag_is_the_best_of_all_chains_of_sets() -> None:
    moved = 0
    for seed in range(60):
        problem, analysis = random_dag_problem(seed, "energy")
        topology = with_idle(np.random.default_rng(seed), problem.topology)
        closed = sorted(closed_sets(analysis), key=len)
        chains = [
            chain
            for chain in combinations_with_replacement(closed, len(topology.links))
            if all(low <= high for low, high in pairwise(chain))
        ]
        best = min(energy(chain, analysis, topology) for chain in chains)
        optimum = dag_optimum(problem_of(analysis, topology, "energy"), analysis)
        assert optimum is not None
        assert optimum.value == pytest.approx(best, rel=1e-9)
        moved += best > min(figure(chain, analysis, topology, "energy") for chain in chains)
    assert moved > 10  # idle power counted


def energy(sets: tuple[frozenset[int], ...], analysis: Analysis, topology: Topology) -> float:
    """Energy of a plan of any downward-closed sets: each tier idles but for its own seconds."""
    everything = frozenset(range(len(analysis.graph.nodes)))
    total = figure(sets, analysis, topology, "energy")
    latency = figure(sets, analysis, topology, "latency")
    for tier, below, above in zip(topology.tiers, (frozenset(), *sets), (*sets, everything), strict=True):
        busy = sum(int(analysis.flops[at]) for at in above - below) / (tier.gflops * 1e9)
        total += tier.idle_watts * (latency - busy)
    return total


def test_neurosurgeon_leaves_waiting_out_as_published() -> None:
    for seed in range(40):
        problem = idle_problem(seed, 2, "energy")
        tier, link = problem.topology.tiers[0], problem.topology.links[0]
        if tier.watts is None or link.watts is None:
            continue
        plain = tuple(one.model_copy(update={"idle_watts": 0.0}) for one in problem.topology.tiers)
        busy = replace(problem, topology=problem.topology.model_copy(update={"tiers": plain}))
        planner = get_planner("neurosurgeon")
        assert planner(problem).cuts == planner(busy).cuts
