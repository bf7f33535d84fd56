"""Weights inside bodies and functions count, once a stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dnnsplit_onnx import analyse

SIDE = 40
NBYTES = 4 * SIDE * SIDE
SCALARS = 64


def _weight(name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones((SIDE, SIDE), np.float32), name)


def _model(path: Path) -> Path:
    value = helper.make_tensor_value_info
    then = helper.make_graph(
        [helper.make_node("MatMul", ["x", "wi"], ["t"])],
        "then",
        [],
        [value("t", TensorProto.FLOAT, [1, SIDE])],
        [_weight("wi")],
    )
    other = helper.make_graph(
        [
            helper.make_node("Constant", [], ["k"], value=_weight("")),
            helper.make_node("MatMul", ["x", "k"], ["e"]),
        ],
        "else",
        [],
        [value("e", TensorProto.FLOAT, [1, SIDE])],
    )
    call = helper.make_function(
        "my",
        "F",
        ["a"],
        ["b"],
        [
            helper.make_node("Constant", [], ["k"], value=_weight("")),
            helper.make_node("MatMul", ["a", "k"], ["b"]),
        ],
        [helper.make_opsetid("", 17)],
    )
    nodes = [
        helper.make_node("If", ["p"], ["i"], name="if", then_branch=then, else_branch=other),
        helper.make_node("F", ["i"], ["f"], name="one", domain="my"),
        helper.make_node("F", ["f"], ["y"], name="two", domain="my"),
    ]
    inputs = [value("x", TensorProto.FLOAT, [1, SIDE]), value("p", TensorProto.BOOL, [])]
    graph = helper.make_graph(nodes, "g", inputs, [value("y", TensorProto.FLOAT, [1, SIDE])])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=[call]), path)
    return path


def test_bodies_and_functions_hold_weights(tmp_path: Path) -> None:
    analysis = analyse(_model(tmp_path / "m.onnx"), order="file")
    assert [analysis.weight_nbytes(at) for at in range(3)] == [2 * NBYTES, NBYTES, NBYTES]
    assert analysis.total_weight_nbytes == 3 * NBYTES  # the function's are shared


def test_a_stage_holds_what_its_nodes_share_once(tmp_path: Path) -> None:
    memory = analyse(_model(tmp_path / "m.onnx"), order="file").memory
    stages = [memory.nbytes(start, stop) or 0 for start, stop in ((0, 3), (0, 1), (1, 3), (1, 2))]
    for nbytes, weights in zip(stages, (3, 2, 1, 1), strict=True):
        assert weights * NBYTES <= nbytes < weights * NBYTES + 16 * SIDE
