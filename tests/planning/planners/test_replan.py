"""Planning again for new links is planning anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from dnnsplit_onnx.errors import InfeasibleError
from dnnsplit_onnx.planning.planners import get_planner
from dnnsplit_onnx.planning.planners.replan import Replanner
from tests.strategies import generators, problems, random_topology, with_random_limits

exact = get_planner("exact")


@settings(max_examples=100, deadline=None)
@given(problems(objectives=("latency", "cost")), generators)
def test_new_links_give_the_exact_plan(problem, rng) -> None:
    planner = Replanner(problem)
    assert planner.is_fast
    for _ in range(3):
        links = random_topology(rng, len(problem.topology.tiers)).links
        other = replace(problem, topology=problem.topology.model_copy(update={"links": links}))
        found = other.figures(planner.plan(links).cuts).value(problem.objective)
        best = other.figures(exact(other).cuts).value(problem.objective)
        assert found == pytest.approx(best, rel=1e-12, abs=1e-15)


@settings(max_examples=100, deadline=None)
@given(problems(objectives=("latency",)), generators)
def test_another_rate_gives_the_exact_plan(problem, rng) -> None:
    tiers = [tier.changed(replicas=int(rng.integers(1, 4))) for tier in problem.topology.tiers]
    topology = problem.topology.changed(tiers=tiers).with_workload(clients=int(rng.choice([1, 3])))
    pace = replace(problem, topology=topology).figures(problem.single_tier[-1]).throughput_per_s
    rates = [pace * share for share in (0.2, 0.7, 0.99, 3.0) if 0 < pace * share < 1e12]
    if not rates:
        return
    problem = replace(problem, topology=topology.with_workload(requests_per_s=rates[0]))
    planner = Replanner(problem)
    assert planner.is_fast == (len(tiers) > 1)
    for rate in rates:
        links = random_topology(rng, len(tiers)).links
        other = problem.topology.changed(links=links).with_workload(requests_per_s=rate)
        there = replace(problem, topology=other)
        try:
            best = there.figures(exact(there).cuts).latency_s
        except InfeasibleError:
            with pytest.raises(InfeasibleError):
                planner.plan(links, rate)
            continue
        found = there.figures(planner.plan(links, rate).cuts)
        assert not there.violations(found)
        assert found.latency_s == pytest.approx(best, rel=1e-9, abs=1e-15)


@settings(max_examples=50, deadline=None)
@given(problems(), generators)
def test_everything_else_is_left_to_exact(problem, rng) -> None:
    limited = with_random_limits(rng, problem)
    loose = limited.topology.with_limits(deadline_ms=1e15)
    limited = replace(problem, topology=problem.topology.model_copy(update={"limits": loose.limits}))
    planner = Replanner(limited)
    assert not planner.is_fast
    try:
        expected = exact(limited).cuts
    except Exception as error:
        with pytest.raises(type(error)):
            planner.plan(limited.topology.links)
    else:
        assert planner.plan(limited.topology.links).cuts == expected


def test_returns_python_numbers() -> None:
    from tests.strategies import random_problem

    problem = random_problem(np.random.default_rng(3), 3, "latency", limited=False)
    assert all(type(cut) is int for cut in Replanner(problem).plan(problem.topology.links).cuts)
