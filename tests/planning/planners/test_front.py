"""Pareto filters and fronts, against the definition."""

from __future__ import annotations

import math
from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings

from dnnsplit_onnx.planning.planners import Problem, get_planner
from dnnsplit_onnx.planning.planners import front as front_module
from dnnsplit_onnx.planning.planners import pareto as pareto_module
from dnnsplit_onnx.planning.planners.front import nondominated
from dnnsplit_onnx.planning.planners.pareto import pareto_front
from tests.strategies import generators, problems, with_random_limits


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_keeps_what_nothing_beats(columns: int, monkeypatch) -> None:
    monkeypatch.setattr(front_module, "_BLOCK", 5)
    monkeypatch.setattr(front_module, "_FEW", 3)
    monkeypatch.setattr(front_module, "_SWEPT", 20)
    for seed in range(60):
        monkeypatch.setattr(front_module, "_MANY", 10 if seed % 2 else 1000)
        points = np.random.default_rng(seed).integers(0, 7, (columns, seed)).astype(float)
        kept = {tuple(points[:, at]) for at in nondominated(list(points))}
        rows = {tuple(row) for row in points.T}
        assert kept == {row for row in rows if not any(o != row and np.all(np.array(o) <= row) for o in rows)}
        assert len(kept) == len(nondominated(list(points)))  # of equal points, one


def all_figures(problem: Problem) -> list[tuple[float, ...]]:
    rows = []
    for cuts in combinations_with_replacement(range(problem.costs.size + 1), len(problem.topology.links)):
        figures = problem.figures(cuts)
        if all(problem.open[t, cut] for t, cut in enumerate(cuts)) and not problem.violations(figures):
            energy = math.inf if figures.energy_j is None else figures.energy_j
            rows.append((figures.latency_s, figures.cost_usd, 1 / figures.throughput_per_s, energy))
    return rows


def is_beaten(point: tuple[float, ...], rows: list[tuple[float, ...]], by: float) -> bool:
    """Whether a row is better in all figures, in one of them by more than rounding."""
    return any(
        all(r <= p * (1 + 1e-12) for r, p in zip(row, point, strict=True))
        and any(r < p - by * abs(p) for r, p in zip(row, point, strict=True) if p != math.inf)
        for row in rows
    )


@settings(max_examples=120, deadline=None)
@given(problems(max_tiers=5), generators)
def test_front_is_what_no_plan_beats(problem, rng) -> None:
    problem = with_random_limits(rng, problem)
    rows = all_figures(problem)
    found = pareto_front(problem, limit=10**6)
    front = found.points
    assert found.complete
    assert found.count == len(front)
    points = [
        (p.latency_s, p.cost_usd, 1 / p.throughput_per_s, math.inf if p.energy_j is None else p.energy_j)
        for p in front
    ]
    assert bool(points) == bool(rows)
    assert not any(is_beaten(point, rows, by=1e-9) for point in points)
    for row in rows:  # every plan is on the front or beaten by it
        assert any(all(p <= r * (1 + 1e-9) for p, r in zip(point, row, strict=True)) for point in points)


def large_problem(count: int = 3) -> Problem:
    from tests.strategies import random_costs, random_topology

    rng = np.random.default_rng(11)
    topology = random_topology(rng, count, ascending=True)
    costs = random_costs(rng, 400, [tier.gflops for tier in topology.tiers])
    return Problem(costs, topology, "latency")


def test_front_is_bounded_and_keeps_the_best_of_each_figure() -> None:
    problem = large_problem()
    cut_off = pareto_front(problem, limit=1)
    assert (len(cut_off.points), cut_off.complete) == (1, False)
    assert cut_off.count > 1
    front = pareto_front(problem, limit=5).points
    assert len(front) <= 5
    assert [p.latency_s for p in front] == sorted(p.latency_s for p in front)
    exact = get_planner("exact")
    fastest = problem.figures(exact(problem).cuts).latency_s
    assert front[0].latency_s == fastest
    thinned = pareto_front(problem, most_plans=500).points
    assert thinned[0].latency_s == fastest
    best = problem.figures(exact(problem.with_objective("throughput")).cuts).throughput_per_s
    assert max(p.throughput_per_s for p in thinned) == best


def test_one_tier_has_one_plan() -> None:
    assert [point.cuts for point in pareto_front(large_problem(1)).points] == [()]


def test_a_last_digit_puts_no_plan_on_the_front() -> None:
    column = np.array([3.0, 1.0, np.inf, 1.0 + 4e-16, 2.0, 3.0 - 4e-16, np.inf, 0.0])
    alike = pareto_module._without_rounding(column)
    assert alike[1] == alike[3] == 1.0
    assert alike[0] == alike[5] < 3.0
    assert alike.tolist()[2:5:2] == [math.inf, 2.0]
    assert alike[7] == 0.0
    assert len(pareto_module._without_rounding(np.array([]))) == 0
