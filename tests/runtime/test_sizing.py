"""Sizes of open dimensions, found by running the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dnnsplit_onnx import (
    Link,
    ShapeError,
    Tier,
    Topology,
    analyse,
    bench,
    load_graph,
    plan,
    slice_model,
    verify,
)
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.runtime.sizing import find_sizes

TWO = Topology(
    tiers=[Tier("edge", gflops=1), Tier("cloud", gflops=9)], links=[Link(bandwidth_mbps=9, delay_ms=1)]
)
Inputs = dict[str, tuple[int, list[Any]]]


def model(path: Path, inputs: Inputs, nodes: list[onnx.NodeProto], weights: dict[str, Any]) -> Path:
    ports = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    out = onnx.ValueInfoProto(name=nodes[-1].output[0])
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", ports, [out], tensors)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def window(path: Path, length: int) -> Path:
    """A model of sound that takes a window of one length: a strided Conv, flattened, a layer."""
    weights = {"w": np.ones((4, 1, 16), np.float32), "shape": np.array([1, -1])}
    weights["d"] = np.ones((4 * (length // 16), 3), np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", strides=[16]),
        helper.make_node("Reshape", ["c", "shape"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "d"], ["y"], name="layer"),
    ]
    return model(path, {"x": (TensorProto.FLOAT, ["batch", 1, "samples"])}, nodes, weights)


@pytest.mark.parametrize("length", [576, 1008, 7120])
def test_a_window_of_one_length_is_found(tmp_path: Path, length: int) -> None:
    sizes = find_sizes(load_graph(window(tmp_path / "m.onnx", length)), {}).sizes
    assert sizes["batch"] == 1
    assert sizes["samples"] // 16 == length // 16


@pytest.mark.parametrize("first", ["batch_size", "M", 1])
@pytest.mark.parametrize("letter", ["N", "n", "B"])
def test_a_letter_behind_the_first_axis_is_no_batch(tmp_path: Path, first: str | int, letter: str) -> None:
    """Sounds of `N` samples, framed by a Pad that takes 200 of them for its reflection."""
    nodes = [helper.make_node("Pad", ["x", "pads"], ["y"], name="frame", mode="reflect")]
    ports: Inputs = {"x": (TensorProto.FLOAT, [first, letter])}
    path = model(tmp_path / "m.onnx", ports, nodes, {"pads": np.array([0, 200, 0, 200])})
    sizes = find_sizes(load_graph(path), {}).sizes
    assert sizes[letter] > 200
    assert sizes.get(str(first), 1) == 1


def test_features_are_those_of_the_weights(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")]
    weights = {"w": np.ones((93, 5), np.float32)}
    path = model(tmp_path / "m.onnx", {"x": (TensorProto.FLOAT, ["b", "t", "f"])}, nodes, weights)
    analysis = analyse(path)
    assert dict(analysis.assumed) == {"b": 1, "t": 128, "f": 93}
    assert "assumed b=1, t=128, f=93; pass --bind b=N" in analysis.notes[0]


def test_what_is_bound_is_kept(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "z"], ["y"], name="add")]
    ports: Inputs = {"x": (TensorProto.FLOAT, ["b", "t", 4]), "z": (TensorProto.FLOAT, ["b", "u", 4])}
    path = model(tmp_path / "m.onnx", ports, nodes, {})
    analysis = analyse(path, {"u": 37})
    assert analysis.types.bindings["u"] == 37
    assert analysis.assumed["t"] in (1, 37)
    assert "u" not in analysis.assumed


def test_a_sum_of_dimensions_needs_no_size_of_its_own(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Concat", ["past", "x"], ["all"], name="cat", axis=1),
        helper.make_node("Mul", ["all", "mask"], ["y"], name="mul"),
    ]
    ports: Inputs = {
        "x": (TensorProto.FLOAT, ["batch", "seq"]),
        "past": (TensorProto.FLOAT, ["batch", "past_len"]),
        "mask": (TensorProto.FLOAT, ["batch", "past_len + seq"]),
    }
    path = model(tmp_path / "m.onnx", ports, nodes, {})
    analysis = analyse(path)
    assert set(analysis.assumed) == {"batch", "seq", "past_len"}
    total = analysis.assumed["past_len"] + analysis.assumed["seq"]
    assert analysis.types["mask"].shape == (1, total)


def test_an_unequal_name_is_bound_axis_by_axis(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")]
    path = model(tmp_path / "m.onnx", {"x": (TensorProto.FLOAT, ["?", "?"])}, nodes, {"w": np.ones((6, 2))})
    analysis = analyse(path, {"x.0": 3, "x.1": 6})
    assert analysis.types["x"].shape == (3, 6)


def test_sizes_are_those_of_the_sample_even_where_a_name_is_contradicted(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "z"], ["y"], name="layer")]
    ports: Inputs = {"x": (TensorProto.FLOAT, ["n", "n"]), "z": (TensorProto.FLOAT, ["n", 2])}
    path = model(tmp_path / "m.onnx", ports, nodes, {})
    sample = {"x": np.ones((3, 5), np.float32), "z": np.ones((5, 2), np.float32)}
    analysis = analyse(path, sample_input=sample)
    assert (analysis.types["x"].shape, analysis.types["z"].shape) == ((3, 5), (5, 2))
    assert not analysis.assumed


def test_where_nothing_runs_the_trials_are_told(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="one"),
        helper.make_node("MatMul", ["x", "v"], ["b"], name="other"),
        helper.make_node("Concat", ["a", "b"], ["y"], name="both", axis=1),
    ]
    weights = {"w": np.ones((3, 2), np.float32), "v": np.ones((4, 2), np.float32)}
    path = model(tmp_path / "m.onnx", {"x": (TensorProto.FLOAT, ["n", "m"])}, nodes, weights)
    analysis = analyse(path)
    assert not analysis.assumed
    assert "node `one`" in analysis.notes[0]
    assert "--sample-input" in analysis.notes[0]
    with pytest.raises(ShapeError) as caught:
        plan(analysis, TWO)
    assert "--sample-input" in str(caught.value.hint)


def test_what_is_assumed_stays_with_plan_and_slices(tmp_path: Path) -> None:
    path = window(tmp_path / "m.onnx", 576)
    analysis = analyse(path)
    made = plan(analysis, Topology(tiers=[Tier("edge", gflops=1)]))
    assert made.assumed == analysis.assumed
    assert Plan.from_dict(made.to_dict()).assumed == made.assumed
    slice_model(analysis, made, tmp_path / "out")
    proof = verify(tmp_path / "out")
    assert proof.bitwise
    assert proof.assumed == analysis.assumed
    assert dict(bench(tmp_path / "out", runs=1).assumed) == dict(analysis.assumed)
