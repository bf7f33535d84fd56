"""Sizes of pools with `ceil_mode`, held against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from dnnsplit_onnx.graph.inference import infer
from tests.converters.support import needs

# Of each opset, the pools that it has with `ceil_mode` and `dilations`.
OPSETS = {
    12: ("MaxPool",),
    18: ("MaxPool", "LpPool"),
    19: ("MaxPool", "AveragePool", "LpPool"),
    22: ("MaxPool",),
}


@st.composite
def windows(draw: st.DrawFn, rank: int) -> dict[str, Any]:
    kernel = draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank))
    whole = {
        "kernel_shape": kernel,
        "strides": draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank)),
        "dilations": draw(st.lists(st.integers(1, 2), min_size=rank, max_size=rank)),
        "ceil_mode": 1,
    }
    if draw(st.booleans()):
        return whole | {"auto_pad": "VALID"}
    return whole | {"pads": [draw(st.integers(0, size - 1)) for size in kernel * 2]}


@st.composite
def stacks(draw: st.DrawFn) -> onnx.ModelProto:
    """One pool behind another, and an operator that reads what the last one makes."""
    opset = draw(st.sampled_from(sorted(OPSETS)))
    rank, count = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    nodes = []
    for at in range(count):
        kind = draw(st.sampled_from(OPSETS[opset]))
        nodes.append(helper.make_node(kind, [f"v{at}"], [f"v{at + 1}"], f"n{at}", **draw(windows(rank))))
    nodes.append(helper.make_node("Relu", [f"v{count}"], ["y"]))
    sizes = [1, 1, *draw(st.lists(st.integers(4, 40), min_size=rank, max_size=rank))]
    read = helper.make_tensor_value_info("v0", TensorProto.FLOAT, sizes)
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "pools", [read], [made])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def sizes_of(model: onnx.ModelProto, name: str) -> list[int | str | None]:
    (value,) = (v for v in (*model.graph.value_info, *model.graph.output) if v.name == name)
    return [dim.dim_value or dim.dim_param or None for dim in value.type.tensor_type.shape.dim]


@needs("cpu")
@settings(max_examples=150, deadline=None)
@given(stacks())
def test_sizes_are_those_that_are_computed(model: onnx.ModelProto) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    feeds = {"v0": np.zeros(sizes_of_input(model), np.float32)}
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        (made,) = session.run(None, feeds)
    except Exception:  # windows larger than what they look at
        assume(False)
    assume(made.size > 0)
    inferred = infer(model)
    assert sizes_of(inferred, "y") == list(made.shape)
    assert list(inferred.graph.node) == list(model.graph.node)


def sizes_of_input(model: onnx.ModelProto) -> list[int]:
    return [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]


@pytest.mark.parametrize("batch", ["N", 2])
def test_what_is_open_stays_open(batch: str | int) -> None:
    pool = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3, 1], strides=[2, 2], ceil_mode=1)
    read = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4, "rows", 12])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([pool], "pools", [read], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    *ends, rows, columns = sizes_of(infer(model), "y")
    assert (ends, columns) == ([batch, 4], 6)
    assert not isinstance(rows, int)
