"""What it takes to have a weight in a slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper as h
from onnx import numpy_helper

from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.slicing.index import SliceIndex


def index_of(nodes: list[onnx.NodeProto], folder: Path, *weights: str) -> SliceIndex:
    """A model of these nodes over weights of four numbers, from `x` to `y`."""
    ends = [[h.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4])] for name in ("x", "y")]
    tensors = [numpy_helper.from_array(np.ones(4, np.float32), name) for name in weights]
    model = h.make_model(h.make_graph(nodes, "g", *ends, tensors), opset_imports=[h.make_opsetid("", 18)])
    onnx.save(model, folder / "m.onnx")
    return SliceIndex(load_graph(folder / "m.onnx"))


@pytest.fixture
def index(tmp_path: Path) -> SliceIndex:
    nodes = [
        h.make_node("Neg", ["w"], ["n"]),
        h.make_node("Split", ["n"], ["low", "high"], num_outputs=2),
        h.make_node("Concat", ["low", "low"], ["c"], axis=0),
        h.make_node("Add", ["x", "c"], ["a"]),
        h.make_node("Add", ["a", "v"], ["y"]),
    ]
    return index_of(nodes, tmp_path, "v", "w")


def test_an_initializer_needs_nothing_else(index: SliceIndex) -> None:
    assert index.closure(["v"]) == ({"v"}, [])
    assert index.closure(["a", "x", "nothing"]) == (set(), [])


def test_a_weight_that_nodes_make_brings_them_and_all_they_read_and_make(index: SliceIndex) -> None:
    assert index.closure(["c"]) == ({"c", "low", "high", "n", "w"}, [0, 1, 2])
    assert index.closure(["high"]) == ({"low", "high", "n", "w"}, [0, 1])


def test_nodes_come_in_an_order_in_which_they_can_run(tmp_path: Path) -> None:
    # Their order in the file is another one: `c` is written before what it reads.
    nodes = [
        h.make_node("Abs", ["n"], ["c"]),
        h.make_node("Neg", ["w"], ["n"]),
        h.make_node("Add", ["x", "c"], ["y"]),
    ]
    assert index_of(nodes, tmp_path, "w").closure(["c"]) == ({"c", "n", "w"}, [1, 0])


def test_an_output_without_a_name_is_none(tmp_path: Path) -> None:
    nodes = [
        h.make_node("Dropout", ["w"], ["d", ""]),
        h.make_node("Add", ["x", "d"], ["y"]),
    ]
    assert index_of(nodes, tmp_path, "w").closure(["d"]) == ({"d", "w"}, [0])


def test_parameters_of_a_quantization_come_along(index: SliceIndex) -> None:
    annotation = index.graph.proto.graph.quantization_annotation.add(tensor_name="a")
    for key, value in (("SCALE_TENSOR", "v"), ("ZERO_POINT_TENSOR", "n")):
        annotation.quant_parameter_tensor_names.add(key=key, value=value)
    assert index.closure(["a"]) == ({"v", "n", "w"}, [0])
    assert index.closure(["x"]) == (set(), [])


def test_annotations_in_a_circle_come_to_an_end(index: SliceIndex) -> None:
    # No weights among them, so that only having been seen ends it.
    for name, scale in (("a", "x"), ("x", "a"), ("y", "y")):
        annotation = index.graph.proto.graph.quantization_annotation.add(tensor_name=name)
        annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value=scale)
    assert index.closure(["a", "y"]) == (set(), [])
