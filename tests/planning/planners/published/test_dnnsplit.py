"""The paper's algorithms on cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Limits, Link, Topology
from dnnsplit_onnx.planning.costs import CostTable
from dnnsplit_onnx.planning.planners import Problem, get_planner
from tests.strategies import OBJECTIVES, random_problem

dnnsplit, exact = get_planner("dnnsplit"), get_planner("exact")


def problem(
    rates: tuple[float, ...],
    mbps: tuple[float, ...],
    up: list[int],
    objective: str = "latency",
    *,
    prices: tuple[float, ...] = (3.0, 2.0, 1.0),
    flops: tuple[int, ...] = (4, 4, 4),
    **limits: float,
) -> Problem:
    """Nodes of `flops` GFLOP; `up` in kB; prices in USD/s a GFLOP/s, so that eq. 13 holds."""
    tiers = [
        Tier(name=name, gflops=rate, usd_per_hour=3600 * price * rate)
        for name, rate, price in zip(("edge", "ne", "cloud"), rates, prices, strict=False)
    ]
    topology = Topology(
        tiers=tuple(tiers),
        links=tuple(Link(bandwidth_mbps=rate, usd_per_hour=36.0) for rate in mbps),
        limits=Limits.model_validate(limits),
    )
    below = np.concatenate(([0], np.cumsum(flops))) * 10**9
    seconds = below / (np.array(rates)[:, None] * 1e9)
    nbytes = np.array([*up, 0]) * 1000
    return Problem(CostTable(seconds, below, nbytes, np.zeros_like(nbytes)), topology, objective)  # type: ignore[arg-type]


def test_algorithm_2_edge_is_optimal() -> None:
    # Edge 12 s. NE: 8 s to send + 6 s; cloud: 16 + 3 s. So the edge leads.
    # Split points 0, 1, 2 (8000, 1000, 125 kB; 1 s for 1000 kB at 8 Mbit/s).
    # First walk, rest to the cloud: (1,1): 4 + 1 + 1 + 2 = 8; (2,2): 8 + .125 + .125 + 1 = 9.25.
    # Second walk with s2 = 1: (0,1): 0 + 8 + 2 + 1 + 2 = 13. So (1,1).
    found = dnnsplit(problem((1.0, 2.0, 4.0), (8.0, 8.0), [8000, 1000, 125]))
    assert found.cuts == (1, 1)
    assert found.optimality == "none"


def test_algorithm_3_near_edge_is_optimal() -> None:
    # NE: 1 s to send + 3 s = 4; edge 12; cloud: 1 + 8 + 1.5 = 10.5.
    # First walk, end to the cloud: (0,1): 1 + 1 + 4 + 1 = 7; (0,2): 1 + 2 + .128 + .5 = 3.628.
    # Second walk with s2 = 2: (1,2): 4 + .5 + 1 + .128 + .5 = 6.128. So (0,2).
    found = dnnsplit(problem((1.0, 4.0, 8.0), (8.0, 1.0), [1000, 500, 16]))
    assert found.cuts == (0, 2)


def test_algorithm_4_cloud_is_optimal() -> None:
    # Cloud: .1 + 1 + .12 = 1.22; NE: .1 + 3; edge 12. First walk: NE beats the edge at every
    # beginning. Second walk: (0,1): .1 + 1 + .1 + .08 = 1.28; (0,2): 2.15. Stays (0,0).
    found = dnnsplit(problem((1.0, 4.0, 100.0), (80.0, 8.0), [1000, 100, 10]))
    assert found.cuts == (0, 0)
    # With a slower second link and a heavy end, cloud: .1 + 10 + .48 = 10.58; NE: 12.1.
    # First walk: (1,1): 5.45 loses to (0,1): .1 + 1 + 1 + .44 = 2.54. Second walk: (0,1), then
    # (0,2): .1 + 2 + .1 + .4 = 2.6 is no better. So (0,1).
    found = dnnsplit(problem((1.0, 4.0, 100.0), (80.0, 0.8), [1000, 100, 10], flops=(4, 4, 40)))
    assert found.cuts == (0, 1)


def test_two_tiers_walk_once_and_one_tier_has_no_choice() -> None:
    two = problem((1.0, 10.0), (8.0,), [8000, 1000, 125])
    assert dnnsplit(two).cuts == exact(two).cuts == (1,)
    one = problem((1.0,), (), [8000, 1000, 125])
    assert dnnsplit(one).cuts == ()


def test_more_tiers_than_the_paper_has() -> None:
    four = random_problem(np.random.default_rng(0), 4, "latency", limited=False)
    with pytest.raises(InputError) as error:
        dnnsplit(four)
    assert "at most three tiers, not 4" in error.value.message


def test_starts_from_a_tier_within_budget_even_if_another_is_faster() -> None:
    # The fastest tier, the cloud, breaks the budget by its links; the edge keeps it.
    tiers, up, prices = (1.0, 2.0, 100.0), [1000, 999, 998], (1e-4, 9e-5, 8e-5)
    assert dnnsplit(problem(tiers, (80.0, 80.0), up, prices=prices)).cuts == (0, 0)
    found = dnnsplit(problem(tiers, (80.0, 80.0), up, prices=prices, budget_usd=1.25e-3))
    assert found.cuts == (3, 3)


def test_no_single_tier_keeps_the_limits() -> None:
    # Algorithm 1: then the one with least latency, though the plan breaks its limits.
    tight = problem((1.0, 2.0, 4.0), (8.0, 8.0), [8000, 1000, 125], deadline_ms=1.0)
    found = dnnsplit(tight)
    assert found.cuts == (1, 1)
    assert tight.violations(tight.figures(found.cuts))


@pytest.mark.parametrize("objective", ["latency", "cost", "throughput"])
def test_a_walk_never_ends_below_the_best_single_tier(objective: str) -> None:
    for seed in range(150):
        case = random_problem(np.random.default_rng([seed, 3]), 3, objective, limited=False)
        found = case.figures(dnnsplit(case).cuts).value(objective)  # type: ignore[arg-type]
        singles = [case.figures(cuts).value(objective) for cuts in case.single_tier]  # type: ignore[arg-type]
        best = case.figures(exact(case).cuts).value(objective)  # type: ignore[arg-type]
        if objective == "throughput":
            assert max(singles) <= found <= best
        else:
            assert best <= found <= min(singles)


def test_greedy_is_beaten_under_a_budget() -> None:
    """The third known fault: some walk ends worse than the best plan."""
    worse = 0
    for seed in range(300):
        case = random_problem(np.random.default_rng([seed, 4]), 3, "latency", limited=True)
        try:
            best = case.figures(exact(case).cuts).latency_s
        except Exception:
            continue
        figures = case.figures(dnnsplit(case).cuts)
        worse += bool(case.violations(figures)) or figures.latency_s > best
    assert worse


def test_says_which_equation_fails() -> None:
    notes = dnnsplit(problem((4.0, 2.0, 2.0), (8.0, 8.0), [3, 2, 1], prices=(1.0, 2.0, 3.0))).notes
    assert notes == (
        "eq. 12 of the paper fails: tier `ne` is not faster than `edge`",
        "eq. 13 of the paper fails: tier `ne` is not cheaper than `edge`",
    )
    assert dnnsplit(problem((1.0, 2.0, 4.0), (8.0, 8.0), [3, 2, 1])).notes == ()


def test_every_objective_is_registered_and_known() -> None:
    for objective in OBJECTIVES:
        dnnsplit(problem((1.0, 2.0, 4.0), (8.0, 8.0), [3, 2, 1], objective))
    with pytest.raises(InputError) as error:
        get_planner("exakt")
    assert error.value.hint is not None
    assert "known planners: exact, dnnsplit, exhaustive, " in error.value.hint
