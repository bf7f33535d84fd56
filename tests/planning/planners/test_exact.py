"""`exact` finds what trying everything finds, and knows the edge of every limit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from dnnsplit_onnx.errors import InfeasibleError, TopologyError
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Link, Topology
from dnnsplit_onnx.planning.costs import CostTable
from dnnsplit_onnx.planning.objective import LIMITED
from dnnsplit_onnx.planning.planners import Problem, get_planner
from dnnsplit_onnx.planning.planners import exact as exact_module
from dnnsplit_onnx.planning.planners.lagrange import Duals, Relaxation
from tests.strategies import ALL_OBJECTIVES, OBJECTIVES, problems, random_problem

exact, exhaustive = get_planner("exact"), get_planner("exhaustive")


def value(planner, problem: Problem) -> float | None:
    """The value of a planner's plan by the one objective, None if it finds no plan."""
    try:
        cuts = planner(problem).cuts
    except (InfeasibleError, TopologyError):
        return None
    figures = problem.figures(cuts)
    assert problem.violations(figures) == ()
    return figures.value(problem.objective)


@pytest.mark.parametrize("limited", [False, True], ids=["free", "limited"])
@pytest.mark.parametrize("objective", ALL_OBJECTIVES)
@pytest.mark.parametrize("tiers", range(1, 9))
def test_matches_exhaustive(tiers: int, objective: str, limited: bool, monkeypatch) -> None:
    # Compare the value, never the cut: optimal cuts are not unique. And compare it exactly,
    # since both judge plans by correctly rounded sums.
    for seed in range(40 if limited else 24):  # 2,560 cases in all
        # Lagrangian bounds are for large searches; half of these small ones use them too.
        monkeypatch.setattr(exact_module, "SMALL", 200 if seed % 2 else -1)
        rng = np.random.default_rng([tiers, ALL_OBJECTIVES.index(objective), limited, seed])
        problem = random_problem(rng, tiers, objective, limited=limited)
        assert value(exact, problem) == value(exhaustive, problem), f"seed {seed}"


@settings(max_examples=150, deadline=None)
@given(problems(objectives=("latency", "cost", "energy")))
def test_a_limit_at_the_optimum_is_met_and_the_next_number_is_not(problem) -> None:
    best = value(exact, problem)
    limited = LIMITED[problem.objective]
    if best is None or not best:
        return
    at_optimum = best * limited.factor
    tight = with_limit(problem, limited.key, at_optimum)
    assert value(exact, tight) == best
    with pytest.raises(InfeasibleError) as error:
        exact(with_limit(problem, limited.key, math.nextafter(at_optimum, 0)))
    assert limited.key in error.value.message
    assert "more" in error.value.message
    # What the hint offers can be met.
    offered = float(error.value.hint.rsplit("= ", 1)[1])
    assert value(exact, with_limit(problem, limited.key, offered)) == best


@settings(max_examples=100, deadline=None)
@given(problems(objectives=("cost", "throughput")))
def test_a_deadline_at_the_fastest_plan_leaves_the_best_of_the_fastest(problem) -> None:
    fastest = value(exact, replace(problem, objective="latency"))
    if fastest is None or not fastest:
        return
    tight = with_limit(problem, "deadline_ms", fastest * 1e3)
    assert value(exact, tight) == value(exhaustive, tight)
    assert value(exact, with_limit(problem, "deadline_ms", math.nextafter(fastest * 1e3, 0))) is None


def with_limit(problem: Problem, key: str, limit: float) -> Problem:
    limits = problem.topology.limits.model_copy(update={key: limit})
    return replace(problem, topology=problem.topology.model_copy(update={"limits": limits}))


