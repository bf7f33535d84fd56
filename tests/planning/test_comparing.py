"""Planners side by side are priced by what is, not by what they were shown."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from dnnsplit_onnx.errors import InfeasibleError, InputError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Limits, Link, Topology
from dnnsplit_onnx.planning import comparing
from dnnsplit_onnx.planning.choosing import problem_of
from dnnsplit_onnx.planning.comparing import Comparison, Row, compare
from dnnsplit_onnx.planning.planners import PLANNERS, Problem, Solution
from dnnsplit_onnx.planning.weights import Weights
from dnnsplit_onnx.work.analysis import Analysis, measure
from tests.conftest import light
from tests.dags import random_workload


def analysis(name: str) -> Analysis:
    graph = load_graph(light(name))
    return measure(graph, bind_shapes(graph))


@pytest.fixture(scope="module")
def squeezenet() -> Analysis:
    return analysis("squeezenet")


def tiers(mbps: float = 50.0, **limits: object) -> Topology:
    return Topology(
        tiers=(
            Tier(name="edge", gflops=13.5, usd_per_hour=0.006, watts=6.4),
            Tier(name="near", gflops=1000.0, usd_per_hour=0.4, watts=100.0),
            Tier(name="cloud", gflops=19500.0, usd_per_hour=4.1, watts=400.0),
        ),
        links=(
            Link(bandwidth_mbps=mbps, delay_ms=1.0, usd_per_hour=0.028),
            Link(bandwidth_mbps=200.0, delay_ms=10.0, usd_per_hour=0.028),
        ),
        limits=Limits.model_validate(limits),
    )


def rows_of(comparison: Comparison) -> dict[str, Row]:
    return {row.planner: row for row in comparison.rows}


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch):
    """Registers planners made for a test."""

    def register(**planners):
        for name, planner in planners.items():
            monkeypatch.setitem(PLANNERS, name, planner)

    return register


def test_every_planner_has_a_row_and_none_beats_exact(squeezenet: Analysis) -> None:
    names = [name for name in PLANNERS if name != "exhaustive"]
    found = compare(squeezenet, tiers(), names)
    assert [row.planner for row in found.rows] == names
    by_name = rows_of(found)
    assert by_name["exact"].gap == 0
    for row in found.rows:
        if row.value is None:
            assert row.reason
            continue
        assert row.gap is not None
        assert row.gap >= 0
        assert row.seconds > 0
        assert row.evaluated > 0
    assert found.best is by_name["exact"]
    assert found.lower_bound == pytest.approx(by_name["exact"].value)
    assert found.bound_gap == 0
    assert by_name["pso-ga"].notes


def test_cuts_are_priced_by_live_values_whatever_planners_saw() -> None:
    topology = tiers(mbps=10.0)
    inception = analysis("inception_v1")
    shown = compare(inception, topology, ["exact"], accounting="layer-input")
    truth = problem_of(inception, topology)
    believed = problem_of(inception, topology, accounting="layer-input")
    (row,) = shown.rows
    assert row.cuts is not None
    assert row.value == truth.figures(row.cuts).latency_s
    best = compare(inception, topology, ["exact"]).rows[0]
    assert best.value is not None
    assert row.value > 4 * best.value  # the layer's input alone misleads here
    assert believed.figures(row.cuts).latency_s < best.value
    assert shown.bound_gap is not None
    assert shown.bound_gap > 0


def test_gaps_are_to_the_best_that_keeps_the_limits(squeezenet: Analysis, only) -> None:
    topology = tiers(budget_usd=5e-7)
    truth = problem_of(squeezenet, topology)
    only(rash=lambda _: Solution((0, 66), "none", 1), slow=lambda p: Solution(p.single_tier[0], "none", 1))
    found = rows_of(compare(squeezenet, topology, ["rash", "slow", "exact"]))
    assert not found["rash"].feasible
    assert found["rash"].violations == truth.violations(truth.figures((0, 66)))
    assert found["slow"].feasible
    assert found["exact"].gap == 0
    assert found["slow"].gap == pytest.approx(found["slow"].value / found["exact"].value - 1)


def test_throughput_gaps_are_of_what_is_lost(squeezenet: Analysis, only) -> None:
    only(slow=lambda p: Solution(p.single_tier[0], "none", 1))
    found = rows_of(compare(squeezenet, tiers(), ["exact", "slow"], objective="throughput"))
    assert found["slow"].gap == pytest.approx(found["exact"].value / found["slow"].value - 1)
    assert found["slow"].gap > 0


def test_no_plan_has_a_reason(squeezenet: Analysis, only) -> None:
    def none(_: Problem) -> Solution:
        raise InfeasibleError("there is none")

    only(none=none)
    found = compare(squeezenet, tiers(), ["none", "neurosurgeon"], objective="cost")
    assert [row.reason for row in found.rows] == [
        "there is none",
        "planner `neurosurgeon` chooses by latency or energy, as published, not by cost",
    ]
    assert found.best is None
    assert found.bound_gap is None
    assert found.lower_bound is not None


def test_a_missing_library_says_what_to_install(squeezenet: Analysis, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    (row,) = compare(squeezenet, tiers(), ["ddpqn"]).rows
    assert row.reason is not None
    assert row.reason.endswith("not installed: pip install 'dnnsplit-onnx[ddpqn]'")


def test_sets_of_nodes_are_priced_as_such() -> None:
    seen = 0
    for seed in range(60):
        drawn = random_workload(np.random.default_rng(seed), 9)
        topology = Topology(
            tiers=(Tier(name="a", gflops=1e-3), Tier(name="b", gflops=1e-2)),
            links=(Link(bandwidth_mbps=1.0),),
        )
        found = compare(drawn, topology, ["dads", "exact"])
        dads, exact = found.rows
        assert dads.value is not None
        assert exact.value is not None
        assert dads.value <= exact.value * (1 + 1e-12)  # over the DAG, exact over the order
        seen += not dads.is_prefix
        if dads.value < exact.value * (1 - 1e-9):
            assert found.best is dads
            assert found.bound_gap == 0
    assert seen


def test_data_is_json(squeezenet: Analysis, only) -> None:
    only(unknown=lambda p: Solution(p.single_tier[1], "none", 1))
    found = compare(
        squeezenet, tiers(), ["exact", "unknown"], objective="weighted", weights=Weights(latency=1)
    )
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["weights"] == {"latency": 1.0, "cost": 0.0, "energy": 0.0}
    assert data["best"] == "exact"
    assert data["planners"][0]["cuts"] == list(found.rows[0].cuts or ())


def test_unknown_energy_is_no_value(squeezenet: Analysis, only) -> None:
    only(through=lambda _: Solution((0, 66), "none", 1))
    found = compare(squeezenet, tiers(), ["exact", "through"], objective="energy")
    through = rows_of(found)["through"]  # over a link without watts
    assert (through.value, through.feasible, through.gap) == (None, False, None)
    assert rows_of(found)["exact"].cuts == (66, 66)


def test_names_are_checked_before_anything_runs(squeezenet: Analysis, only, monkeypatch) -> None:
    monkeypatch.setattr(comparing, "run_planner", lambda *_: pytest.fail("nothing should run"))
    with pytest.raises(InputError, match="no planner is named `oracle`"):
        compare(squeezenet, tiers(), ["exact", "oracle"])
    with pytest.raises(InputError, match="no planner to compare"):
        compare(squeezenet, tiers(), [])


def test_progress_names_the_planner_at_work(squeezenet: Analysis) -> None:
    told: list[tuple[int, int, str]] = []
    compare(squeezenet, tiers(), ["exact", "dnnsplit", "exact"], progress=lambda *told_: told.append(told_))
    assert told == [(0, 2, "exact"), (1, 2, "dnnsplit")]


def test_a_planner_that_does_nothing_at_all_has_no_ratio(only) -> None:
    """Where the best takes no time, there is no telling how much worse another is."""
    drawn = random_workload(np.random.default_rng(1), 3)
    topology = Topology(
        tiers=(Tier(name="a", gflops=1.0), Tier(name="b", gflops=2.0)), links=(Link(bandwidth_mbps=8.0),)
    )
    only(all_above=lambda p: Solution(p.single_tier[1], "none", 1))
    found = compare(drawn, topology, ["exact", "all_above"], objective="cost")
    assert [row.gap for row in found.rows] == [0.0, 0.0]
    assert all(math.isclose(row.value or 0.0, 0.0) for row in found.rows)
