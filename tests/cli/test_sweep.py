"""`sweep`: the map on the screen, the file, the picture."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pytest

from tests.cli.conftest import Run

MODEL = "zoo:light_squeezenet"
BANDWIDTH = "link.0.bandwidth_mbps=1:1000:log4"
HAS_MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None


def test_one_axis_is_a_table(run: Run, tiers: Path) -> None:
    ended = run("sweep", MODEL, "--tiers", tiers, "--vary", BANDWIDTH)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].split()[:2] == ["link.0.bandwidth_mbps", "best"]
    assert [line.split()[0] for line in lines[1:5]] == ["1", "10", "100", "1000"]
    assert "edge → cloud at 34" in lines[1]
    assert "decision" in ended.out


def test_two_axes_are_a_map(run: Run, tiers: Path) -> None:
    ended = run("sweep", MODEL, "--tiers", tiers, "--vary", BANDWIDTH, "--vary", "tier.edge.gflops=1,10,100")
    lines = ended.out.splitlines()
    assert lines[0] == "rows: link.0.bandwidth_mbps, columns: tier.edge.gflops"
    assert lines[1].split() == ["1", "10", "100"]
    cells = [line.split() for line in lines[2:6]]
    assert [row[0] for row in cells] == ["1", "10", "100", "1000"]
    named = {line.split()[0] for line in lines[8:]}
    assert {letter for row in cells for letter in row[1:]} == named


def test_a_map_too_wide_for_its_numbers(run: Run, tiers: Path) -> None:
    ended = run(
        "sweep", MODEL, "--tiers", tiers, "--vary", BANDWIDTH, "--vary", "tier.edge.gflops=1:100:log60"
    )
    lines = ended.out.splitlines()
    assert lines[1] == "columns from 1 to 100"
    assert [len(line.split()[1]) for line in lines[2:6]] == [60] * 4
    assert all(len(line) <= 100 for line in lines)


def test_points_that_cannot_be_met(run: Run, tiers: Path) -> None:
    words = ("sweep", MODEL, "--tiers", tiers, "--vary", "limits.deadline_ms=0.01,1000")
    ended = run(*words)
    assert "no plan keeps the limits" in ended.out
    points = run(*words, "--json").json["points"]
    assert points[0]["feasible"] is False
    assert points[0]["reason"].startswith("no plan meets deadline_ms = 0.01")
    mapped = run(*words, "--vary", BANDWIDTH)
    assert mapped.out.splitlines()[2].split()[1:] == ["·"] * 4


def test_json_has_every_point(run: Run, tiers: Path) -> None:
    ended = run("sweep", MODEL, "--tiers", tiers, "--vary", BANDWIDTH, "--objective", "cost", "--json")
    found = ended.json
    assert found["axes"] == [{"key": "link.0.bandwidth_mbps", "values": [1.0, 10.0, 100.0, 1000.0]}]
    assert [point["link.0.bandwidth_mbps"] for point in found["points"]] == [1.0, 10.0, 100.0, 1000.0]
    assert {"cuts", "tiers", "latency_s", "cost_usd", "best_single_tier"} <= found["points"][0].keys()


def test_the_file_has_a_row_a_point_and_is_not_overwritten(run: Run, tiers: Path, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "sweep.csv"
    axes = ("--vary", "limits.deadline_ms=0.01,1000", "--vary", "link.0.delay_ms=0,1,2")
    words = ("sweep", MODEL, "--tiers", tiers, *axes, "-o", file)
    assert run(*words).code == 0
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 6
    assert [row["link.0.delay_ms"] for row in rows] == ["0.0", "1.0", "2.0"] * 2
    assert [row["feasible"] for row in rows] == ["false"] * 3 + ["true"] * 3
    assert rows[0]["reason"].startswith("no plan meets")
    assert rows[0]["latency_s"] == ""
    assert float(rows[3]["latency_s"]) > 0
    before = file.read_bytes()
    again = run(*words)
    assert again.code == 2
    assert again.err.startswith(f"error: `{file}` exists already\nhint: pass --force")
    assert file.read_bytes() == before
    assert run(*words, "--force").code == 0


def test_many_axes_are_a_short_table(run: Run, tiers: Path) -> None:
    axes = ("link.0.bandwidth_mbps=1:1000:log4", "tier.edge.gflops=1,10,100", "tier.cloud.gflops=1e3:1e4:5")
    ended = run("sweep", MODEL, "--tiers", tiers, *(word for axis in axes for word in ("--vary", axis)))
    assert "... (20 more with --json or -o FILE.csv)" in ended.out


def test_processes_do_the_same(run: Run, tiers: Path) -> None:
    words = ("sweep", MODEL, "--tiers", tiers, "--vary", BANDWIDTH, "--json")
    assert run(*words, "--processes", "2").json == run(*words).json


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "missing option `--vary`"),
        (("--vary", "link.0"), "cannot read `link.0` as an axis"),
        (("--vary", "link.5.delay_ms=1"), "there is no link `5`"),
        (("--vary", "link.0.delay_ms=1", "--planner", "oracle"), "no planner is named `oracle`"),
        (("--vary", "link.0.delay_ms=1", "--vary", "link.0.delay_ms=2"), "two axes are `link.0.delay_ms`"),
        (("--vary", "link.0.delay_ms=1", "--plot", "a.gif"), "cannot draw `a.gif`"),
    ],
)
def test_wrong_usage(run: Run, tiers: Path, words: tuple[str, ...], message: str) -> None:
    ended = run("sweep", MODEL, "--tiers", tiers, *words)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {message}")
    assert "\nhint: " in ended.err


def test_a_plot_without_the_library_says_what_to_install(run: Run, tiers: Path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    ended = run("sweep", MODEL, "--tiers", tiers, "--vary", BANDWIDTH, "--plot", "a.png")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        "error: plots need matplotlib, which is not installed\nhint: pip install 'dnnsplit-onnx[plot]'\n"
    )


@pytest.mark.skipif(not HAS_MATPLOTLIB, reason="needs matplotlib")
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_plot(run: Run, tiers: Path, tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"map.{kind}"
    words = ("sweep", MODEL, "--tiers", tiers, "--vary", BANDWIDTH, "--vary", "tier.edge.gflops=1,10,100")
    assert run(*words, "--plot", file).code == 0
    start = file.read_bytes()
    assert start.startswith(b"\x89PNG" if kind == "png" else b"<?xml")
    assert run(*words, "--plot", file).code == 2
    assert run(*words, "--plot", file, "--force").code == 0
    assert file.read_bytes() == start
