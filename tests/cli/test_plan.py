"""`plan`: the screen, the JSON, the file, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dnnsplit_onnx.planning.plans import load_plan
from tests.cli.conftest import TIERS, Run

MODEL = "zoo:light_squeezenet"
KEYS = {
    "objective",
    "planner",
    "optimality",
    "feasible",
    "stages",
    "links",
    "latency_s",
    "cost_usd",
    "throughput_per_s",
    "energy_j",
    "single_tier",
    "speedup_vs_best_single_tier",
    "pareto",
}


def test_json_has_the_keys_that_scripts_rely_on(run: Run, tiers: Path) -> None:
    ended = run("plan", MODEL, "--tiers", tiers, "--json")
    assert (ended.code, ended.err) == (0, "")
    found = ended.json
    assert found.keys() >= KEYS
    assert [stage["tier"] for stage in found["stages"]] == ["edge", "cloud"]
    assert all(
        {"tier", "start", "stop", "flops", "seconds", "cost_usd"} <= stage.keys() for stage in found["stages"]
    )
    assert all(
        {"from", "to", "nbytes", "seconds", "cost_usd", "values"} <= link.keys() for link in found["links"]
    )
    single = {"tier", "latency_s", "cost_usd", "throughput_per_s"}
    assert all(single <= entry.keys() for entry in found["single_tier"])


def test_the_screen_says_what_to_run_next(run: Run, tiers: Path) -> None:
    ended = run("plan", MODEL, "--tiers", tiers, "--objective", "cost", "--deadline-ms", "150")
    assert ended.code == 0
    assert re.search(r"Best cost of all cuts (of the graph|along the file order) \(proven\)\.", ended.out)
    assert ended.out.splitlines()[-1] == (
        f"next: dnnsplit-onnx sweep {MODEL} --tiers {tiers} --objective cost --deadline-ms 150 "
        "--vary link.0.bandwidth_mbps=1:1000:log7"
    )
    assert "\x1b" not in ended.out
    assert len(ended.out.splitlines()) <= 34


def test_a_written_plan_can_be_read_and_is_not_overwritten(run: Run, tiers: Path, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "plan.json"
    first = run("plan", MODEL, "--tiers", tiers, "-o", file, "--json")
    assert json.loads(file.read_text()) == first.json
    assert load_plan(file).cuts == tuple(link["position"] for link in first.json["links"])
    before = file.read_bytes()
    again = run("plan", MODEL, "--tiers", tiers, "--objective", "cost", "-o", file)
    assert again.code == 2
    assert again.err.startswith(f"error: `{file}` exists already\nhint: pass --force")
    assert file.read_bytes() == before
    assert run("plan", MODEL, "--tiers", tiers, "--objective", "cost", "-o", file, "--force").code == 0
    assert json.loads(file.read_text())["objective"] == "cost"
    assert [path.name for path in file.parent.iterdir()] == ["plan.json"]


def test_limits_that_cannot_be_met_are_exit_1(run: Run, tiers: Path) -> None:
    ended = run("plan", MODEL, "--tiers", tiers, "--deadline-ms", "0.5", "--json")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("error: no plan meets deadline_ms = 0.5: the fastest takes ")
    assert "hint: " in ended.err


def test_a_limit_at_the_optimum_is_met_and_a_step_less_is_not(run: Run, tiers: Path) -> None:
    best = run("plan", MODEL, "--tiers", tiers, "--json").json["latency_s"] * 1e3
    assert run("plan", MODEL, "--tiers", tiers, "--deadline-ms", repr(best), "--json").code == 0
    assert run("plan", MODEL, "--tiers", tiers, "--deadline-ms", repr(best * (1 - 1e-9)), "--json").code == 1


def test_unbound_dimensions_get_the_sizes_that_binding_them_gives(run: Run, tiny: Path, tiers: Path) -> None:
    assumed = run("plan", tiny, "--tiers", tiers, "--json").json
    assert assumed.pop("assumed") == {"batch": 1}
    bound = run("plan", tiny, "--tiers", tiers, "--bind", "batch=1", "--json").json
    assert bound.pop("assumed") == {}
    assert assumed == bound


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gflops = 1000", "gflops = 1000\ngflop = 1", "`tier.1.gflop` = 1: unknown key"),
        ("bandwidth_mbps = 100", "bandwidth_mbps = nan", "`link.0.bandwidth_mbps` = nan"),
        ("[[link]]\nbandwidth_mbps = 100\ndelay_ms = 1", "", "2 tiers need 1 link between them"),
        ('name = "cloud"', 'name = "edge"', "two tiers are named `edge`"),
        ("[[tier]]", "[[tier", "is not TOML"),
    ],
)
def test_a_tiers_file_that_is_wrong(run: Run, tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(TIERS.replace(old, new))
    ended = run("plan", MODEL, "--tiers", path)
    assert (ended.code, ended.out) == (2, "")
    first = ended.err.splitlines()[0]
    assert message in first
    assert str(path) in first


def test_tiers_are_needed(run: Run) -> None:
    ended = run("plan", MODEL)
    assert ended.code == 2
    assert ended.err.startswith("error: missing option `--tiers`")


def test_an_unknown_planner(run: Run, tiers: Path) -> None:
    ended = run("plan", MODEL, "--tiers", tiers, "--planner", "oracle")
    assert ended.code == 2
    assert ended.err.startswith("error: no planner is named `oracle`\nhint: known planners: exact, ")


@pytest.mark.parametrize("planner", ["exact", "exhaustive", "dnnsplit"])
def test_every_planner_plans(run: Run, tiers: Path, planner: str) -> None:
    assert run("plan", MODEL, "--tiers", tiers, "--planner", planner, "--json").json["planner"] == planner


def test_cuts_given_by_hand(run: Run, tiers: Path) -> None:
    found = run("plan", MODEL, "--tiers", tiers, "--at", "10", "--json").json
    assert found["planner"] == "at"
    assert [(stage["start"], stage["stop"]) for stage in found["stages"]] == [(0, 10), (10, 66)]
    shown = run("plan", MODEL, "--tiers", tiers, "--at", "10", "--deadline-ms", "1")
    assert shown.code == 0
    assert "This plan breaks a limit: latency" in shown.out
    assert "The cuts were given by hand." in shown.out
    assert "--at 10" in shown.out


@pytest.mark.parametrize("at", [["--at", "3", "--at", "5"], ["--at", "3,5"]])
def test_as_many_cuts_as_links(run: Run, tiers: Path, at: list[str]) -> None:
    ended = run("plan", MODEL, "--tiers", tiers, *at)
    assert ended.code == 2
    assert ended.err == "error: 2 cuts given for 2 tiers\nhint: give 1: one for each link, from tier 0 up\n"


def test_cuts_in_ascending_order(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "three.toml"
    path.write_text('[[tier]]\nname="roof"\ngflops=1\n[[link]]\nbandwidth_mbps=1\n' + TIERS)
    ended = run("plan", MODEL, "--tiers", path, "--at", "5,3")
    assert ended.code == 2
    assert ended.err.startswith("error: cut `3` comes before cut `5`: it lacks node ")


def test_a_set_of_names_is_a_cut_of_its_own(run: Run, tiers: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    words = ("plan", "zoo:light_squeezenet", "--tiers", tiers, "--at", "n8+n4", "--order", "file")
    ended = run(*words, "--json", "-o", file)
    assert ended.code == 0, ended.err
    assert (ended.json["order"], ended.json["stages"][0]["stop"]) == ("custom", 7)
    again = run("split", "zoo:light_squeezenet", "--plan", file, "-o", tmp_path / "out")
    assert again.code == 0, again.err
    slices = json.loads((tmp_path / "out" / "manifest.json").read_text())["slices"]
    sent = [port["name"] for port in slices[1]["inputs"]]
    assert sorted(sent) == sorted(ended.json["links"][0]["values"])


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("--objective", "latancy"), "latency"),
        (("--objective", "speed"), "latency"),
        (("--planner", "exakt"), "exact"),
    ],
)
def test_a_misspelt_choice_is_answered_with_the_near_one(
    run: Run, tiny: Path, tiers: Path, words: tuple[str, ...], meant: str
) -> None:
    ended = run("plan", tiny, "--tiers", tiers, "--bind", "batch=1", *words)
    assert ended.code == 2
    assert f"did you mean `{meant}`?" in ended.err


def test_suspicious_machines_are_noted(run: Run, tiny: Path, tiers: Path) -> None:
    tiers.write_text(tiers.read_text().replace("gflops = 1000", "gflops = 1000e9"))
    ended = run("plan", tiny, "--tiers", tiers, "--bind", "batch=1")
    assert ended.code == 0
    assert "if these are FLOP/s, write gflops = 1000" in ended.err
