"""Files that onnxruntime optimised and saved: as much work as before, and counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.runtime.observing import observe
from dnnsplit_onnx.work.analysis import measure
from dnnsplit_onnx.work.flops.registry import NHWC
from tests.work.flops.counting import count, elementwise


def network(path: Path) -> Path:
    """Convolutions whose channels are whole blocks on any processor, so that nothing is padded."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array((rng.standard_normal(shape) * 0.2).astype(np.float32), name)
        for name, shape in {"w": (32, 16, 3, 3), "b": (32,), "v": (32, 32, 3, 3), "c": (32,)}.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "v", "c"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["d", "r"], ["s"]),
        helper.make_node("Relu", ["s"], ["t"]),
        helper.make_node("MaxPool", ["t"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["p"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 16, 12, 12])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 32, 1, 1])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_what_onnxruntime_saves_is_counted_as_before(tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    plain, saved = network(tmp_path / "plain.onnx"), tmp_path / "saved.onnx"
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(saved), 4
    ort.InferenceSession(str(plain), options, providers=["CPUExecutionProvider"])
    if not any(node.domain == "com.microsoft.nchwc" for node in onnx.load(saved).graph.node):
        pytest.skip("onnxruntime blocks no channels on this processor")
    before = load_graph(plain)
    graph = load_graph(saved)
    counted = measure(graph, observe(bind_shapes(graph)))
    assert counted.uncounted == {}
    expected = measure(before, bind_shapes(before))
    assert counted.macs.sum() == expected.macs.sum()
    assert counted.flops.sum() == expected.flops.sum()


def test_channels_last() -> None:
    assert elementwise("GlobalAveragePool", [(2, 8, 8, 3)], domain=NHWC) == 2 * 8 * 8 * 3 + 2 * 3
    work = count("Conv", [(1, 8, 8, 3), (4, 3, 3, 3)], [(1, 8, 8, 4)], domain=NHWC)
    assert work is not None
    assert work.macs == 8 * 8 * 4 * 27
