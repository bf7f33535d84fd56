"""`planner=`, `costs=` and `objective=` take functions."""

from __future__ import annotations

import math
import tomllib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dnnsplit_onnx.errors import InfeasibleError, InputError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.models import model_path
from dnnsplit_onnx.planning.choosing import plan_of, problem_of
from dnnsplit_onnx.planning.comparing import compare
from dnnsplit_onnx.planning.figures import Figures
from dnnsplit_onnx.planning.planners import Problem, Solution, get_planner, trying
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.work.analysis import Analysis, measure
from tests.strategies import random_problem

TIERS = """
tier = [
  { name = "edge", gflops = 10, usd_per_hour = 0.1 },
  { name = "near", gflops = 100, usd_per_hour = 1 },
  { name = "cloud", gflops = 1000, usd_per_hour = 5 },
]
link = [{ bandwidth_mbps = 50, delay_ms = 1 }, { bandwidth_mbps = 20, delay_ms = 10 }]
"""


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    graph = load_graph(model_path("random_squeezenet"))
    return measure(graph, bind_shapes(graph))


@pytest.fixture
def topology() -> Topology:
    return parse_topology(tomllib.loads(TIERS), "tiers.toml")


def middle(problem: Problem) -> Solution:
    return Solution((problem.costs.size // 2,) * len(problem.topology.links), "none", 1)


def regret(figures: Figures) -> float:
    """No sum: the slower of two halves of a request, squared, and its price."""
    return max(stage.seconds for stage in figures.stages) ** 2 + 1e4 * figures.cost_usd


def test_a_function_plans(analysis: Analysis, topology: Topology) -> None:
    made = plan_of(problem_of(analysis, topology), middle)
    assert made.planner == "middle"
    assert made.cuts == (33, 33)
    assert plan_of(problem_of(analysis, topology), "exact").figures.latency_s <= made.figures.latency_s


def test_a_function_is_compared(analysis: Analysis, topology: Topology) -> None:
    rows = {row.planner: row for row in compare(analysis, topology, ["exact", middle]).rows}
    assert rows["middle"].cuts == (33, 33)
    assert rows["middle"].gap is not None
    assert rows["exact"].gap == 0


def test_seconds_of_the_callers_own_price_plans(analysis: Analysis, topology: Topology) -> None:
    size = len(analysis.graph.nodes)
    seconds = np.random.default_rng(0).random((3, size))

    def own(given: Analysis, machines: Topology) -> Any:
        assert given.graph is analysis.graph
        assert len(machines.tiers) == 3
        return seconds.tolist()

    by_function = problem_of(analysis, topology, costs=own)
    by_array = problem_of(analysis, topology, costs=seconds)
    made = plan_of(by_function)
    assert made == plan_of(by_array)
    assert made.cost_models == ("custom",) * 3
    bounds = (0, *made.cuts, size)
    for t, stage in enumerate(made.figures.stages):
        assert stage.seconds == pytest.approx(seconds[t, bounds[t] : bounds[t + 1]].sum())
    best = get_planner("exhaustive")(by_array)
    assert made.figures.latency_s == pytest.approx(by_array.figures(best.cuts).latency_s)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda seconds: seconds[:2], r"`costs` have shape \(2, \d+\), for 3 tiers and"),
        (lambda seconds: seconds[:, :-1], "`costs` have shape"),
        (lambda _: [["fast"]], "`costs` are no array of numbers"),
        (lambda _: None, "`costs` have shape"),
        (lambda seconds: np.where(seconds == seconds[1, 4], np.nan, seconds), "nan seconds on tier `near`"),
        (lambda seconds: np.where(seconds == seconds[2, 0], -1, seconds), "-1 seconds on tier `cloud`"),
        (lambda seconds: np.where(seconds == seconds[0, 0], np.inf, seconds), "inf seconds on tier `edge`"),
    ],
)
def test_seconds_that_are_none(analysis: Analysis, topology: Topology, change: Any, message: str) -> None:
    seconds = np.random.default_rng(0).random((3, len(analysis.graph.nodes)))
    for costs in (lambda *_: change(seconds), change(seconds)):
        if costs is not None:
            with pytest.raises(InputError, match=message):
                problem_of(analysis, topology, costs=costs)


