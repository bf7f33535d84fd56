"""`compare`: planners side by side on the screen and as JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from dnnsplit_onnx.planning.planners import PLANNERS
from tests.cli.conftest import TIERS, Run

MODEL = "zoo:light_squeezenet"
FAST = "exact,dnnsplit,neurosurgeon,dads,dnn-surgery,decc,cost-aware"


def test_json_has_a_row_a_planner(run: Run, tiers: Path) -> None:
    ended = run("compare", MODEL, "--tiers", tiers, "--planners", FAST, "--json")
    assert (ended.code, ended.err) == (0, "")
    found = ended.json
    assert [row["planner"] for row in found["planners"]] == FAST.split(",")
    exact = found["planners"][0]
    assert exact["gap"] == 0
    assert exact["value"] == pytest.approx(found["lower_bound"])
    assert found["best"] == "exact"
    assert {"cuts", "evaluated", "seconds", "notes", "reason", "feasible", "optimality"} <= exact.keys()
    plan = run("plan", MODEL, "--tiers", tiers, "--json").json
    assert exact["value"] == plan["latency_s"]
    assert exact["cuts"] == [link["position"] for link in plan["links"]]


def test_all_planners_are_compared_unless_some_are_named(run: Run, tiers: Path) -> None:
    ended = run("compare", MODEL, "--tiers", tiers, "--objective", "cost", "--json")
    rows = ended.json["planners"]
    assert [row["planner"] for row in rows] == list(PLANNERS)
    refused = {row["planner"]: row["reason"] for row in rows if row["reason"]}
    assert refused["dads"] == "planner `dads` chooses by latency or throughput, as published, not by cost"


def test_the_screen(run: Run, tiers: Path) -> None:
    ended = run("compare", MODEL, "--tiers", tiers, "--planners", "exact,pso-ga", "--planners", "cost-aware")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[0].split() == ["planner", "latency", "gap", "cuts", "at", "evaluated", "time"]
    assert [line.split()[0] for line in lines[1:4]] == ["exact", "pso-ga", "cost-aware"]
    assert "best" in lines[1]
    assert any("(proven)" in line for line in lines)
    assert "pso-ga: a random search, seed 0" in ended.out
    assert "\x1b" not in ended.out


def test_a_narrow_terminal(run: Run, tiers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    ended = run("compare", MODEL, "--tiers", tiers, "--planners", FAST)
    assert all(len(line) <= 60 for line in ended.out.splitlines())
    assert "evaluated" not in ended.out


def test_what_planners_are_shown_can_be_the_papers(run: Run, tiers: Path) -> None:
    ended = run(
        "compare", MODEL, "--tiers", tiers, "--planners", "exact,dnnsplit", "--cut-size", "layer-input"
    )
    assert "Planners were shown one layer's input" in ended.out


def test_weights(run: Run, tiers: Path) -> None:
    words = ("compare", MODEL, "--tiers", tiers, "--planners", "exact", "--json")
    found = run(*words, "--objective", "weighted", "--weight", "latency=1", "--weight", "cost=1e3").json
    assert found["weights"] == {"latency": 1.0, "cost": 1000.0, "energy": 0.0}
    assert found["planners"][0]["value"] > 0
    for wrong, message in (
        (("--objective", "weighted"), "`--objective weighted` has no weights"),
        (("--weight", "latency=1"), "`--weight` is for `--objective weighted`"),
        (("--objective", "weighted", "--weight", "speed=1"), "no weight is named `speed`"),
    ):
        ended = run(*words, *wrong)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith(f"error: {message}")
        assert "\nhint: " in ended.err


def test_limits_that_nobody_meets(run: Run, tiers: Path) -> None:
    ended = run("compare", MODEL, "--tiers", tiers, "--planners", "exact,dads", "--deadline-ms", "0.01")
    assert ended.code == 1
    assert ended.err.startswith("error: no planner found a plan within the limits")
    assert "breaks a limit" in ended.out
    assert "exact: no plan meets deadline_ms = 0.01" in ended.out


def test_wrong_usage(run: Run, tiers: Path) -> None:
    ended = run("compare", MODEL, "--tiers", tiers, "--planners", "oracle")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: no planner is named `oracle`")
    assert run("compare", MODEL).err.startswith("error: missing option `--tiers`")


def test_more_tiers_than_a_paper_has(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "four.toml"
    link, tier = "[[link]]\nbandwidth_mbps = 100\n", '[[tier]]\nname = "{}"\ngflops = {}\n'
    path.write_text(TIERS + link + tier.format("far", 2000) + link + tier.format("top", 4000))
    found = run("compare", MODEL, "--tiers", path, "--planners", FAST, "--json").json
    rows = {row["planner"]: row for row in found["planners"]}
    assert rows["dnnsplit"]["reason"].startswith("planner `dnnsplit` is defined for at most three tiers")
    for name in ("neurosurgeon", "dads", "decc"):
        assert len(rows[name]["cuts"]) == 3
