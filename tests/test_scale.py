"""Large models: memory that does not grow with weights, time that grows with nodes and no faster.

The full sizes (20 GB, 200,000 nodes, 64 tiers) are in `scripts/bench/scale` and, marked slow,
here; smaller ones run every time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dnnsplit_onnx import load_graph, load_manifest, load_topology, plan, slice_model, verify
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.work.analysis import measure
from dnnsplit_onnx.work.orders import in_order
from tests.big_models import heavy, line, long, tiers

# In a process of its own, whose peak memory nothing else is part of: prints MB of it, and
# counts the calls of Python functions, which unlike seconds are the same on a busy machine.
SLICE = """
import json, re, sys
from dnnsplit_onnx import load_graph, slice_model
from tests.slicing.chain import plan_at
graph = load_graph(sys.argv[1])
before = int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
slice_model(graph, plan_at(graph, (26, 52)), sys.argv[2])
after = int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
print(json.dumps([after / 1024, (after - before) / 1024]))
"""
COUNT = """
import sys
from dnnsplit_onnx import bind_shapes, load_graph, load_topology, plan
from dnnsplit_onnx.work.orders import in_order
from dnnsplit_onnx.work.analysis import measure
calls = 0
def count(frame, event, argument):
    global calls
    calls += event in ("call", "c_call")
graph, topology = load_graph(sys.argv[1]), load_topology(sys.argv[2])
sys.setprofile(count)
analysis = in_order(measure(graph, bind_shapes(graph)), "envelope")
for objective in ("latency", "throughput"):
    plan(analysis, topology, objective=objective)
sys.setprofile(None)
print(calls)
"""
ROOT = Path(__file__).parents[1]


def output_of(code: str, *arguments: object) -> Any:
    words = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that does not outlive its test, as those of `tmp_path` do."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def weights_are_streamed(folder: Path, nbytes: int) -> None:
    """Slices a sparse model; memory is that of its graph, and holes stay holes."""
    model = heavy(folder, nbytes)
    peak_mb, grown_mb = output_of(SLICE, model, folder / "out")
    assert peak_mb < 200
    assert grown_mb < 50
    manifest = load_manifest(folder / "out")
    made = sum(data.nbytes for record in manifest.slices for data in record.data)
    assert made == pytest.approx(nbytes, rel=0.01)
    if (folder / "weights.bin").stat().st_blocks == 0:  # the file system has holes
        files = [path for path in (folder / "out").rglob("*") if path.is_file()]
        assert sum(path.stat().st_blocks * 512 for path in files) < nbytes / 100


def test_weights_of_1_gb(folder: Path) -> None:
    weights_are_streamed(folder, 10**9)


@pytest.mark.slow
def test_weights_of_20_gb(folder: Path) -> None:
    weights_are_streamed(folder, 20 * 10**9)


def test_effort_grows_with_the_nodes(tmp_path: Path) -> None:
    # Counted, not timed. What is looked for is n squared, which would be 16 times as much.
    topology = tmp_path / "t.toml"
    topology.write_text(tiers(3))
    small, large = (
        output_of(COUNT, long(tmp_path / f"{size}.onnx", size), topology) for size in (1_250, 5_000)
    )
    assert large < 6 * small


def planned(path: Path, nodes: int, tmp_path: Path) -> None:
    graph = load_graph(long(path, nodes))
    assert len(graph.nodes) >= nodes
    analysis = in_order(measure(graph, bind_shapes(graph)), "envelope")
    assert not analysis.uncounted
    (tmp_path / "t.toml").write_text(tiers(3))
    topology = load_topology(tmp_path / "t.toml")
    for objective in ("latency", "cost", "throughput"):
        made = plan(analysis, topology, objective=objective)
        assert made.feasible
        assert made.speedup_vs_best_single_tier is not None
        assert made.speedup_vs_best_single_tier >= 1


def test_20_000_nodes(tmp_path: Path) -> None:
    planned(tmp_path / "m.onnx", 20_000, tmp_path)


@pytest.mark.slow
def test_200_000_nodes(tmp_path: Path) -> None:
    planned(tmp_path / "m.onnx", 200_000, tmp_path)


def many_tiers(count: int, tmp_path: Path) -> None:
    """A line of layers, planned by all means and cut at every tier, and proved."""
    graph = load_graph(line(tmp_path / "m.onnx", 4 * count))
    (tmp_path / "t.toml").write_text(tiers(count))
    topology = load_topology(tmp_path / "t.toml")
    for objective in ("latency", "cost", "throughput"):
        chosen = plan(graph, topology, objective=objective)
        assert len(chosen.figures.stages) == count
    assert chosen.is_split  # equal stages carry more
    cuts = tuple(range(4, 4 * count, 4))
    slice_model(graph, plan(graph, topology, cuts=cuts), tmp_path / "out")
    manifest = load_manifest(tmp_path / "out")
    assert [record.stop - record.start for record in manifest.slices] == [4] * count
    assert verify(tmp_path / "out").bitwise


def test_16_tiers(tmp_path: Path) -> None:
    many_tiers(16, tmp_path)


@pytest.mark.slow
def test_64_tiers(tmp_path: Path) -> None:
    many_tiers(64, tmp_path)
