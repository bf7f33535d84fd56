"""The scripts that reproduce the paper: their numbers, their independent prices, and that they start."""

from __future__ import annotations

import os
import random
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dnnsplit_onnx.planning.planners import get_planner

FOLDER = Path(__file__).parents[1] / "scripts" / "paper"
SCRIPTS = sorted(path.name for path in FOLDER.iterdir() if path.is_file() and os.access(path, os.X_OK))


@pytest.fixture
def lib(monkeypatch, tmp_path):
    """The modules that the scripts share, with results in a folder of the test's own."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setenv("DNNSPLIT_PAPER_RESULTS", str(tmp_path))
    monkeypatch.delenv("DNNSPLIT_PAPER_MODELS", raising=False)
    from lib import all_plans, networks, output, presets

    return SimpleNamespace(all_plans=all_plans, networks=networks, output=output, presets=presets)


def test_every_number_says_where_it_is_from(lib):
    found = lib.presets.presets()
    assert {preset.is_assumed for preset in found.values()} == {True, False}
    table = lib.presets.assumed_table()
    assert all((f"`{preset.key}`" in table) == preset.is_assumed for preset in found.values())


@pytest.mark.parametrize(
    "row",
    [{"value": 1.0}, {"value": 1.0, "source": "a guess"}, {"value": 1.0, "source": "paper: "},
     {"source": "paper: VII"}, {"value": "1", "source": "paper: VII"}, {"value": [], "source": "paper: VII"}],
)  # fmt: skip
def test_a_number_without_a_source_is_refused(lib, row):
    with pytest.raises(ValueError, match=r"preset `edge\.gflops`"):
        lib.presets.read({"edge": {"gflops": row}})


@pytest.mark.parametrize("pi_gflops", [None, 13.5])
@pytest.mark.parametrize(("edge", "ratio"), [("raspberry_pi", 4333), ("jetson_nano", 650)])
def test_the_ratios_of_the_paper_hold(lib, edge, ratio, pi_gflops):
    low, near, cloud = lib.presets.three_tiers(10.0, edge=edge, pi_gflops=pi_gflops).tiers
    assert near.gflops / low.gflops == pytest.approx(ratio)
    assert (near.usd_per_hour / near.gflops) / (cloud.usd_per_hour / cloud.gflops) == pytest.approx(25)
    # Eqs. 12 and 13, which all of the paper rests on.
    assert low.gflops < near.gflops < cloud.gflops
    assert low.usd_per_hour / low.gflops > near.usd_per_hour / near.gflops


def test_links_take_their_own_bandwidth_delay_and_price(lib):
    lower, upper = lib.presets.three_tiers(10.0, 100.0, price_factors=(0.1, 10.0)).links
    assert (lower.bandwidth_mbps, upper.bandwidth_mbps, lower.delay_ms) == (10.0, 100.0, 1.0)
    assert upper.usd_per_hour == pytest.approx(100 * lower.usd_per_hour)
    assert upper.usd_per_hour / 10 * 730 == pytest.approx(20)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_starts(lib, script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(FOLDER / script), run_name="__main__")
    assert end.value.code == 0
    assert f"scripts/paper/{script}" in capsys.readouterr().out, "the help shows how it is run"


@pytest.mark.parametrize("objective", ["latency", "cost", "throughput"])
@pytest.mark.parametrize("accounting", ["live", "layer-input"])
@pytest.mark.parametrize("kind", ["ordered", "unordered", "unequal"])
def test_prices_of_all_plans_are_those_of_the_objective(lib, kind, accounting, objective):
    line = lib.all_plans.Line.of_nodes("tiny_residual", lib.networks.analysis("tiny_residual"))
    rng = random.Random(f"{kind} {accounting} {objective}")
    topology = lib.all_plans.random_topology(rng, is_ordered=kind != "unordered")
    case = lib.all_plans.Case(topology, 7 if kind == "unequal" else None)
    values, problem = line.values(case, objective, accounting), line.problem(case, objective, accounting)
    for first in range(line.size + 1):
        for second in range(line.size + 1):
            if first > second:
                assert np.isinf(values[first, second])
                continue
            value = problem.figures((first, second)).value(objective)
            assert values[first, second] == pytest.approx(1 / value if objective == "throughput" else value)
    for planner in ("exact", "exhaustive"):
        assert values[get_planner(planner)(problem).cuts] == pytest.approx(values.min())


def test_split_points_are_where_fewer_elements_cross_than_ever(lib):
    # A residual block of 4 elements on an input of 8: within it, 4 more must travel.
    sizes = [(8, 8), (8, 8), (4, 4), (8, 4), (8, 3), (7, 7), (2, 2)]
    cuts = [lib.networks.LayerCut(at, f"layer{at}", live, own) for at, (live, own) in enumerate(sizes)]
    model = lib.networks.LayerModel("made", tuple(cuts))
    assert model.points("live") == (0, 2, 6)
    assert model.points("layer-input") == (0, 2, 4, 6)


def test_a_table_with_a_short_row_is_refused(lib, tmp_path):
    lib.output.write_csv("t", ("a", "b"), [(1, 0.1)])
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,0.1\n"
    with pytest.raises(ValueError, match=r"t\.csv: a row of 1"):
        lib.output.write_csv("t", ("a", "b"), [(1,)])


def test_a_figure_is_the_same_file_each_time(lib, tmp_path):
    pytest.importorskip("matplotlib")
    written = []
    for _ in range(2):
        with lib.output.figures("f", 1, 2, width=3.0, height=2.0) as (left, right):
            left.plot([1, 2], [3, 4])
            right.bar([0, 1], [2, 3], hatch=lib.output.HATCHES[1])
        written.append([(tmp_path / f"f.{kind}").read_bytes() for kind in ("png", "svg")])
    assert written[0] == written[1]
    assert written[0][0].startswith(b"\x89PNG")


def test_all_goes_on_after_a_failure_and_says_so(tmp_path):
    shutil.copytree(FOLDER / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(FOLDER / "all", tmp_path)
    for name, code in (("a_bad", 3), ("b_good", 0)):
        (tmp_path / name).write_text(f"print('ran {name}')\nraise SystemExit({code})\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run([sys.executable, tmp_path / "all"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ran a_bad" in done.stdout
    assert "ran b_good" in done.stdout
    assert "1 of 2 scripts failed: a_bad" in done.stderr


def test_the_decision_table_on_its_page_is_what_the_script_says(lib):
    script = runpy.run_path(str(FOLDER / "decision_table"))
    page = (FOLDER.parents[1] / "docs" / "should-i-split.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    said = {row[0]: row[1:] for row in rows}
    networks = [name.removeprefix("light_") for name in script["NETWORKS"]]
    assert said["you want"] == [*networks, "elsewhere best"]
    assert [row[0] for row in rows if row[0] in {one.said for one in script["SITUATIONS"]}] == [
        one.said for one in script["SITUATIONS"]
    ]
    model = lib.networks.analysis(script["NETWORKS"][0])
    for at in (1, 4, 5):  # the others take a minute
        situation = script["SITUATIONS"][at]
        assert str(script["cell"](situation, model)) == said[situation.said][0]
