"""Where the best plan changes with a bandwidth, held against planning anew everywhere."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings

from dnnsplit_onnx.errors import InfeasibleError, TopologyError
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.planning.costs import CostTable
from dnnsplit_onnx.planning.planners import Problem, get_planner
from dnnsplit_onnx.planning.sensitivity import bandwidth_sensitivity, samples, topology_at
from tests.strategies import generators, problems, with_random_limits

exact = get_planner("exact")


def at(problem: Problem, link: int, mbps: float) -> Problem:
    return replace(problem, topology=topology_at(problem.topology, link, mbps))


def two_tiers(objective: str = "latency", **limits: float) -> Problem:
    """Four nodes of 1 GFLOP on 1 and 10 GFLOP/s; cuts send 4, 2, 3, 1 and 0 MB."""
    topology = parse_topology(
        {
            "tier": [{"name": "edge", "gflops": 1}, {"name": "cloud", "gflops": 10}],
            "link": [{"bandwidth_mbps": 8}],
            "limits": limits,
        },
        "test",
    )
    flops = np.arange(5, dtype=np.int64) * 10**9
    up = np.array([4, 2, 3, 1, 0], dtype=np.int64) * 10**6
    seconds = flops / np.array([[1e9], [1e10]])
    return Problem(CostTable(seconds, flops, up, np.zeros(5, dtype=np.int64)), topology, objective)  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(problems(objectives=("latency", "cost", "energy")), generators)
def test_no_bandwidth_has_a_better_plan(problem: Problem, rng: np.random.Generator) -> None:
    for link in range(min(2, len(problem.topology.links))):
        try:
            found = bandwidth_sensitivity(problem, link)
        except TopologyError:
            return  # energy is asked for and unknown
        assert found.is_complete
        low, high = found.decisions[0].low_mbps, found.decisions[-1].high_mbps
        for mbps in low * (high / low) ** rng.random(12):
            here = at(problem, link, float(mbps))
            decision = next(one for one in found.decisions if mbps <= one.high_mbps)
            assert decision.cuts is not None
            best = here.figures(exact(here).cuts).value(problem.objective)
            assert here.figures(decision.cuts).value(problem.objective) == pytest.approx(best, rel=1e-5)


@settings(max_examples=100, deadline=None)
@given(problems(objectives=("latency", "cost", "energy")))
def test_where_plans_change_both_are_as_good(problem: Problem) -> None:
    for link in range(min(2, len(problem.topology.links))):
        try:
            found = bandwidth_sensitivity(problem, link)
        except TopologyError:
            return
        for before, after in pairwise(found.decisions):
            assert before.high_mbps == after.low_mbps
            assert before.cuts is not None
            assert after.cuts is not None
            here = at(problem, link, after.low_mbps)
            values = [here.figures(one.cuts).value(problem.objective) for one in (before, after)]
            assert values[0] == pytest.approx(values[1], rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(problems(), generators)
def test_limits_are_kept_at_every_bandwidth(problem: Problem, rng: np.random.Generator) -> None:
    limited = with_random_limits(rng, problem)
    for link in range(min(1, len(limited.topology.links))):
        try:
            found = bandwidth_sensitivity(limited, link)
        except TopologyError:
            return
        for decision in found.decisions:
            # Well inside: at the ends rounding may decide.
            here = at(limited, link, (decision.low_mbps * decision.high_mbps) ** 0.5)
            if decision.cuts is None:
                with pytest.raises(InfeasibleError):
                    exact(here)
            else:
                assert not here.violations(here.figures(decision.cuts))


def test_the_places_can_be_worked_out_by_hand() -> None:
    # Cut 4 takes 4 s; cut 3 takes 3.1 s + 8/b, cut 1 takes 1.3 + 16/b, cut 0 takes 0.4 + 32/b.
    # 4 = 3.1 + 8/b at 8/0.9; 3.1 + 8/b = 1.3 + 16/b at 8/1.8, which is lower: cut 3 never is
    # best. 4 = 1.3 + 16/b at 16/2.7; 1.3 + 16/b = 0.4 + 32/b at 16/0.9.
    found = bandwidth_sensitivity(two_tiers(), 0, 1, 100)
    assert [decision.cuts for decision in found.decisions] == [(4,), (1,), (0,)]
    assert found.breakpoints_mbps == pytest.approx((16 / 2.7, 16 / 0.9), rel=1e-9)
    assert [decision.tiers for decision in found.decisions] == [("edge",), ("edge", "cloud"), ("cloud",)]
    assert found.is_complete


def test_below_some_bandwidth_a_deadline_cannot_be_kept() -> None:
    # 1.3 + 16/b = 3 at 16/1.7, where cut 1 is best and stays so up to 16/0.9.
    found = bandwidth_sensitivity(two_tiers(deadline_ms=3000), 0, 1, 100)
    assert not found.is_complete
    assert [decision.cuts for decision in found.decisions] == [None, (1,), (0,)]
    assert found.breakpoints_mbps == pytest.approx((16 / 1.7, 16 / 0.9), rel=1e-3)


def test_samples_are_what_the_decisions_are_worth() -> None:
    problem = two_tiers()
    found = bandwidth_sensitivity(problem, 0, 1, 100)
    made = samples(problem, found, 20)
    assert made[0].mbps == 1
    assert made[-1].mbps == 100
    assert set(found.breakpoints_mbps) <= {sample.mbps for sample in made}
    for sample in made:
        assert sample.value == pytest.approx(min(4, 1.3 + 16 / sample.mbps, 0.4 + 32 / sample.mbps))
        assert sample.single == pytest.approx(min(4, 0.4 + 32 / sample.mbps))


def test_samples_where_nothing_keeps_the_limits_are_unknown() -> None:
    problem = two_tiers(deadline_ms=2000)
    made = samples(problem, bandwidth_sensitivity(problem, 0, 1, 100), 20)
    assert made[0].value is None
    assert made[0].single is None
    assert made[-1].value == pytest.approx(0.72)
