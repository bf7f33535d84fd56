"""The one objective, against a second and independent writing of the same rules."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnnsplit_onnx.errors import PlanError
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Limits, Link, Topology
from dnnsplit_onnx.planning.costs import CostTable
from dnnsplit_onnx.planning.objective import evaluate, link_cost_usd, link_seconds, violations
from tests import naive
from tests.strategies import problems, random_cuts


def two_tiers(**limits: object) -> Topology:
    return Topology(
        tiers=(
            Tier(name="edge", gflops=1.0, usd_per_hour=3.6),
            Tier(name="cloud", gflops=10.0, usd_per_hour=36.0),
        ),
        links=(Link(bandwidth_mbps=8.0, down_mbps=4.0, delay_ms=100.0, usd_per_hour=7.2),),
        limits=Limits.model_validate(limits),
    )


COSTS = CostTable(  # two nodes of one second each on the edge; the second makes the output
    seconds_below=np.array([[0.0, 1.0, 2.0], [0.0, 0.1, 0.2]]),
    flops_below=np.array([0, 10**9, 2 * 10**9]),
    up_nbytes=np.array([4_000_000, 1_000_000, 0]),
    down_nbytes=np.array([500_000, 500_000, 0]),
)


@pytest.mark.parametrize(
    ("cut", "latency", "cost", "slowest"),
    [
        (2, 2.0, 2e-3, 2.0),  # all on the edge: nothing crosses, no delay
        (1, 1.0 + 1.1 + 0.1, 1e-3 + 2.2e-3 + 1e-3, 1.1),
        (0, 4.1 + 0.2, 8.2e-3 + 2e-3, 4.1),
    ],
)
def test_by_hand(cut: int, latency: float, cost: float, slowest: float) -> None:
    figures = evaluate((cut,), COSTS, two_tiers())
    assert figures.latency_s == pytest.approx(latency)
    assert figures.cost_usd == pytest.approx(cost)
    assert figures.throughput_per_s == pytest.approx(1 / slowest)


def test_output_returns_over_the_slower_way_with_its_own_delay() -> None:
    figures = evaluate((1,), COSTS, two_tiers(return_output=True))
    assert figures.links[0].seconds == pytest.approx(1.1 + 1.0 + 0.1)
    assert figures.links[0].down_nbytes == 500_000
    assert evaluate((2,), COSTS, two_tiers(return_output=True)).links[0].seconds == 0


@settings(max_examples=300, deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_matches_the_naive_objective(problem, random) -> None:
    cuts = random_cuts(np.random.default_rng(random.randrange(2**32)), problem)
    figures = problem.figures(cuts)
    if not all(problem.is_known[cut] for cut in cuts):
        assert math.isnan(figures.latency_s)
        return
    expected = naive.figures(cuts, problem.costs, problem.topology)
    assert figures.latency_s == pytest.approx(expected["latency"], rel=1e-12)
    assert figures.cost_usd == pytest.approx(expected["cost"], rel=1e-12, abs=1e-18)
    assert figures.throughput_per_s == pytest.approx(expected["throughput"], rel=1e-12)
    if expected["energy"] is None:
        assert figures.energy_j is None
    else:
        assert figures.energy_j == pytest.approx(expected["energy"], rel=1e-12, abs=1e-18)


@settings(max_examples=100, deadline=None)
@given(problems())
def test_tables_hold_what_evaluate_charges(problem) -> None:
    for t, link in enumerate(problem.topology.links):
        back = problem.topology.limits.return_output
        seconds = link_seconds(link, problem.costs, back)
        usd = link_cost_usd(link, problem.costs, back, seconds)
        for cut in range(problem.costs.size + 1):
            transfer = problem.figures([cut] * len(problem.topology.links)).links[t]
            assert np.array_equal(
                [transfer.seconds, transfer.cost_usd], [seconds[cut], usd[cut]], equal_nan=True
            )


@pytest.mark.parametrize(
    ("cuts", "says"), [((), "1 cuts"), ((1, 1), "1 cuts"), ((3,), "[3]"), ((-1,), "[-1]")]
)
def test_refuses_what_is_no_plan(cuts: tuple[int, ...], says: str) -> None:
    with pytest.raises(PlanError) as error:
        evaluate(cuts, COSTS, two_tiers())
    assert says in error.value.message


def test_violations_say_by_how_much_and_a_limit_met_exactly_is_kept() -> None:
    figures = evaluate((2,), COSTS, two_tiers())
    limits = Limits(deadline_ms=figures.latency_s * 1e3, budget_usd=figures.cost_usd)
    assert violations(figures, limits) == ()
    late, dear = violations(figures, Limits(deadline_ms=1500.0, budget_usd=1e-3))
    assert late == "latency 2000 ms exceeds 1500 ms by 500 ms"
    assert dear == "cost 0.002 USD exceeds 0.001 USD by 0.001 USD"
    assert violations(figures, Limits(energy_j=1.0)) == ("energy is unknown, and limited to 1 J",)
