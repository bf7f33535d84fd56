"""The optimum over the DAG, against every chain of downward-closed sets."""

from __future__ import annotations

import json
from itertools import combinations_with_replacement, pairwise

import numpy as np
import pytest

from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Link, Topology
from dnnsplit_onnx.planning.choosing import plan, problem_of
from dnnsplit_onnx.planning.planners import get_planner
from dnnsplit_onnx.planning.planners.bounds import lower_bound, slowest_step_bound
from dnnsplit_onnx.planning.planners.dag import dag_optimum, gap_above
from dnnsplit_onnx.planning.planners.exact import along_order
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.planning.problem import Problem
from dnnsplit_onnx.work.analysis import Analysis, measure
from dnnsplit_onnx.work.orders import in_order
from tests.conftest import light
from tests.dags import closed_sets, live_nbytes, output_nbytes_above, random_workload, with_states
from tests.strategies import random_topology

exact = get_planner("exact")


def figure(sets: tuple[frozenset[int], ...], analysis: Analysis, topology: Topology, measure: str) -> float:
    """What a plan of any downward-closed sets takes, from the design's section 3."""
    everything = frozenset(range(len(analysis.graph.nodes)))
    total = 0.0
    for tier, below, above in zip(topology.tiers, (frozenset(), *sets), (*sets, everything), strict=True):
        seconds = sum(int(analysis.flops[at]) for at in above - below) / (tier.gflops * 1e9)
        total += seconds * price(tier, measure)
    for link, below in zip(topology.links, sets, strict=True):
        up, seconds, down = 0, 0.0, 0
        if below != everything:
            up = live_nbytes(analysis, below)
            seconds = 8 * up / (link.bandwidth_mbps * 1e6) + link.delay_ms / 1e3
        if topology.limits.return_output and (down := output_nbytes_above(analysis, below)):
            seconds += 8 * down / ((link.down_mbps or link.bandwidth_mbps) * 1e6) + link.delay_ms / 1e3
        if measure == "cost" and link.usd_per_gb is not None:
            total += (up + down) * link.usd_per_gb / 1e9
        else:
            total += seconds * price(link, measure)
    return total


def price(part: Tier | Link, measure: str) -> float:
    """What a second of a tier or link takes."""
    return {"latency": 1.0, "cost": (part.usd_per_hour or 0.0) / 3600, "energy": part.watts or 0.0}[measure]


def random_dag_problem(seed: int, measure: str) -> tuple[Problem, Analysis]:
    """Speeds and delays scaled so that a few FLOPs and a few bytes weigh about the same."""
    rng = np.random.default_rng([seed, len(measure)])
    count = int(rng.integers(1, 4))
    analysis = random_workload(rng, int(rng.integers(1, 7 if count == 3 else 9)))
    if seed % 3 == 0:
        analysis = with_states(rng, analysis)
    topology = random_topology(rng, count, ascending=bool(rng.random() < 0.6))
    tiers = [
        tier.model_copy(update={"gflops": tier.gflops / 1e3, "watts": 1.0 + t})
        for t, tier in enumerate(topology.tiers)
    ]
    links = [
        link.model_copy(update={"delay_ms": link.delay_ms / 1e5, "watts": float(rng.integers(0, 9))})
        for link in topology.links
    ]
    topology = topology.model_copy(update={"tiers": tuple(tiers), "links": tuple(links)})
    return problem_of(analysis, topology, measure), analysis  # type: ignore[arg-type]


@pytest.mark.parametrize("measure", ["latency", "cost", "energy"])
def test_is_the_best_of_all_chains_of_sets(measure: str) -> None:
    reached = beyond = 0
    for seed in range(120):
        problem, analysis = random_dag_problem(seed, measure)
        closed = list(closed_sets(analysis))
        chains = [
            chain
            for chain in combinations_with_replacement(sorted(closed, key=len), len(problem.topology.links))
            if all(low <= high for low, high in pairwise(chain))
        ]
        best = min(figure(chain, analysis, problem.topology, measure) for chain in chains)
        optimum = dag_optimum(problem, analysis)
        assert optimum is not None
        assert optimum.value == pytest.approx(best, rel=1e-9)
        reached_by = figure(optimum.sets, analysis, problem.topology, measure)
        assert reached_by == pytest.approx(best, rel=1e-9)
        gap = gap_above(optimum.value, problem, problem.figures(along_order(problem).cuts))
        reached, beyond = reached + (gap == 0), beyond + (gap > 0)
    assert reached  # the order alone is often enough
    assert beyond  # and not always


def test_envelope_order_holds_the_optimum_where_the_tiers_keep_equation_12() -> None:
    """For work in proportion to FLOPs, prefixes of the envelope order are all it takes."""
    for seed in range(150):
        problem, analysis = random_dag_problem(seed, "latency")
        speeds = [tier.gflops for tier in problem.topology.tiers]
        if problem.topology.limits.return_output or speeds != sorted(speeds):
            continue
        ordered = in_order(analysis, "envelope")
        best = problem_of(ordered, problem.topology, "latency")
        optimum = dag_optimum(best, ordered)
        assert optimum is not None
        assert gap_above(optimum.value, best, best.figures(along_order(best).cuts)) == 0


