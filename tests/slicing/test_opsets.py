"""Every opset from 7 to the newest that the installed onnx knows: cut everywhere, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime.capi.onnxruntime_pybind11_state
import pytest
from onnx import TensorProto as T
from onnx import helper as h

from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.work.analysis import measure
from tests.slicing.chain import check_cut, reference, run_whole, session

OLDEST, NEWEST = 7, onnx.defs.onnx_opset_version()
# Operators whose form changed on the way: Softmax's axes (13), BatchNormalization's outputs (9, 14),
# Clip's bounds (inputs since 11), Squeeze's axes (an input since 13), Reshape (5, 13, 14, 19, ...).
WAVES = np.cos(np.arange(4 * 3 * 3 * 3, dtype=np.float32)).reshape(4, 3, 3, 3)


def versioned(opset: int) -> onnx.ModelProto:
    """A small classifier, its operators in the form that the opset wants."""
    rows = [
        ("k", WAVES),
        ("shape", np.array([1, -1], np.int64)),
        ("w", np.sin(np.arange(320)).reshape(64, 5)),
    ]
    rows += [(name, np.array([0.5, 1.5, 1.0, 2.0])) for name in ("scale", "bias", "mean", "var")]
    clip, squeezed = ["c"], {"axes": [0]}
    if opset >= 11:
        rows += [("low", np.array(-1.0)), ("high", np.array(1.0))]
        clip += ["low", "high"]
    if opset >= 13:
        rows.append(("axes", np.array([0], np.int64)))
        squeezed = {}
    bounds = {"min": -1.0, "max": 1.0} if opset < 11 else {}
    nodes = [
        h.make_node("Conv", ["x", "k"], ["c0"], pads=[1, 1, 1, 1]),
        h.make_node("BatchNormalization", ["c0", "scale", "bias", "mean", "var"], ["c"]),
        h.make_node("Clip", clip, ["a"], **bounds),
        h.make_node("Add", ["a", "c0"], ["s"]),
        h.make_node("MaxPool", ["s"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        h.make_node("Reshape", ["p", "shape"], ["r"]),
        h.make_node("MatMul", ["r", "w"], ["m"]),
        h.make_node("Softmax", ["m"], ["q"], axis=1),
        h.make_node("Squeeze", ["q", *(["axes"] if opset >= 13 else [])], ["y"], **squeezed),
    ]
    weights = [
        onnx.numpy_helper.from_array(a if a.dtype == np.int64 else a.astype(np.float32), name)
        for name, a in rows
    ]
    x, y = (
        h.make_tensor_value_info(name, T.FLOAT, shape) for name, shape in (("x", [1, 3, 8, 8]), ("y", [5]))
    )
    graph = h.make_graph(nodes, "versioned", [x], [y], weights)
    opsets = [h.make_opsetid("", opset)]
    ir = min(h.find_min_ir_version_for(opsets), onnx.IR_VERSION)
    if ir < 4:  # initializers must be listed as inputs
        known = [h.make_tensor_value_info(t.name, t.data_type, t.dims) for t in weights]
        graph.input.extend(known)
    return h.make_model(graph, opset_imports=opsets, ir_version=ir)


def runs_here(path: Path) -> bool:
    """Whether onnxruntime takes the opset; it follows the newest ones a release or two later."""
    try:
        session(path)
    except onnxruntime.capi.onnxruntime_pybind11_state.Fail as error:
        if "official released onnx opset" in str(error) or "Unsupported model IR version" in str(error):
            return False
        raise
    return True


@pytest.mark.parametrize("opset", range(OLDEST, NEWEST + 1))
def test_cut_everywhere(opset: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    built = versioned(opset)
    onnx.checker.check_model(built)
    onnx.save(built, path)
    feeds = {"x": np.random.default_rng(opset).standard_normal((1, 3, 8, 8)).astype(np.float32)}
    graph = load_graph(path)
    analysis = measure(graph, bind_shapes(graph))
    assert not analysis.uncounted
    assert analysis.macs[0] == 4 * 3 * 3 * 3 * 64
    load = session if runs_here(path) else reference
    expected = run_whole(path, feeds, load)
    assert np.ptp(expected["y"]) > 0
    for at in range(len(graph.nodes) + 1):
        manifest = check_cut(path, (at,), feeds, tmp_path / "out", graph=graph, load=load, expected=expected)
        for record in manifest.slices:
            if record.file is not None:
                part = onnx.load(tmp_path / "out" / record.file)
                assert [(o.domain, o.version) for o in part.opset_import] == [("", opset)]
                assert part.ir_version == built.ir_version
