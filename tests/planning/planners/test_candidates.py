"""The candidate theorem: where it holds, where it fails, and that `exact` knows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings

from dnnsplit_onnx.errors import InfeasibleError, TopologyError
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Limits, Link, Topology
from dnnsplit_onnx.planning.costs import CostTable
from dnnsplit_onnx.planning.planners import Problem, get_planner
from dnnsplit_onnx.work.memory import StageMemory
from tests.strategies import generators, problems, with_random_limits

exact, exhaustive = get_planner("exact"), get_planner("exhaustive")


def best(problem: Problem, positions: tuple[int, ...] | None = None) -> float | None:
    """The best value over all positions, or over some."""
    if positions is not None:
        mask = np.zeros(problem.costs.size + 1, dtype=np.bool_)
        mask[list(positions)] = True
        allowed = np.tile(mask, (len(problem.topology.links), 1))
        problem = replace(problem, allowed=allowed if problem.allowed is None else allowed & problem.allowed)
    try:
        return problem.figures(exhaustive(problem).cuts).value(problem.objective)
    except InfeasibleError:
        return None


@settings(max_examples=300, deadline=None)
@given(problems(ascending=True, objectives=("latency", "cost")))
def test_equations_12_to_14_make_the_candidates_suffice(problem) -> None:
    assert problem.is_dominated((problem.objective,))
    assert best(problem, problem.candidates) == best(problem)


@settings(max_examples=200, deadline=None)
@given(problems(ascending=True, objectives=("latency", "cost", "energy")), generators)
def test_candidates_suffice_under_limits_whenever_dominance_is_claimed(problem, rng) -> None:
    limited = with_random_limits(rng, problem)
    if limited.is_dominated((limited.objective, *limited.limits)):
        assert best(limited, limited.candidates) == best(limited)


def two(edge: float, cloud: float, **limits: object) -> Topology:
    return Topology(
        tiers=(Tier(name="edge", gflops=edge), Tier(name="cloud", gflops=cloud)),
        links=(Link(bandwidth_mbps=8.0),),
        limits=Limits.model_validate(limits),
    )


def costs(topology: Topology, flops: list[int], up: list[int], down: list[int] | None = None) -> CostTable:
    below = np.concatenate(([0], np.cumsum(flops))) * 10**9
    rates = np.array([[tier.gflops * 1e9] for tier in topology.tiers])
    return CostTable(below / rates, below, np.array(up), np.array(down or [0] * len(up)))


def check_that_candidates_fail_and_exact_does_not(problem: Problem) -> None:
    measures = () if problem.objective == "throughput" else (problem.objective, *problem.limits)
    assert problem.objective == "throughput" or not problem.is_dominated(measures)
    assert best(problem, problem.candidates) != best(problem)
    assert problem.figures(exact(problem).cuts).value(problem.objective) == best(problem)


def test_a_dearer_tier_above_breaks_it_under_a_deadline() -> None:
    # Eq. 13 fails: the cloud is faster and dearer, so as little as the deadline allows
    # should run there, and nothing smaller need cross before that.
    topology = two(1.0, 10.0, deadline_ms=2200.0)
    cloud = topology.tiers[1].model_copy(update={"usd_per_hour": 36.0})
    topology = topology.model_copy(update={"tiers": (topology.tiers[0], cloud)})
    problem = Problem(costs(topology, [1, 1, 1], [1000, 1000, 1000, 0]), topology, "cost")
    check_that_candidates_fail_and_exact_does_not(problem)
    assert exact(problem).cuts == (2,)


def test_throughput_breaks_it_since_an_earlier_cut_loads_the_upper_tier() -> None:
    topology = two(1.0, 1.2)
    problem = Problem(costs(topology, [1, 1, 1, 1], [1000, 2000, 2000, 2000, 0]), topology, "throughput")
    check_that_candidates_fail_and_exact_does_not(problem)
    assert exact(problem).cuts == (2,)


def test_memory_above_breaks_it() -> None:
    topology = two(1.0, 10.0)
    cloud = topology.tiers[1].model_copy(update={"memory_gb": 10e-9})
    topology = topology.model_copy(update={"tiers": (topology.tiers[0], cloud)})
    memory = StageMemory(np.ones(3), np.array([0, 1, 2, 3]), np.array([0, 1, 2]), np.full(3, 8.0), ())
    table = replace(costs(topology, [1, 1, 1], [1000, 1000, 1000, 0]), memory=memory)
    problem = Problem(table, topology, "latency")
    check_that_candidates_fail_and_exact_does_not(problem)
    assert exact(problem).cuts == (2,)


def test_a_node_that_is_slower_above_breaks_it_and_exact_notices() -> None:
    # The second node runs badly on the faster tier, as measured times may have it.
    topology = two(1.0, 10.0)
    table = costs(topology, [1, 1, 1], [10, 2000, 20, 0])
    seconds = np.array([[0.0, 1.0, 2.0, 3.0], [0.0, 0.1, 9.1, 9.2]])
    problem = Problem(replace(table, seconds_below=seconds), topology, "latency")
    assert problem.candidates == (0, 3)
    check_that_candidates_fail_and_exact_does_not(problem)
    assert exact(problem).cuts == (2,)


def test_returning_outputs_restart_the_stairs_where_one_is_made() -> None:
    # Moving the cut back over the first node would send its large output down again.
    topology = two(1.0, 10.0, return_output=True)
    problem = Problem(costs(topology, [0, 20], [1000, 1500, 0], [9_000_000, 1000, 0]), topology, "latency")
    assert problem.is_dominated(("latency",))
    assert problem.candidates == (0, 1, 2)
    assert exact(problem).cuts == (1,)


@settings(max_examples=100, deadline=None)
@given(problems(ascending=True, objectives=("latency",)))
def test_speeds_against_the_order_are_noticed(problem) -> None:
    tiers = tuple(reversed([tier.gflops for tier in problem.topology.tiers]))
    seconds = problem.costs.flops_below / (np.array(tiers)[:, None] * 1e9)
    turned = replace(problem, costs=replace(problem.costs, seconds_below=seconds))
    if len(set(tiers)) > 1 and problem.costs.flops_below[-1] > 0:
        assert not turned.is_dominated(("latency",))
    try:
        found = turned.figures(exact(turned).cuts).latency_s
    except TopologyError:
        return
    assert found == best(turned)
