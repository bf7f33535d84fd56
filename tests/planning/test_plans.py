"""A plan as data: its figures for each objective, what it is compared with, files and back."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dnnsplit_onnx.errors import PlanError
from dnnsplit_onnx.planning.figures import Figures, ParetoPoint, SingleTier, Stage, Transfer
from dnnsplit_onnx.planning.plans import Plan, load_plan, parse_plan
from dnnsplit_onnx.planning.weights import Weights

SINGLES = (
    SingleTier("edge", 4.0, 1.0, 0.5, 8.0, feasible=True, weighted=3.0),
    SingleTier("cloud", 2.0, 3.0, 0.25, None, feasible=True),
)
OBJECTIVES = ("latency", "cost", "throughput", "energy", "weighted")


def figures(**changes: Any) -> Figures:
    stages = (Stage("edge", 0, 3, 10, 0.5, 0.1, 1.0, 4096), Stage("cloud", 3, 5, 20, 0.25, 0.2, None))
    link = Transfer("edge", "cloud", 3, 400, 40, 0.25, 0.05, None, ("v", "w"))
    known: dict[str, Any] = {"weighted": 6.0, "energy_j": 16.0}
    return Figures(stages, (link,), 1.0, 0.35, 2.0, **(known | changes))


def made(**changes: Any) -> Plan:
    settings: dict[str, Any] = {
        "objective": "latency",
        "planner": "exact",
        "optimality": "order",
        "feasible": True,
        "violations": (),
        "figures": figures(),
        "single_tier": SINGLES,
    }
    return Plan(**(settings | changes))


def test_each_objective_has_a_figure() -> None:
    assert [figures().value(name) for name in OBJECTIVES] == [1.0, 0.35, 2.0, 16.0, 6.0]
    assert [SINGLES[0].value(name) for name in OBJECTIVES] == [4.0, 1.0, 0.5, 8.0, 3.0]


def test_an_unknown_figure_is_as_bad_as_can_be() -> None:
    nothing = Figures((), (), math.nan, math.nan, math.nan, None)
    worst = [math.inf, math.inf, 0.0, math.inf, math.inf]
    assert [nothing.value(name) for name in OBJECTIVES] == worst
    assert SINGLES[1].value("energy") == SINGLES[1].value("weighted") == math.inf


def test_the_best_single_tier() -> None:
    best = {name: made(objective=name).best_single_tier for name in OBJECTIVES}
    assert {name: one.tier for name, one in best.items() if one} == {
        "latency": "cloud",
        "cost": "edge",
        "throughput": "edge",  # the more, the better
        "energy": "edge",  # that of the cloud is unknown
        "weighted": "edge",
    }


def test_a_single_tier_that_breaks_a_limit_is_no_alternative() -> None:
    slower, faster = SINGLES[0], replace(SINGLES[1], feasible=False)
    assert made(single_tier=(slower, faster)).best_single_tier == slower
    assert made(single_tier=(faster,)).best_single_tier is None
    assert made(single_tier=(faster,)).speedup_vs_best_single_tier is None
    assert made(single_tier=(SINGLES[1],), objective="energy").best_single_tier is None


def test_how_many_times_better() -> None:
    assert made().speedup_vs_best_single_tier == 2.0
    assert made(objective="throughput").speedup_vs_best_single_tier == 4.0
    assert made(objective="energy").speedup_vs_best_single_tier == 0.5


@pytest.mark.parametrize("change", [{"latency_s": math.nan}, {"latency_s": math.inf}, {"latency_s": 0.0}])
def test_nothing_is_compared_with_what_is_unknown_or_free(change: dict[str, float]) -> None:
    assert made(figures=replace(figures(), **change)).speedup_vs_best_single_tier is None
    free = replace(SINGLES[1], latency_s=0.0)
    assert made(single_tier=(free,)).speedup_vs_best_single_tier is None


def test_a_split_gives_work_to_more_than_one_tier() -> None:
    assert made().is_split
    assert made().cuts == (3,)
    edge, cloud = figures().stages
    alone = (replace(edge, stop=0), replace(cloud, start=0))
    assert not made(figures=replace(figures(), stages=alone)).is_split
    three = (replace(edge, stop=2), Stage("near", 2, 2, 0, 0.0, 0.0, None), replace(cloud, start=2))
    assert made(figures=replace(figures(), stages=three)).cuts == (2, 2)


def test_what_is_not_said_of_a_plan() -> None:
    plain = made()
    assert (plain.order, plain.accounting, plain.evaluated) == ("file", "live", 0)
    assert (plain.pareto, plain.notes, plain.cost_models, plain.bindings, plain.limits) == (
        (),
        (),
        (),
        {},
        {},
    )
    assert (plain.lower_bound, plain.gap, plain.weights, plain.permutation, plain.topology) == (None,) * 5


FULL = {
    "violations": ("too slow",),
    "feasible": False,
    "pareto": (ParetoPoint((3,), 1.0, 0.35, 2.0, None),),
    "order": "custom",
    "accounting": "layer-input",
    "bindings": {"n": 2},
    "limits": {"deadline_ms": 5.0},
    "evaluated": 7,
    "notes": ("a note",),
    "lower_bound": 0.5,
    "gap": 0.25,
    "weights": Weights.of({"latency": 2.0, "energy": 3.0}),
    "permutation": (1, 0, 2, 3, 4),
    "cost_models": ("profile", "gflops"),
    "topology": {"tier": [{"name": "edge"}]},
}


def test_a_plan_as_json() -> None:
    data = json.loads(json.dumps(made(**FULL).to_dict()))
    assert data["links"] == [
        {
            "from": "edge",
            "to": "cloud",
            "position": 3,
            "nbytes": 400,
            "down_nbytes": 40,
            "seconds": 0.25,
            "cost_usd": 0.05,
            "energy_j": None,
            "values": ["v", "w"],
            "code": "raw",
            "coded": [],
            "waiting_s": 0.0,
            "utilisation": None,
            "once_nbytes": 0,
            "once_seconds": 0.0,
            "raw_nbytes": None,
            "prefill_s": None,
            "step_s": None,
            "prefill_nbytes": None,
            "step_nbytes": None,
        }
    ]
    assert data["stages"][0] == {
        "tier": "edge",
        "start": 0,
        "stop": 3,
        "flops": 10,
        "seconds": 0.5,
        "cost_usd": 0.1,
        "energy_j": 1.0,
        "memory_nbytes": 4096,
        "machines": [],
        "waiting_s": 0.0,
        "utilisation": None,
        "interpolated": False,
        "prefill_s": None,
        "step_s": None,
        "cache_nbytes": None,
    }
    plain = {name: data[name] for name in FULL if name not in ("pareto", "weights")}
    written = {name: list(value) if isinstance(value, tuple) else value for name, value in FULL.items()}
    assert plain == {name: written[name] for name in plain}
    assert data["pareto"] == [
        {"cuts": [3], "latency_s": 1.0, "cost_usd": 0.35, "throughput_per_s": 2.0, "energy_j": None}
    ]
    assert data["weights"] == FULL["weights"].to_dict()  # type: ignore[attr-defined]
    named = ("schema_version", "objective", "planner", "optimality", "speedup_vs_best_single_tier")
    assert [data[name] for name in named] == [1, "latency", "exact", "order", 2.0]
    totals = ("latency_s", "cost_usd", "throughput_per_s", "energy_j", "weighted")
    assert [data[name] for name in totals] == [1.0, 0.35, 2.0, 16.0, 6.0]


@pytest.mark.parametrize("changes", [{}, FULL], ids=["plain", "full"])
def test_a_plan_comes_back_from_its_file(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(made(**changes).to_dict()))
    assert load_plan(file) == made(**changes)


def test_keys_that_came_later_may_be_missing() -> None:
    data = made().to_dict()
    later = ("notes", "lower_bound", "gap", "weights", "weighted", "permutation", "cost_models", "topology")
    old = Plan.from_dict({name: value for name, value in data.items() if name not in later})
    assert old == made(figures=figures(weighted=None))


def test_unknown_figures_are_null_in_a_file_and_nan_again() -> None:
    link = replace(figures().links[0], nbytes=None, seconds=math.nan, cost_usd=math.nan)
    unknown = {"latency_s": math.nan, "cost_usd": math.nan, "throughput_per_s": math.nan, "links": (link,)}
    data = made(
        figures=replace(figures(), **unknown),
        single_tier=(replace(SINGLES[0], latency_s=math.nan, throughput_per_s=math.inf),),
    ).to_dict()
    assert "NaN" not in json.dumps(data)
    assert "Infinity" not in json.dumps(data)
    read = Plan.from_dict(data)
    values = (read.figures.latency_s, read.figures.cost_usd, read.figures.throughput_per_s)
    assert all(math.isnan(value) for value in values)
    assert math.isnan(read.figures.links[0].seconds)
    assert math.isnan(read.figures.links[0].cost_usd)
    assert read.figures.links[0].nbytes is None
    assert math.isnan(read.single_tier[0].latency_s)
    assert math.isnan(read.single_tier[0].throughput_per_s)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "plan of schema version 2, expected 1"),
        ({"schema_version": None}, "plan of schema version None, expected 1"),
        ({"stages": None}, "not a plan: "),
        ({"objective": "beauty"}, "not a plan: `objective`: input should be 'latency'"),
        ({"evaluated": "many"}, "not a plan: `evaluated`: input should be a valid integer"),
        ({"weights": {"beauty": 1}}, "not a plan: "),
        ({"latency_s": 10**400}, "not a plan: "),
    ],
)
def test_what_is_no_plan_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError) as refused:
        Plan.from_dict(made().to_dict() | change)
    assert str(refused.value).startswith(message)
    if message.startswith("not"):
        assert refused.value.hint == "write one with `plan ... -o plan.json`"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff\xfe", "cannot read plan `my.json`: "),
        (b"{", "cannot read plan `my.json`: "),
        (b"[" * 100_000, "cannot read plan `my.json`: "),
        (b"[1]", "`my.json` is not a plan"),
    ],
)
def test_text_that_is_no_plan_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(PlanError) as refused:
        parse_plan(text, "my.json")
    assert str(refused.value).startswith(message)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=f"cannot read plan `{tmp_path / 'none.json'}`: "):
        load_plan(tmp_path / "none.json")


def test_a_plan_may_come_through_a_pipe() -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, json.dumps(made().to_dict()).encode())
        os.close(writing)
        assert load_plan(f"/dev/fd/{reading}") == made()
    finally:
        os.close(reading)


def test_a_notebook_and_a_terminal_show_it() -> None:
    assert "<table" in made()._repr_html_()
    console = Console(width=100, record=True, file=StringIO())
    console.print(made())
    assert "edge" in console.export_text()


def test_print_shows_a_table_and_repr_a_line() -> None:
    shown = str(made())
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.splitlines()[0] == "best latency by `exact`: no cut along the order does better"
    rows = [line.split() for line in shown.splitlines()]
    assert ["edge", "3", "1e-08", "500", "0.1"] in rows
    assert ["cut", "at", "3", "0.4", "250", "0.05"] in rows
    assert ["this", "plan", "1000", "0.35", "2"] in rows
    assert repr(made()) == "<Plan latency, edge 0:3, cloud 3:5, 1000 ms>"


def test_records_are_rows_in_the_order_of_a_request() -> None:
    rows = made().records()
    assert [(row["kind"], row["name"]) for row in rows] == [
        ("tier", "edge"),
        ("link", "edge - cloud"),
        ("tier", "cloud"),
    ]
    assert sum(row["seconds"] for row in rows) == made().figures.latency_s
    assert all(not isinstance(value, list | tuple | dict) for row in rows for value in row.values())
