"""Packages of other people: found by their entry points, and never the end of a command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import onnx
import pytest

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "half-way"
version = "1"

[project.entry-points."dnnsplit_onnx.planners"]
half-way = "half_way:plan"
exact = "half_way:plan"
failing = "half_way:fail"
broken = "half_way.missing:plan"

[project.entry-points."dnnsplit_onnx.flops"]
formulas = "half_way_formulas"
broken = "half_way_missing"

[tool.setuptools]
py-modules = ["half_way", "half_way_formulas"]
"""
PLANNER = """
from dnnsplit_onnx.planning.planners import Problem, Solution


def plan(problem: Problem) -> Solution:
    return Solution((problem.costs.size // 2,) * len(problem.topology.links), "none", 1)


def fail(problem: Problem) -> Solution:
    return 1 / 0
"""
FORMULAS = """
from dnnsplit_onnx.work.flops import NodeView, Work, register


@register("ScaledAdd", domain="com.example")
def scaled_add(node: NodeView) -> Work:
    return Work(elementwise=2 * node.elements())
"""
MODEL = """
<ir_version: 10, opset_import: ["" : 21, "com.example" : 1]>
g (float[4, 8] x, float[4, 8] y) => (float[4, 8] z) {
    sum = com.example.ScaledAdd (x, y)
    z = Relu (sum)
}
"""
TIERS = """
tier = [{ name = "edge", gflops = 10 }, { name = "cloud", gflops = 1000 }]
link = [{ bandwidth_mbps = 50 }]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package built and laid down as `pip install --target` does, and a model that needs it."""
    folder = tmp_path_factory.mktemp("plugin")
    source = folder / "source"
    source.mkdir()
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "half_way.py").write_text(PLANNER)
    (source / "half_way_formulas.py").write_text(FORMULAS)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    onnx.save(onnx.parser.parse_model(MODEL), folder / "model.onnx")
    (folder / "tiers.toml").write_text(TIERS)
    return folder


def run(folder: Path, *words: str, installed: bool = True) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, with the package or without it."""
    paths = [str(folder / "site")] if installed else []
    paths += [path for path in (os.environ.get("PYTHONPATH"),) if path]
    command = [sys.executable, "-c", "import sys; from dnnsplit_onnx.cli import run; sys.exit(run())", *words]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_a_formula_counts(folder: Path) -> None:
    counted = run(folder, "inspect", "model.onnx", "--json")
    assert [node["flops"] for node in json.loads(counted.stdout)["nodes"]] == [64, 32]
    assert json.loads(counted.stdout)["uncounted_ops"] == {}
    without = json.loads(run(folder, "inspect", "model.onnx", "--json", installed=False).stdout)
    assert without["uncounted_ops"] == {"com.example::ScaledAdd": 1}


def test_what_is_broken_is_one_line_that_names_the_package(folder: Path) -> None:
    counted = run(folder, "inspect", "model.onnx", "--json")
    (line,) = [line for line in counted.stderr.splitlines() if "half-way" in line]
    assert line.startswith("warning: plug-in `broken` of package `half-way` cannot be loaded: ModuleNotFound")


def test_a_planner_is_compared(folder: Path) -> None:
    compared = run(folder, "compare", "model.onnx", "--tiers", "tiers.toml", "--json")
    assert compared.returncode == 0, compared.stderr
    rows = {row["planner"]: row for row in json.loads(compared.stdout)["planners"]}
    assert rows["half-way"]["cuts"] == [1]
    assert rows["exact"]["optimality"] != "none"  # our own, whatever a package calls its planner
    assert "ZeroDivisionError" in rows["failing"]["reason"]
    assert "half-way" in rows["failing"]["reason"]
    assert "broken" not in rows
    lines = [line for line in compared.stderr.splitlines() if "`broken`" in line]
    assert len(lines) == 2  # a planner, and formulas
    assert "Traceback" not in compared.stderr


def test_a_planner_plans(folder: Path) -> None:
    planned = run(folder, "plan", "model.onnx", "--tiers", "tiers.toml", "--planner", "half-way", "--json")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["planner"] == "half-way"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "plug-in `broken` of package `half-way` cannot be loaded"),
        ("failing", "planner `failing` of package `half-way` failed: ZeroDivisionError"),
        ("halfway", "no planner is named `halfway`"),
    ],
)
def test_a_planner_that_was_asked_for_and_fails_is_an_error(folder: Path, name: str, message: str) -> None:
    ended = run(folder, "plan", "model.onnx", "--tiers", "tiers.toml", "--planner", name)
    assert ended.returncode == 2
    assert f"error: {message}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_nothing_is_scanned_for_what_is_built_in(folder: Path) -> None:
    code = (
        "import sys\n"
        "from dnnsplit_onnx.cli import main\n"
        "main(['plan', 'zoo:random_squeezenet', '--tiers', 'tiers.toml', '--json'])\n"
        "from dnnsplit_onnx.plugins import plugins\n"
        "assert plugins.cache_info().currsize == 0\n"
        "from dnnsplit_onnx.planning.planners import planner_names\n"
        "assert 'half-way' in planner_names()\n"
        "assert plugins.cache_info().currsize == 1\n"
    )
    env = {**os.environ, "PYTHONPATH": str(folder / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
