"""A tiers file that says how a model wants its pixels: the normalisation becomes nodes of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dnnsplit_onnx.errors import InputError, ModelError, TopologyError
from dnnsplit_onnx.graph.picturing import Normalisation, put_in_front
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.measuring.verification import verify
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.planning.comparing import compare
from dnnsplit_onnx.planning.sweeping import sweep
from dnnsplit_onnx.running.chain import Chain
from dnnsplit_onnx.runtime.sessions import open_session
from dnnsplit_onnx.slicing import slice_model
from dnnsplit_onnx.slicing.manifest import load_manifest
from dnnsplit_onnx.work.analysing import analyse
from dnnsplit_onnx.work.pictured import pictured
from tests.serving.conftest import topology

# The pixels are read by a body, too.
MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 3, H, 8] x) => (float[N, 1, 1, 1] y)
<bool yes = {1}, int64[3] axes = {1, 2, 3}>
{
    a = If (yes) <
        then_branch = t () => (float[N, 3, H, 8] b) { b = Relu(x) },
        else_branch = e () => (float[N, 3, H, 8] b) { b = Neg(x) }
    >
    s = Add(a, x)
    y = ReduceMean <keepdims = 1> (s)
}
"""
SAID = {
    "code": "jpeg",
    "nbytes": 60,
    "order": "bgr",
    "size": [6, 8],
    "mean": [104.0, 117.0, 123.0],
    "scale": 0.0171,
}


def machines(**said: Any) -> Topology:
    return parse_topology(topology(("edge", "cloud")) | {"input": {"x": said or SAID}}, "tiers")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(onnx.parser.parse_model(MODEL), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, 6, 8, 3), np.uint8)


def pixels(of: np.ndarray) -> np.ndarray:
    """What the model reads of a picture."""
    floats = of[..., ::-1].astype(np.float32) - np.float32([104.0, 117.0, 123.0])
    return np.ascontiguousarray((floats * np.float32(0.0171)).transpose(0, 3, 1, 2))


def test_it_is_planned_sliced_and_proven_from_the_model_alone(model: Path, tmp_path: Path) -> None:
    best = plan(model, machines(), cuts=[0])
    assert best.figures.links[0].nbytes == 60
    manifest = slice_model(model, best, tmp_path / "out")
    (reads,) = manifest.model.inputs
    assert (reads.name, reads.dtype, reads.shape, reads.code) == ("x", "uint8", (1, 6, 8, 3), "jpeg")
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")  # the proof needs nothing else
    model.rename(tmp_path / "gone.onnx")
    assert verify(tmp_path / "elsewhere").bitwise
    want = open_session(tmp_path / "gone.onnx").run_arrays({"x": pixels(picture())})
    assert Chain.open(tmp_path / "elsewhere").run({"x": picture()})["y"].tobytes() == want["y"].tobytes()
    assert load_manifest(tmp_path / "elsewhere").model.path == "whole.onnx"


@pytest.mark.parametrize("cut", [0, 3, 6])
def test_an_analysis_that_was_made_before_will_do(model: Path, tmp_path: Path, cut: int) -> None:
    analysis = analyse(model, {"N": 1, "H": 6})
    best = plan(analysis, machines(), cuts=[cut])
    slice_model(analysis, best, tmp_path / "out")
    assert verify(tmp_path / "out").bitwise


def test_what_is_done_once_is_not_done_again(model: Path) -> None:
    once = pictured(analyse(model), machines().input)
    assert once.graph.inputs == ("x",)
    assert once.graph.file.path.name == "m.onnx"
    assert "H" not in once.types.bindings
    assert pictured(once, machines().input) is once
    plain = analyse(model)
    assert pictured(plain, {}) is plain


def test_sweeps_and_comparisons_see_it_too(model: Path) -> None:
    swept = sweep(model, machines(), ["link.0.bandwidth_mbps=1"])
    (point,) = swept.points
    assert point.plan is not None
    assert point.plan.figures.stages[-1].stop == len(pictured(analyse(model), machines().input).graph.nodes)
    assert {row.planner for row in compare(model, machines(), planners=["exact"]).rows} == {"exact"}


def test_what_is_not_said_is_asked_for(model: Path) -> None:
    with pytest.raises(TopologyError, match="input `x` is no picture") as caught:
        plan(model, machines(code="jpeg", nbytes=60))
    assert "[input.x]" in (caught.value.hint or "")
    with pytest.raises(InputError, match="leaves its height or width open"):
        plan(model, machines(code="jpeg", nbytes=60, scale=1.0))
    with pytest.raises(TopologyError, match=r"input\.x\.mean"):
        machines(code="jpeg", mean=[1.0, 2.0])


def test_weights_beside_the_model_are_left_to_the_command(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(MODEL)
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(4096, np.float32), "w"))
    proto.graph.node.add(op_type="Identity", input=["w"], output=["unused"])
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    with pytest.raises(ModelError, match="weights in files beside it") as caught:
        plan(tmp_path / "m.onnx", machines())
    assert "dnnsplit-onnx image" in (caught.value.hint or "")


def test_a_name_that_is_an_output_too_cannot_go() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 8])
    proto = helper.make_model(helper.make_graph([], "g", [x], [x]))
    with pytest.raises(InputError, match="returns its input"):
        put_in_front(proto, "x", None, Normalisation(), keeps_name=True)