def test_with_outputs_that_return_the_envelope_is_not_enough_and_exact_knows() -> None:
    """By brute force over all chains of closed sets: the order may miss the best plan, `exact` does not."""
    missed = 0
    for seed in range(200):
        problem, analysis = random_dag_problem(seed, "latency")
        speeds = [tier.gflops for tier in problem.topology.tiers]
        if not problem.topology.limits.return_output or speeds != sorted(speeds) or len(speeds) < 2:
            continue
        ordered = in_order(analysis, "envelope")
        here = problem_of(ordered, problem.topology, "latency")
        closed = sorted(closed_sets(ordered), key=len)
        chains = combinations_with_replacement(closed, len(here.topology.links))
        best = min(
            figure(chain, ordered, here.topology, "latency")
            for chain in chains
            if all(low <= high for low, high in pairwise(chain))
        )
        along = here.figures(along_order(here).cuts).latency_s
        found = exact(here)
        mine = here.in_order(found.order).figures(found.cuts).latency_s
        assert found.optimality == "dag"
        assert mine == pytest.approx(best, rel=1e-9)
        missed += along > best * (1 + 1e-9)
    assert missed


def test_throughput_bound_holds() -> None:
    for seed in range(40):
        problem, _ = random_dag_problem(seed, "latency")
        wide = problem.with_objective("throughput")
        found = exact(wide)
        figures = wide.in_order(found.order).figures(found.cuts)
        bound = slowest_step_bound(wide)
        assert bound <= 1 / figures.throughput_per_s
        assert gap_above(bound, wide, figures) >= 0


def test_throughput_bound_knows_links_and_replicas() -> None:
    """Against the optimum over all downward-closed sets, where slow links decide."""
    bounds, nodes_alone, tried = 0.0, 0.0, 0
    for seed in range(60):
        problem, _ = random_dag_problem(seed, "latency")
        topology = problem.topology
        if len(topology.links) == 0:
            continue
        links = tuple(link.changed(bandwidth_mbps=link.bandwidth_mbps / 20) for link in topology.links)
        tiers = tuple(tier.changed(replicas=1 + seed % 3) for tier in topology.tiers)
        assert problem.analysis is not None
        wide = problem_of(problem.analysis, topology.changed(tiers=tiers, links=links), "throughput")
        found = exact(wide)
        if found.optimality != "dag":
            continue
        best = 1 / wide.in_order(found.order).figures(found.cuts).throughput_per_s
        bound = slowest_step_bound(wide)
        assert bound <= best * (1 + 1e-9)
        per_node = np.diff(wide.costs.seconds_below, axis=1).min(axis=0)
        tried += 1
        bounds += bound / best
        nodes_alone += float(per_node.sum()) / sum(tier.replicas for tier in tiers) / best
    assert tried > 30
    assert bounds / tried > 0.7
    assert bounds > nodes_alone


@pytest.mark.parametrize("name", ["squeezenet", "inception_v1"])
def test_plans_say_what_is_proven(name: str) -> None:
    graph = load_graph(light(name))
    analysis = measure(graph, bind_shapes(graph))
    topology = random_topology(np.random.default_rng(4), 3, ascending=True)
    proven = plan(analysis, topology, pareto=False)
    assert proven.optimality == "dag"
    assert proven.gap == 0
    assert proven.lower_bound == pytest.approx(proven.figures.latency_s, rel=1e-12)
    # A limit keeps the plan from the bound, which still holds.
    cost = plan(analysis, topology, objective="cost", pareto=False)
    tight = topology.with_limits(deadline_ms=proven.figures.latency_s * 1e3)
    limited = plan(analysis, tight, objective="cost", pareto=False)
    assert limited.lower_bound == cost.lower_bound
    if limited.figures.cost_usd > cost.figures.cost_usd:
        assert limited.optimality == "order"
        assert limited.gap is not None
        assert 0 < limited.gap < 1


def test_a_plan_survives_json() -> None:
    graph = load_graph(light("squeezenet"))
    made = plan(graph, random_topology(np.random.default_rng(4), 3, ascending=True))
    read = Plan.from_dict(json.loads(json.dumps(made.to_dict())))
    assert read.to_dict() == made.to_dict()
    assert (read.gap, read.lower_bound, read.notes) == (made.gap, made.lower_bound, made.notes)
    assert read.figures.stages[0].memory_nbytes == made.figures.stages[0].memory_nbytes


def test_says_nothing_where_it_knows_nothing() -> None:
    problem, analysis = random_dag_problem(3, "energy")
    tiers = tuple(tier.model_copy(update={"watts": None}) for tier in problem.topology.tiers)
    unknown = problem_of(analysis, problem.topology.model_copy(update={"tiers": tiers}), "energy")
    assert lower_bound(unknown, analysis) is None
