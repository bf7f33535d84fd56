"""Codes: written, carried and read back, each element within what its code promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper

from dnnsplit_onnx.graph.shapes import ValueType
from dnnsplit_onnx.slicing.coding import Coded, bound, decode, encode, faults
from dnnsplit_onnx.work.codes import LOSSY, coded_nbytes, elements_per_range, parts

OPSETS = (7, 9, 11, 13, 18, 21)
DTYPES = {np.float32: TensorProto.FLOAT, np.float64: TensorProto.DOUBLE, np.float16: TensorProto.FLOAT16}


def through(value: np.ndarray, code: str, opset: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The parts that cross, and what arrives, by onnxruntime with two models as slices are."""
    ort = pytest.importorskip("onnxruntime")
    kind = ValueType("tensor", DTYPES[value.dtype.type], tuple(f"d{i}" for i in range(value.ndim)))
    coded = Coded("x", code, kind, f"x/{code}")
    ends = [helper.make_tensor_value_info(name, kind.dtype, kind.shape) for name in ("in", "x", "out")]
    below, above = encode(coded, opset), decode(coded, opset)
    crossing = coded.outputs()
    models = (
        ([helper.make_node("Identity", ["in"], ["x"]), *below.nodes], ends[:1], crossing, below.weights),
        ([*above.nodes, helper.make_node("Identity", ["x"], ["out"])], crossing, ends[2:], above.weights),
    )
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    sessions: list[Any] = []
    for nodes, inputs, outputs, weights in models:
        graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model)
        sessions.append(ort.InferenceSession(model.SerializeToString(), options))
    names = list(coded.names.values())
    made = dict(zip(names, sessions[0].run(names, {"in": value}), strict=True))
    assert list(faults(coded.ports, made)) == [] or not np.isfinite(value).all() or code == "fp16"
    return made, sessions[1].run(["out"], made)[0]


def check(value: np.ndarray, code: str, opset: int) -> None:
    made, back = through(value, code, opset)
    kind = ValueType("tensor", DTYPES[value.dtype.type], value.shape)
    coded = Coded("x", code, kind, f"x/{code}")
    assert (back.dtype, back.shape) == (value.dtype, value.shape)
    assert sum(array.nbytes for array in made.values()) == coded_nbytes(code, kind)
    if value.size:
        error = np.abs(back.astype(np.float64) - value.astype(np.float64))
        assert (error <= bound(coded, value)).all()


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("code", LOSSY)
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (2, 7, 9), (5, 8), (1, 1), (0, 4), (2, 0, 3)])
def test_within_the_bound(code: str, opset: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(opset)
    for scale, shift in ((1.0, 0.0), (1e-3, 5.0), (900.0, -3e4), (0.0, 2.5), (0.0, 0.0)):
        check((rng.standard_normal(shape) * scale + shift).astype(np.float32), code, opset)


@pytest.mark.parametrize("code", LOSSY)
@given(
    value=arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=2, max_dims=4, max_side=5),
        elements=st.floats(-60000, 60000, width=32),
    )
)
@settings(max_examples=150, deadline=None)
def test_whatever_the_numbers(code: str, value: np.ndarray) -> None:
    check(value, code, 13)


@pytest.mark.parametrize(("dtype", "codes"), [(np.float64, LOSSY), (np.float16, LOSSY[1:])])
def test_other_floats(dtype: Any, codes: tuple[str, ...]) -> None:
    value = np.random.default_rng(1).standard_normal((2, 3, 8)).astype(dtype)
    for code in codes:
        check(value, code, 17)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("code", LOSSY)
def test_what_a_code_cannot_write_is_never_clipped(code: str, opset: int, bad: float) -> None:
    value = np.ones((2, 3, 4), np.float32)
    value[1, 2, 3] = bad
    made, back = through(value, code, opset)
    coded = Coded("x", code, ValueType("tensor", TensorProto.FLOAT, value.shape), f"x/{code}")
    assert len(list(faults(coded.ports, made))) == 1
    assert not np.isfinite(back[1, 2, 3])


def test_too_large_for_fp16_is_noticed() -> None:
    made, _ = through(np.full((2, 2), 70000, np.float32), "fp16", 13)
    coded = Coded("x", "fp16", ValueType("tensor", TensorProto.FLOAT, (2, 2)), "x/fp16")
    assert "65504" in next(faults(coded.ports, made))


def test_codes_apply_to_floats_alone() -> None:
    for dtype in (TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING, TensorProto.UINT8):
        kind = ValueType("tensor", dtype, (2, 3))
        assert [code for code in ("raw", *LOSSY) if parts(code, kind)] == ["raw"]
    half = ValueType("tensor", TensorProto.FLOAT16, (2, 3))
    assert [code for code in LOSSY if parts(code, half)] == ["uint8-channel", "uint8"]
    assert parts("uint8-channel", ValueType("tensor", TensorProto.FLOAT, (7,))) == ()
    assert parts("uint8-channel", ValueType("tensor", TensorProto.FLOAT, None)) == ()
    assert parts("uint8", ValueType("tensor", TensorProto.FLOAT, ())) == ()


def test_sizes() -> None:
    kind = ValueType("tensor", TensorProto.FLOAT, (2, 8, 4, 4))
    assert {code: coded_nbytes(code, kind) for code in ("raw", *LOSSY)} == {
        "raw": 1024,
        "fp16": 512,
        "uint8-channel": 256 + 2 * 16 * 4,
        "uint8": 256 + 8,
    }
    assert elements_per_range("uint8-channel", kind) == 16
    assert coded_nbytes("uint8", ValueType("tensor", TensorProto.FLOAT, ("N", 3))) is None
