"""Grids of conditions: every point is what `plan` says of it."""

from __future__ import annotations

import json
from itertools import product

import pytest

from dnnsplit_onnx.errors import InfeasibleError, InputError, TopologyError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Link, Topology
from dnnsplit_onnx.planning import sweeping
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.planning.sweeping import Axis, parse_axis, sweep, with_setting
from dnnsplit_onnx.planning.weights import Weights
from dnnsplit_onnx.work.analysis import Analysis, measure
from tests.conftest import light

TOPOLOGY = Topology(
    tiers=(
        Tier(name="edge", gflops=10.0, usd_per_hour=0.01, watts=5.0),
        Tier(name="cloud", gflops=1000.0, usd_per_hour=1.0, watts=300.0),
    ),
    links=(Link(bandwidth_mbps=50.0, delay_ms=1.0, usd_per_hour=0.03, watts=1.0),),
)


@pytest.fixture(scope="module")
def squeezenet() -> Analysis:
    graph = load_graph(light("squeezenet"))
    return measure(graph, bind_shapes(graph))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("link.0.bandwidth_mbps=1,10,100", (1.0, 10.0, 100.0)),
        ("link.0.delay_ms=0:10:3", (0.0, 5.0, 10.0)),
        ("tier.cloud.gflops=1:1000:log4", (1.0, 10.0, 100.0, 1000.0)),
        ("tier.cloud.gflops=1e3:1e3:1", (1000.0,)),
        ("limits.deadline_ms=5", (5.0,)),
    ],
)
def test_an_axis(text: str, values: tuple[float, ...]) -> None:
    assert parse_axis(text) == Axis(text.partition("=")[0], values)


@pytest.mark.parametrize(
    "text",
    [
        "link.0.delay_ms", "link.0.delay_ms=", "=1", "k=1,,2", "k=fast", "k=1:2", "k=1:2:3:4", "k=1:2:x",
        "k=nan", "k=1,inf", "k=nan:1:3", "k=1:2:0", "k=1:2:-1", "k=0:10:log3", "k=-1:10:log3",
        "k=1:2:99999999999",
    ],
)  # fmt: skip
def test_what_is_no_axis(text: str) -> None:
    with pytest.raises(InputError) as error:
        parse_axis(text)
    assert error.value.hint


def test_a_setting_changes_one_key() -> None:
    assert with_setting(TOPOLOGY, "tier.cloud.gflops", 7.0).tiers[1].gflops == 7.0
    assert with_setting(TOPOLOGY, "tier.0.gflops", 7.0).tiers[0].gflops == 7.0
    assert with_setting(TOPOLOGY, "link.0.usd_per_hour", 0.0).links[0].usd_per_hour == 0.0
    assert with_setting(TOPOLOGY, "limits.budget_usd", 1.0).limits.budget_usd == 1.0
    assert with_setting(TOPOLOGY, "tier.edge.max_prefix", 5.0).tiers[0].max_prefix == 5
    assert TOPOLOGY.tiers[1].gflops == 1000.0