def test_an_objective_that_is_a_name_and_a_function(analysis: Analysis, topology: Topology) -> None:
    by_name = plan_of(problem_of(analysis, topology))
    by_function = plan_of(problem_of(analysis, topology, lambda figures: figures.latency_s))
    assert by_function.figures.custom == by_function.figures.latency_s == by_name.figures.latency_s
    assert by_function.objective == "custom"
    assert by_function.optimality == "order"  # 67 positions and 2 links: all were tried
    assert by_function.lower_bound is None
    assert "tried" in by_function.notes[0]


def test_a_plan_of_a_function_is_written_and_read(analysis: Analysis, topology: Topology) -> None:
    made = plan_of(problem_of(analysis, topology, regret))
    assert made.to_dict()["custom"] == regret(made.figures)
    assert Plan.from_dict(made.to_dict()).figures.custom == made.figures.custom
    with pytest.raises(InputError, match="the objective `custom` has no function"):
        problem_of(analysis, topology, made.objective)


def test_planners_that_know_sums_refuse_a_function(analysis: Analysis, topology: Topology) -> None:
    compared = compare(analysis, topology, objective=regret)
    rows = {row.planner: row for row in compared.rows}
    for name in ("neurosurgeon", "dads", "dnn-surgery", "decc", "cost-aware", "pso-ga", "ddpqn"):
        assert "not by custom" in (rows[name].reason or ""), name
    values = {name: rows[name].value for name in ("exact", "exhaustive")}
    assert values["exact"] == values["exhaustive"]
    assert all(row.value is None or row.value >= (values["exact"] or 0) for row in compared.rows)


@pytest.mark.parametrize("most", [0, trying.MOST])
def test_trying_against_every_combination(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(trying, "MOST", most)
    exact, exhaustive = get_planner("exact"), get_planner("exhaustive")
    proven = reached = planned = 0
    rng = np.random.default_rng(3)
    for at in range(60):
        problem = random_problem(rng, 2 + at % 3, "latency", limited=at % 2 == 1)
        own = replace(problem, objective="custom", function=regret)
        try:
            best = own.figures(exhaustive(own).cuts).custom
        except InfeasibleError:
            with pytest.raises(InfeasibleError):
                exact(own)
            continue
        found = exact(own)
        figures = own.figures(found.cuts)
        assert not own.violations(figures)
        assert figures.custom is not None
        assert best is not None
        assert figures.custom >= best * (1 - 1e-12)
        planned += 1
        proven += found.optimality == "order"
        reached += figures.custom <= best * (1 + 1e-12)
    assert planned > 20
    assert proven == (planned if most else 0)
    assert reached == planned if most else reached > planned / 2


@pytest.mark.parametrize("returned", [math.nan, None, "fast", True, [1.0]])
def test_what_is_no_number_names_the_function(analysis: Analysis, topology: Topology, returned: Any) -> None:
    def careless(figures: Figures) -> Any:
        return returned

    with pytest.raises(InputError, match="objective `careless` returned"):
        plan_of(problem_of(analysis, topology, careless))


def test_a_function_that_rules_out_every_plan(analysis: Analysis, topology: Topology) -> None:
    with pytest.raises(InfeasibleError, match="infinite for every plan"):
        plan_of(problem_of(analysis, topology, lambda _: math.inf))


def test_negative_values_are_values(analysis: Analysis, topology: Topology) -> None:
    compared = compare(
        analysis, topology, ["exact", "exhaustive", middle], objective=lambda f: -f.throughput_per_s
    )
    gaps = [row.gap for row in compared.rows]
    assert gaps[:2] == [0, 0]
    assert gaps[2] is not None
    assert gaps[2] > 0
