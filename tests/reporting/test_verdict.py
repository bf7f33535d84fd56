"""Nobody is sold a split that loses."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from dnnsplit_onnx.reporting.verdict import against, basis, verdict
from tests.reporting.plans_made import made


def test_a_split_that_pays() -> None:
    plan = made((4,), (0.1, 0.1), (0.1,), (0.6, 0.9))
    assert verdict(plan) == ("Splitting pays: 2.00x faster than everything on `a`, the best single tier.",)


def test_a_split_that_is_no_better_says_so() -> None:
    plan = made((4,), (0.1, 0.1), (0.1,), (0.9, 0.3))
    assert verdict(plan) == ("Splitting does not pay: everything on `b` is as fast.",)


def test_a_split_that_loses_says_by_how_much() -> None:
    plan = made((4,), (0.1, 0.1), (0.1,), (0.9, 0.15), optimality="none", planner="dnnsplit")
    assert verdict(plan) == ("Splitting does not pay: everything on `b` is 2.00x faster.",)


@pytest.mark.parametrize(
    ("cuts", "why"),
    [
        ((10, 10), "Whatever a faster tier would save, sending it the data costs more."),
        ((0, 10), "Neither a cut before it nor one after it repays what it costs."),
        ((0, 0), "No cut shrinks the data enough to repay work done on a slower tier."),
    ],
)
def test_everything_on_one_tier_says_why(cuts: tuple[int, int], why: str) -> None:
    plan = made(cuts, (0.1, 0.1, 0.1), (0.1, 0.1), (0.5, 0.5, 0.5))
    assert verdict(plan)[1] == why


def test_a_heuristic_does_not_claim_to_be_best() -> None:
    plan = made((10,), (0.5, 0.0), (0.0,), (0.5, 0.9), optimality="none", planner="dnnsplit")
    assert verdict(plan) == ("Splitting does not pay: everything on `a` is what the planner chose.",)


def test_where_no_single_tier_keeps_the_limits() -> None:
    plan = made((4,), (0.1, 0.1), (0.1,), (0.6, 0.9))
    plan = replace(plan, single_tier=tuple(replace(single, feasible=False) for single in plan.single_tier))
    assert verdict(plan) == ("Splitting is needed: no single tier keeps to the limits.",)


def test_one_tier() -> None:
    assert verdict(made((), (0.1,), (), (0.1,))) == ("There is one tier, so there is nothing to split.",)


def test_unknown_figures_are_unknown() -> None:
    plan = made((4,), (0.1, 0.1), (math.nan,), (0.6, 0.9))
    plan = replace(plan, figures=replace(plan.figures, latency_s=math.nan))
    assert verdict(plan) == ("Whether splitting pays is unknown: so is the latency of this plan.",)


def test_nothing_costs_anything() -> None:
    plan = made((4,), (0.1, 0.1), (0.1,), (0.6, 0.9), objective="cost")
    free = tuple(replace(single, cost_usd=0.0) for single in plan.single_tier)
    plan = replace(plan, figures=replace(plan.figures, cost_usd=0.0), single_tier=free)
    assert verdict(plan) == ("Splitting does not pay: everything on `a` has no cost either.",)


def test_the_basis_names_assumptions() -> None:
    plan = made((4,), (0.1, 0.1), (0.1,), (0.6, 0.9))
    assert basis(plan)[0].startswith("Best latency of all cuts along the file order (proven).")
    assert "nothing was measured" in basis(plan)[0]
    assert basis(plan, {"com.x::Odd": 2})[-1] == "Not counted, and taken to cost nothing: com.x::Odd (2)."
    assert basis(replace(plan, optimality="dag"))[0].startswith(
        "Best latency of all cuts of the graph (proven)."
    )
    assert basis(replace(plan, planner="at", optimality="none"))[0].startswith("The cuts were given by hand.")
    heuristic = replace(plan, planner="dnnsplit", optimality="none")
    assert basis(heuristic)[0].startswith("Chosen by `dnnsplit`, a heuristic: nothing is proven.")
    gap = basis(replace(plan, gap=0.0523, notes=("limits were relaxed",)))
    assert gap[1:] == (
        "No cut of the graph, in whatever order, is more than 5.2% better.",
        "Limits were relaxed.",
    )
    assert "as in the paper" in basis(replace(plan, accounting="layer-input"))[1]


def test_single_tiers_are_compared() -> None:
    plan = made((4,), (0.1, 0.1), (0.1,), (0.6, 0.3))
    assert [against(plan, single) for single in plan.single_tier] == ["2.00x slower", "the same"]
    assert against(replace(plan, objective="energy"), plan.single_tier[0]) == ""
