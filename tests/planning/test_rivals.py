"""A split beside its rivals: every row is the price of an ordinary plan, and the best split is the best."""

from __future__ import annotations

import json
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.models import model_path
from dnnsplit_onnx.planning.cascades import SmallModel
from dnnsplit_onnx.planning.choosing import plan, problem_of, single_tiers
from dnnsplit_onnx.planning.figures import Objective
from dnnsplit_onnx.planning.rivalry import rivals
from dnnsplit_onnx.planning.rivals import Rival, Rivals
from dnnsplit_onnx.work.analysing import analyse
from dnnsplit_onnx.work.analysis import Analysis
from tests.dags import random_workload
from tests.strategies import random_topology

OBJECTIVES: tuple[Objective, ...] = ("latency", "cost", "throughput", "energy")
PIXELS = 224 * 224
JPEG = {"code": "jpeg", "nbytes": PIXELS * 2 // 8}


@pytest.fixture(scope="module")
def large() -> Analysis:
    return analyse(model_path("light_squeezenet"))


@pytest.fixture(scope="module")
def small() -> Analysis:
    return analyse(model_path("tiny_residual"))


def machines(**more: Any) -> Topology:
    tiers = [
        {"name": "edge", "gflops": 10, "usd_per_hour": 0.01, "watts": 5},
        {"name": "near", "gflops": 300, "usd_per_hour": 0.4, "watts": 80},
        {"name": "cloud", "gflops": 20000, "usd_per_hour": 4, "watts": 400},
    ]
    links = [
        {"bandwidth_mbps": 50, "delay_ms": 1, "usd_per_gb": 0.1, "watts": 2},
        {"bandwidth_mbps": 100, "delay_ms": 10, "usd_per_gb": 0.1, "watts": 2},
    ]
    return parse_topology({"tier": tiers, "link": links} | more, "rivals")


def named(table: Rivals, start: str) -> Rival:
    (row,) = [row for row in table.rows if row.name.startswith(start)]
    return row


def assert_same(row: Rival, figures: Any) -> None:
    for name in ("latency_s", "cost_usd", "throughput_per_s", "energy_j"):
        assert getattr(row, name) == getattr(figures, name), name


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_rows_are_what_plans_say(large: Analysis, objective: Objective) -> None:
    topology = machines()
    table = rivals(large, topology, objective=objective)
    made = plan(large, topology, objective=objective, pareto=False)
    for single in made.single_tier:
        assert_same(named(table, f"all on {single.tier}"), single)
    if made.is_split:
        assert_same(split_of(table), made.figures)
    name = large.graph.inputs[0]
    for sent, said in (
        ("uint8 input", {"input_nbytes": {name: PIXELS * 3}}),
        ("JPEG input", {"input": {name: JPEG}}),
    ):
        uppers = single_tiers(problem_of(large, topology.changed(**said), objective))[1:]
        best = (max if objective == "throughput" else min)(uppers, key=lambda one: one.value(objective))
        assert_same(named(table, sent), best)


def split_of(table: Rivals) -> Rival:
    """The best split without codes."""
    (row,) = [row for row in table.rows if row.name == "the best split"]
    return row


@pytest.mark.parametrize("seed", range(40))
def test_the_best_split_is_the_best_of_all_that_are_splits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    analysis, topology = random_workload(rng, 7), random_topology(rng, 2 + seed % 2)
    objective: Objective = OBJECTIVES[seed % 3]
    problem = problem_of(analysis, topology, objective)
    links, size = len(topology.links), problem.costs.size
    values = [
        problem.figures(cuts).value(objective)
        for cuts in combinations_with_replacement(range(size + 1), links)
        if any(0 < cut < size for cut in cuts)
    ]
    best = max(values) if objective == "throughput" else min(values)
    row = split_of(rivals(analysis, topology, objective=objective))
    assert len(row.tiers) > 1
    # Off the order there may be a better one; a worse one there is not.
    mine = row.value(objective)
    assert mine >= best * (1 - 1e-12) if objective == "throughput" else mine <= best * (1 + 1e-12)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_cascade_is_an_average(large: Analysis, small: Analysis, share: float) -> None:
    topology = machines()
    table = rivals(large, topology, small=SmallModel(small, "tiny", escalation=share))
    alone = plan(small, topology, pareto=False).single_tier[0]
    assert_same(named(table, "tiny on edge"), alone)
    above = named(table, "JPEG input")
    row = named(table, "cascade: tiny on edge, else ")
    assert row.answers == "other"
    assert row.latency_s == pytest.approx(alone.latency_s + share * above.latency_s)
    assert row.cost_usd == pytest.approx(alone.cost_usd + share * above.cost_usd)
    assert row.energy_j == pytest.approx(alone.energy_j + share * above.energy_j)
    slowest = max(1 / alone.throughput_per_s, share / above.throughput_per_s)
    assert row.throughput_per_s == pytest.approx(1 / slowest)


def test_a_cascades_slowest_request_keeps_the_deadline(large: Analysis, small: Analysis) -> None:
    tiny = SmallModel(small, "tiny", escalation=0.1)
    free = rivals(large, machines(), small=tiny)
    both = named(free, "tiny on edge").latency_s + named(free, "JPEG input").latency_s
    for deadline_ms, feasible in ((both * 1001, True), (both * 999, False)):
        limited = rivals(large, machines(limits={"deadline_ms": deadline_ms}), small=tiny)
        row = named(limited, "cascade: ")
        assert row.feasible is feasible
        assert bool(row.violations) is not feasible


def test_a_cascade_at_a_rate(large: Analysis, small: Analysis) -> None:
    # M/M/1 (see `waiting`): the edge sees every request, what is above sees a quarter of them.
    rate, share = 100.0, 0.25
    topology = machines(workload={"requests_per_s": rate})
    table = rivals(large, topology, small=SmallModel(small, "tiny", escalation=share))
    edge_s = plan(small, machines(), pareto=False).single_tier[0].latency_s
    sent = {"workload": {"requests_per_s": rate * share}, "input": {large.graph.inputs[0]: JPEG}}
    above = min(one.latency_s for one in single_tiers(problem_of(large, machines(**sent)))[1:])
    expected = edge_s / (1 - rate * edge_s) + share * above
    assert named(table, "cascade: ").latency_s == pytest.approx(expected)
    coded = named(table, "the best split, with codes")
    assert coded.reason is not None
    assert "codes are not planned together with a workload" in coded.reason


def test_inputs_that_the_tiers_file_states(large: Analysis) -> None:
    topology = machines(input_nbytes={large.graph.inputs[0]: 5000})
    table = rivals(large, topology)
    stated = named(table, "input as stated, all on ")
    assert "5,000" in stated.assumes[0]
    assert stated.latency_s == min(one.latency_s for one in plan(large, topology).single_tier[1:])
    assert named(table, "all on cloud").latency_s > stated.latency_s  # a tensor
    assert not [row for row in table.rows if row.name.startswith(("JPEG", "uint8"))]


def test_a_picture_that_the_tiers_file_describes(large: Analysis) -> None:
    said = {"code": "jpeg", "nbytes": 5000, "mean": 0, "scale": 1}
    table = rivals(large, machines(input={large.graph.inputs[0]: said}))
    stated, pixels = named(table, "input as stated, all on "), named(table, "all on cloud")
    assert "5,000" in stated.assumes[0]
    assert stated.latency_s < pixels.latency_s < named(rivals(large, machines()), "all on cloud").latency_s


def test_machines_of_one_tier(large: Analysis) -> None:
    board = {"gflops": 10}
    tier = {
        "name": "edge",
        "usd_per_hour": 0.01,
        "machine": [{"name": "a", **board}, {"name": "b", **board}],
        "lan": {"bandwidth_mbps": 1000, "delay_ms": 0.1},
    }
    above = {"name": "cloud", "gflops": 20}
    topology = parse_topology({"tier": [tier, above], "link": [{"bandwidth_mbps": 5}]}, "rows")
    table = rivals(large, topology)
    shared = named(table, "rows shared in edge")
    assert_same(shared, plan(large, topology, pareto=False).figures)
    assert shared.latency_s < named(table, "all on edge").latency_s
    assert named(table, "all on edge").assumes == ("machine `a` works alone",)
    assert named(table, "the best split, with codes").reason is None  # of the first machine


def test_what_cannot_be_priced_is_a_row_that_says_why(large: Analysis, small: Analysis) -> None:
    table = rivals(large, machines(), small=SmallModel(small, "tiny"))
    assert "nobody says how often" in (named(table, "cascade").reason or "")
    lone = rivals(large, parse_topology({"tier": [{"name": "edge", "gflops": 1}]}, "one"))
    assert [row.kind for row in lone.rows] == ["single"]
    with pytest.raises(InputError, match="no share"):
        SmallModel(small, "tiny", escalation=1.5)
    with pytest.raises(InputError, match="bits a pixel"):
        rivals(large, machines(), bits_per_pixel=0)


def test_rules_about_the_large_models_nodes_do_not_bind_the_small_one(
    large: Analysis, small: Analysis
) -> None:
    tiers = [
        {"name": "edge", "gflops": 10, "private": True, "pin": [large.graph.nodes[0].name]},
        {"name": "cloud", "gflops": 20000},
    ]
    topology = parse_topology({"tier": tiers, "link": [{"bandwidth_mbps": 50}]}, "private")
    table = rivals(large, topology, small=SmallModel(small, "tiny", escalation=0.5))
    assert named(table, "tiny on edge").feasible
    assert not named(table, "cascade").feasible  # it sends what is private
    assert not named(table, "JPEG input").feasible


def test_the_table_as_data(large: Analysis, small: Analysis) -> None:
    tiny = SmallModel(small, "tiny", escalation=0.5, accuracies={"small": 0.6, "cascade": 0.7})
    table = rivals(large, machines(), small=tiny, accuracy=0.75)
    data = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert data["best"] == min(table.rows, key=lambda row: row.latency_s).name
    of = {row["name"]: row for row in data["rivals"]}
    assert [of[name]["accuracy"] for name in ("all on edge", "tiny on edge")] == [0.75, 0.6]
    assert min(row["gap"] for row in data["rivals"]) == 0
    split, other = table.best(split=True), table.best(split=False)
    assert split is not None
    assert other is not None
    assert data["gain_of_splitting"] == other.latency_s / split.latency_s
    assert len(table.records()) == len(table.rows)