def test_a_tier_whose_name_has_dots() -> None:
    named = TOPOLOGY.tiers[0].model_copy(update={"name": "edge.v2"})
    topology = TOPOLOGY.model_copy(update={"tiers": (named, TOPOLOGY.tiers[1])})
    assert with_setting(topology, "tier.edge.v2.gflops", 7.0).tiers[0].gflops == 7.0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("bandwidth", 1.0, "is not a key of a tiers file"),
        ("link.bandwidth_mbps", 1.0, "is not a key of a tiers file"),
        ("links.0.bandwidth_mbps", 1.0, "is not a key of a tiers file"),
        ("limits", 1.0, "is not a key of a tiers file"),
        ("link.1.bandwidth_mbps", 1.0, "there is no link `1`"),
        ("tier.moon.gflops", 1.0, "there is no tier `moon`"),
    ],
)
def test_a_key_that_is_not_there(key: str, value: float, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        with_setting(TOPOLOGY, key, value)
    assert error.value.hint


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("link.0.bandwith_mbps", 1.0, "unknown key"),
        ("link.0.bandwidth_mbps", 0.0, "`link.0.bandwidth_mbps` = 0.0"),
        ("tier.edge.max_prefix", 5.5, "max_prefix"),
        ("limits.deadline_ms", -1.0, "deadline_ms"),
    ],
)
def test_a_value_that_cannot_be(key: str, value: float, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        with_setting(TOPOLOGY, key, value)


AXES = (
    parse_axis("link.0.bandwidth_mbps=1:1000:log4"),
    parse_axis("tier.edge.gflops=1,10,100"),
    parse_axis("tier.cloud.usd_per_hour=0.1,10"),
)


@pytest.mark.parametrize("objective", ["latency", "cost", "throughput", "weighted"])
def test_each_point_is_what_plan_says(squeezenet: Analysis, objective) -> None:
    weights = Weights(latency=1.0, cost=100.0) if objective == "weighted" else None
    points = list(sweep(squeezenet, TOPOLOGY, AXES, objective=objective, weights=weights))
    assert [tuple(point.settings.values()) for point in points] == list(product(*(a.values for a in AXES)))
    for point in points[::5]:
        here = TOPOLOGY
        for key, value in point.settings.items():
            here = with_setting(here, key, value)
        made = plan(
            squeezenet, here, objective=objective, pareto=False, bound=False,
            weights=weights,
        )  # fmt: skip
        assert point.plan == made


def test_costs_are_worked_out_again_where_they_change(squeezenet: Analysis) -> None:
    """Rules and speeds that come and go from point to point."""
    axes = [parse_axis("tier.edge.max_prefix=0,30"), parse_axis("tier.edge.gflops=10,1000")]
    points = list(sweep(squeezenet, TOPOLOGY, axes))
    for point in points:
        assert point.plan is not None
        assert point.plan.cuts[0] <= point.settings["tier.edge.max_prefix"]
    seconds = {point.plan.single_tier[0].latency_s for point in points if point.plan}
    assert len(seconds) == 2


def test_what_cannot_be_met_has_a_reason(squeezenet: Analysis) -> None:
    points = list(sweep(squeezenet, TOPOLOGY, [parse_axis("limits.deadline_ms=0.01,10000")]))
    assert points[0].plan is None
    assert "no plan meets deadline_ms = 0.01" in (points[0].reason or "")
    assert points[1].plan is not None
    rows = json.loads(json.dumps([point.to_dict() for point in points], allow_nan=False))
    assert [row["feasible"] for row in rows] == [False, True]
    assert rows[1]["tiers"]


def test_progress_counts_points(squeezenet: Analysis) -> None:
    told: list[tuple[int, int]] = []
    axes = [parse_axis("link.0.bandwidth_mbps=1,10,100")]
    list(sweep(squeezenet, TOPOLOGY, axes, progress=lambda *seen: told.append(seen)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_grids_that_are_refused(squeezenet: Analysis, monkeypatch) -> None:
    def first(axes: list[Axis]) -> None:
        next(sweep(squeezenet, TOPOLOGY, axes))

    with pytest.raises(InputError, match="a grid of 0 points"):
        first([])
    with pytest.raises(InputError, match="a grid of 0 points"):
        first([Axis("link.0.delay_ms", ())])
    with pytest.raises(InputError, match="two axes are `link"):
        first([parse_axis("link.0.delay_ms=1"), parse_axis("link.0.delay_ms=2")])
    monkeypatch.setattr(sweeping, "MOST_POINTS", 3)
    with pytest.raises(InputError, match="a grid of 4 points"):
        first([parse_axis("link.0.delay_ms=1,2"), parse_axis("link.0.bandwidth_mbps=1,2")])


def test_processes_plan_what_one_does(squeezenet: Analysis) -> None:
    axes = [parse_axis("link.0.bandwidth_mbps=1:1000:log40"), parse_axis("limits.deadline_ms=1,1000")]
    here = list(sweep(squeezenet, TOPOLOGY, axes))
    there = list(sweep(squeezenet, TOPOLOGY, axes, processes=2))
    assert there == here
    assert any(point.plan is None for point in there)


def test_errors_of_processes_arrive_whole(squeezenet: Analysis) -> None:
    with pytest.raises(InputError, match="no planner is named `oracle`") as error:
        list(sweep(squeezenet, TOPOLOGY, [parse_axis("link.0.delay_ms=1,2")], planner="oracle", processes=2))
    assert error.value.hint


def test_processes_are_taken_where_they_pay(squeezenet: Analysis, monkeypatch) -> None:
    asked: list[float] = []

    def worthwhile(seconds: float) -> int:
        asked.append(seconds)
        return 1

    monkeypatch.setattr(sweeping, "_worthwhile", worthwhile)
    axes = [parse_axis("link.0.bandwidth_mbps=1:1000:log20")]
    found = list(sweep(squeezenet, TOPOLOGY, axes, processes=None))
    assert found == list(sweep(squeezenet, TOPOLOGY, axes))
    assert asked
    assert asked[0] > 0
    monkeypatch.undo()
    assert sweeping._worthwhile(0.5) == 1
    assert 1 <= sweeping._worthwhile(1e9) <= 4096


def test_other_errors_are_not_points(squeezenet: Analysis) -> None:
    with pytest.raises(TopologyError, match="unknown key"):
        list(sweep(squeezenet, TOPOLOGY, [parse_axis("link.0.speed=1")]))
    with pytest.raises(InfeasibleError):
        plan(squeezenet, with_setting(TOPOLOGY, "limits.deadline_ms", 0.01))
