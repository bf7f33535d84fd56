"""Files of weights that change under a tier that runs: no answer changes, and no process dies."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dnnsplit_onnx.errors import ManifestError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.running import slices as opening
from dnnsplit_onnx.runtime.sessions import SessionOptions
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.tier.stage import Stage
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.slicing.candidates import slice_all_candidates
from dnnsplit_onnx.slicing.manifest import load_manifest
from dnnsplit_onnx.work.analysing import analyse
from tests.serving.conftest import Network, topology

SIZE = 512
TIERS = ("edge", "cloud")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Slices of which each tier has 3 MB of weights in a file; Gather reads them as they lie."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((SIZE, SIZE)).astype(np.float32) for _ in range(6)]
    nodes, last = [], "x"
    for at in range(6):
        nodes.append(helper.make_node("Gather", [f"w{at}", "k"], [f"g{at}"]))
        nodes.append(helper.make_node("Add", [last, f"g{at}"], [f"h{at}"]))
        last = f"h{at}"
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, SIZE]),
            helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, SIZE])],
        [numpy_helper.from_array(weight, f"w{at}") for at, weight in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    loaded = load_graph(tmp_path / "model.onnx")
    chosen = plan(
        analyse(loaded, order="file"), parse_topology(topology(TIERS), "tiers"), cuts=(6,), pareto=False
    )
    slice_all_candidates(loaded, chosen, range(0, 13, 2), tmp_path / "out")
    return tmp_path / "out"


def weights_of(folder: Path, tier: str) -> Path:
    (record,) = [record for record in load_manifest(folder).slices if record.tier == tier]
    return folder / record.data[0].file


def write_over(path: Path, how: str) -> None:
    """What a careless operator does to a file that is in use; `cp` keeps its inode."""
    if how == "copied":
        other = path.with_suffix(".new")
        other.write_bytes(np.random.default_rng(1).bytes(path.stat().st_size))
        inode = path.stat().st_ino
        shutil.copyfile(other, path)
        assert path.stat().st_ino == inode
    elif how == "truncated":
        os.truncate(path, 0)
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["copied", "truncated", "deleted"])
def test_files_that_are_written_over_change_no_answer(folder: Path, how: str) -> None:
    given = {"x": np.ones((1, SIZE), np.float32), "k": np.array([3])}
    with ExitStack() as stack:
        network = Network(folder, stack)
        edge = network.edge(network.serve("cloud").url)
        expected = edge.infer(given).outputs["h5"]
        for tier in TIERS:
            write_over(weights_of(folder, tier), how)
        for row in (3, 400):  # pages that no request has touched yet, too
            answer = edge.infer({**given, "k": np.array([row])}).outputs["h5"]
            if row == 3:
                np.testing.assert_array_equal(answer, expected)
            assert answer is not None
            assert np.abs(answer).max() < 40  # sums of six numbers of a normal distribution
        # What is not open yet is opened from the files, and those are refused.
        with pytest.raises(ManifestError, match=r"weights|is not the file|cannot read"):
            edge.stage.open(edge.routes.route((12,)).legs[0])


def test_files_that_change_while_they_are_opened_are_noticed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = Routes(load_manifest(folder))
    stage = Stage(folder, routes, 1, SessionOptions(threads=1))
    original = opening.open_session

    def slowly(path: Path, *rest: object, **options: object) -> object:
        write_over(weights_of(folder, "cloud"), "copied")
        return original(path, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(opening, "open_session", slowly)
    with pytest.raises(ManifestError, match="is not the file that was written"):
        stage.open(routes.default.legs[1])


def test_weights_are_in_memory_once(folder: Path) -> None:
    """Nothing stays mapped, whatever the session holds."""
    routes = Routes(load_manifest(folder))
    stage = Stage(folder, routes, 1, SessionOptions(threads=1))
    stage.warm_up()
    given = {"h2": np.zeros((1, SIZE), np.float32), "k": np.array([0])}
    assert stage.run(routes.default.legs[1], given, Deadline(5))["h5"] is not None
    assert str(weights_of(folder, "cloud")) not in Path("/proc/self/maps").read_text()
