"""The objective `weighted`: any sum of latency, cost and energy, judged by `evaluate` alone."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings

from dnnsplit_onnx.errors import InfeasibleError, InputError, TopologyError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.planning.choosing import plan, problem_of
from dnnsplit_onnx.planning.planners import Problem, get_planner
from dnnsplit_onnx.planning.planners.dag import dag_optimum, gap_above
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.planning.weights import Weights
from tests import naive
from tests.conftest import light
from tests.dags import closed_sets
from tests.planning.planners.test_dag import figure, random_dag_problem
from tests.strategies import (
    generators,
    problems,
    random_cuts,
    random_problem,
    random_topology,
    random_weights,
)

exact, exhaustive = get_planner("exact"), get_planner("exhaustive")


@settings(max_examples=300, deadline=None)
@given(problems(), generators)
def test_is_the_weighted_sum_of_the_figures(problem, rng) -> None:
    weights = random_weights(rng)
    problem = replace(problem, weights=weights)
    cuts = random_cuts(rng, problem)
    if not problem.is_known[list(cuts)].all():
        return
    found = naive.figures(cuts, problem.costs, problem.topology)
    expected = 0.0
    for name, weight in weights.to_dict().items():
        if weight:
            part = found[name]
            expected = math.nan if part is None else expected + weight * part
    mine = problem.figures(cuts).weighted
    assert (mine is None) is math.isnan(expected)
    if mine is not None:
        assert mine == pytest.approx(expected, rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("measure", ["latency", "cost", "energy"])
def test_one_weight_of_1_is_that_objective(measure: str) -> None:
    for seed in range(60):
        problem = random_problem(np.random.default_rng([seed, 8]), 3, measure, limited=True)
        alone = replace(problem, objective="weighted", weights=Weights.of({measure: 1}))
        try:
            best = problem.figures(exact(problem).cuts)
        except (InfeasibleError, TopologyError) as error:
            with pytest.raises(type(error)):
                exact(alone)
            continue
        assert alone.figures(exact(alone).cuts).weighted == best.value(problem.objective)


@settings(max_examples=100, deadline=None)
@given(generators)
def test_it_lies_between_the_two_it_weighs(rng) -> None:
    """More weight on the one never makes that one worse, nor the other better."""
    problem = random_problem(rng, 3, "latency", limited=False)
    figures = []
    for weight in (0.1, 1.0, 10.0, 1e3):
        weighted = replace(problem, objective="weighted", weights=Weights(latency=1.0, cost=weight))
        figures.append(weighted.figures(exact(weighted).cuts))
    for less, more in pairwise(figures):
        slack = 1e-9 * max(abs(less.cost_usd), abs(more.latency_s), 1e-300)
        assert more.cost_usd <= less.cost_usd + slack
        assert more.latency_s >= less.latency_s - slack


def test_the_bound_is_the_best_of_all_chains_of_sets() -> None:
    for seed in range(40):
        problem, analysis = random_dag_problem(seed, "latency")
        weights = random_weights(np.random.default_rng(seed))
        weighted = replace(problem, objective="weighted", weights=weights)
        if len(problem.topology.links) != 1:
            continue
        best = min(
            sum(
                weight * figure((below,), analysis, problem.topology, name)
                for name, weight in weights.to_dict().items()
                if weight
            )
            for below in closed_sets(analysis)
        )
        optimum = dag_optimum(weighted, analysis)
        assert optimum is not None
        assert optimum.value == pytest.approx(best, rel=1e-9)
        assert gap_above(optimum.value, weighted, weighted.figures(exact(weighted).cuts)) >= 0


def test_unknown_energy_matters_only_if_it_is_weighed() -> None:
    rng = np.random.default_rng(3)
    problem = random_problem(rng, 2, "latency", limited=False)
    tiers = tuple(tier.model_copy(update={"watts": None}) for tier in problem.topology.tiers)
    below = problem.costs.seconds_below + np.arange(problem.costs.size + 1)
    problem = replace(
        problem,
        objective="weighted",
        weights=Weights(latency=1.0),
        costs=replace(problem.costs, seconds_below=below),
        topology=problem.topology.model_copy(update={"tiers": tiers}),
    )
    assert problem.figures(exact(problem).cuts).weighted is not None
    with pytest.raises(TopologyError, match="no `watts`"):
        exact(replace(problem, weights=Weights(latency=1.0, energy=1e-9)))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["latency"], "cannot read the weight `latency`"),
        (["latency=fast"], "cannot read the weight `latency=fast`"),
        (["speed=1"], "no weight is named `speed`"),
        (["latency=1", "latency=2"], "two weights are given for latency"),
        (["latency=-1"], "the weight of latency is -1"),
        (["cost=nan"], "the weight of cost is nan"),
        (["cost=inf"], "the weight of cost is inf"),
        (["latency=0", "cost=0"], "every weight is 0"),
    ],
)
def test_weights_that_are_none(texts: list[str], message: str) -> None:
    with pytest.raises(InputError) as error:
        Weights.parse(texts)
    assert message in error.value.message
    assert error.value.hint or "two weights" in message


def test_weights_are_numbers() -> None:
    assert Weights.parse(["latency=1", "cost=2e3"]) == Weights.of({"latency": 1, "cost": 2000.0})
    for wrong in ("1", True, None):
        with pytest.raises(InputError, match="the weight of cost is"):
            Weights.of({"cost": wrong})  # type: ignore[dict-item]


def test_the_objective_needs_weights() -> None:
    problem = random_problem(np.random.default_rng(0), 2, "latency", limited=False)
    with pytest.raises(InputError, match="has no weights"):
        Problem(problem.costs, problem.topology, "weighted")


def test_a_weighted_plan_survives_json_and_older_ones_are_read() -> None:
    graph = load_graph(light("squeezenet"))
    topology = random_topology(np.random.default_rng(4), 3, ascending=True)
    made = plan(graph, topology, objective="weighted", weights={"latency": 1, "cost": 50.0})
    assert made.optimality == "dag"
    data = json.loads(json.dumps(made.to_dict()))
    assert data["weights"] == {"latency": 1.0, "cost": 50.0, "energy": 0.0}
    assert data["weighted"] == made.figures.value("weighted")
    assert Plan.from_dict(data) == made
    assert made.speedup_vs_best_single_tier == pytest.approx(
        min(single.weighted or math.inf for single in made.single_tier) / made.figures.value("weighted")
    )
    plain = plan(graph, topology).to_dict()
    assert (plain["weights"], plain["weighted"], plain["permutation"]) == (None, None, None)
    for single in plain["single_tier"]:
        del single["weighted"]
    for key in ("weights", "weighted", "permutation"):
        del plain[key]
    assert Plan.from_dict(plain).figures.weighted is None


def test_weights_price_any_plan() -> None:
    graph = load_graph(light("squeezenet"))
    topology = random_topology(np.random.default_rng(4), 2)
    made = plan(graph, topology, weights=Weights(latency=2.0))
    assert made.figures.weighted == pytest.approx(2 * made.figures.latency_s)
    assert problem_of(made_workload(graph), topology, weights={"cost": 1}).weights == Weights(cost=1.0)


def made_workload(graph):
    from dnnsplit_onnx.graph.shapes import bind_shapes
    from dnnsplit_onnx.work.analysis import measure

    return measure(graph, bind_shapes(graph))
