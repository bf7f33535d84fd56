"""Models that are in memory: they are read, sliced and verified as files are."""

from __future__ import annotations

import gc
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dnnsplit_onnx import load_graph, plan, slice_model, verify
from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Link, Topology

MACHINES = Topology(tiers=[Tier("edge", gflops=1), Tier("cloud", gflops=9)], links=[Link(bandwidth_mbps=9)])


def model() -> onnx.ModelProto:
    text = '<ir_version: 8, opset_import: ["" : 17]> n (float[1, 512] x) => (float[1, 512] y)'
    proto = onnx.parser.parse_model(text + " { a = Relu(x) b = Mul(a, w) y = Neg(b) }")
    weights = np.random.default_rng(0).standard_normal((1, 512)).astype(np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    return proto


@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_model_in_memory_is_split_and_proven(tmp_path: Path, as_bytes: bool) -> None:
    graph = load_graph(model().SerializeToString() if as_bytes else model())
    slice_model(graph, plan(graph, MACHINES, cuts=[2]), tmp_path / "out")
    assert verify(tmp_path / "out").bitwise
    assert repr(graph) == "<Graph of model.onnx, 3 nodes, x to y>"


def test_its_file_goes_with_the_last_graph() -> None:
    graph = load_graph(model())
    other, path = graph.reordered(range(len(graph.nodes))), graph.file.path
    del graph
    gc.collect()
    assert path.is_file()
    elsewhere = pickle.loads(pickle.dumps(other.file))
    del elsewhere  # a copy owns nothing
    gc.collect()
    assert path.is_file()
    del other
    gc.collect()
    assert not path.parent.exists()


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    without_weights = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    with pytest.raises(ModelError, match="weight `w` of the model in memory lies in a file"):
        load_graph(without_weights)
    with pytest.raises(ModelError, match="an object of type `int` is no model"):
        load_graph(3)  # type: ignore[arg-type]
    with pytest.raises(ModelError):
        load_graph(b"")
    with pytest.raises(ModelError):
        load_graph(b"no model")