def test_limits_that_conflict_say_what_is_left_of_each() -> None:
    seen = 0
    for seed in range(3000):
        problem = random_problem(np.random.default_rng([seed, 9]), 3, "latency", limited=True)
        try:
            exact(problem)
        except InfeasibleError as error:
            if "together, though each can be met alone" not in error.message or error.hint is None:
                continue
            seen += 1
            for option in error.hint.split(": ", 1)[1].split("; or "):
                key, offered = option.rsplit(", ", 1)[1].split(" = ")
                assert value(exact, with_limit(problem, key, float(offered))) is not None
                assert value(exact, with_limit(problem, key, float(offered) * (1 - 1e-4))) is None
        except TopologyError:
            continue
        if seen == 8:
            return
    pytest.fail("no such case")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_throughput_ties_are_broken_by_latency(objective: str) -> None:
    for seed in range(60):
        problem = random_problem(np.random.default_rng([seed, 5]), 3, "throughput", limited=False)
        best = problem.figures(exact(problem).cuts)
        bottleneck = 1 / best.throughput_per_s
        others = [
            problem.figures((a, b))
            for a in range(problem.costs.size + 1)
            for b in range(a, problem.costs.size + 1)
        ]
        ties = [other for other in others if other.throughput_per_s == best.throughput_per_s]
        assert best.latency_s == min(other.latency_s for other in ties), bottleneck


def test_sums_are_compared_beyond_a_float() -> None:
    """Plans that differ by less than a rounding error of a naive sum are told apart."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, 4, "latency", limited=False)
        noise = 1 + rng.integers(-2, 3, problem.costs.seconds_below.shape) * 2.0**-52
        seconds = np.maximum.accumulate(problem.costs.seconds_below * noise, axis=1)
        close = replace(problem, costs=replace(problem.costs, seconds_below=seconds))
        assert value(exact, close) == value(exhaustive, close)


def test_says_which_watts_are_missing() -> None:
    rng = np.random.default_rng(1)
    problem = random_problem(rng, 2, "energy", limited=False)
    tiers = tuple(tier.model_copy(update={"watts": None}) for tier in problem.topology.tiers)
    costs = replace(
        problem.costs, seconds_below=problem.costs.seconds_below + np.arange(problem.costs.size + 1)
    )
    with pytest.raises(TopologyError, match="tier `tier0` has no `watts`"):
        exact(replace(problem, costs=costs, topology=problem.topology.model_copy(update={"tiers": tiers})))


def test_gives_up_honestly_when_there_are_too_many_labels(monkeypatch) -> None:
    problem = next(
        problem
        for seed in range(200)
        if not (problem := random_problem(np.random.default_rng(seed), 4, "cost", limited=True)).is_dominated(
            ["cost"]
        )
        and problem.limits.keys() == {"latency"}
        and problem.allowed is None
        and value(exact, problem)
        != value(exact, replace(problem, topology=problem.topology.with_limits(deadline_ms=1e9)))
    )
    monkeypatch.setattr(exact_module, "SMALL", -1)
    monkeypatch.setattr(exact_module, "MOST_LABELS", 0)
    monkeypatch.setattr(Relaxation, "duals", lambda _: Duals([1.0, 0.0]))
    with pytest.raises(InfeasibleError, match="too many partial plans"):
        exact(problem)
    monkeypatch.undo()
    monkeypatch.setattr(exact_module, "SMALL", -1)
    monkeypatch.setattr(exact_module, "MOST_LABELS", 0)
    solution = exact(problem)
    assert solution.optimality == "none"
    assert "not proven best" in solution.notes[0]
    assert problem.violations(problem.figures(solution.cuts)) == ()


def test_of_equals_it_is_a_single_tier_and_the_quickest() -> None:
    """Cost ties wherever the last node is free: latency is what is left to tell plans apart."""
    below = np.array([[0.0, 2.0, 2.0], [0.0, 2.0, 2.0]])
    nbytes = np.array([5, 1, 0])
    costs = CostTable(below, np.array([0, 2, 2]), nbytes, np.zeros(3, np.int64))
    topology = Topology(
        tiers=(Tier(name="a", gflops=1, usd_per_hour=1), Tier(name="b", gflops=1, usd_per_hour=1)),
        links=(Link(bandwidth_mbps=1, delay_ms=50),),
    )
    problem = Problem(costs, topology, "cost")
    assert exact(problem).cuts == (2,)
    assert problem.figures((1,)).cost_usd == problem.figures((2,)).cost_usd
