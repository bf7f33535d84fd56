"""Which nodes may saturate: the others sum exactly, on every processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from dnnsplit_onnx.graph.modelfile import open_model, open_proto
from dnnsplit_onnx.graph.saturation import saturating_nodes, warning

TENSOR = onnx.TensorProto
#: On each, A is of uint8 or int8, and W a weight of int8 or uint8.
FORMS = {
    "MatMulInteger": "y = MatMulInteger(a, W, za)",
    "QLinearMatMul": "y = QLinearMatMul(a, s, za, W, s, zw, t, za)",
    "fused": "af = DequantizeLinear(a, s, za) wf = DequantizeLinear(W, s, zw) y = MatMul(af, wf)",
}


def product(form: str, weights: np.ndarray, activation: type = np.uint8) -> onnx.ModelProto:
    """A product of a model's input of eight bits and weights."""
    made = {"MatMulInteger": "int32", "QLinearMatMul": np.dtype(activation).name, "fused": "float"}[form]
    model = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["" : 17]>
        g ({np.dtype(activation).name}[M, {weights.shape[0]}] a) => ({made}[M, {weights.shape[1]}] y) {{
            {FORMS[form]}
        }}"""
    )
    constants = {
        "W": weights,
        "za": np.zeros((), activation),
        "zw": np.zeros((), weights.dtype),
        "s": np.float32(1),
        "t": np.float32(1000),
    }
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in read
    )
    model.graph.node[-1].name = "product"
    return model


def weights_of(largest: int, dtype: type = np.int8, shape: tuple[int, int] = (6, 3)) -> np.ndarray:
    values = np.ones(shape, dtype)
    values[2, 1] = largest
    return values


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("largest", "dtype", "activation", "named"),
    [
        (127, np.int8, np.uint8, True),
        (-65, np.int8, np.uint8, True),
        (64, np.int8, np.uint8, False),
        (-64, np.int8, np.uint8, False),
        (127, np.int8, np.int8, False),
        (255, np.uint8, np.uint8, False),
    ],
)
def test_uint8_times_wide_int8_is_named(
    form: str, largest: int, dtype: type, activation: type, named: bool
) -> None:
    model = product(form, weights_of(largest, dtype), activation)
    assert saturating_nodes(open_proto(model)) == (("product",) if named else ())


@pytest.mark.parametrize("external", [False, True])
def test_weights_are_read_where_they_lie(tmp_path: Path, external: bool) -> None:
    path = tmp_path / "model.onnx"
    for largest, named in ((127, ("product",)), (64, ())):
        model = product("MatMulInteger", weights_of(largest, shape=(64, 64)))
        place = {"save_as_external_data": external, "location": f"w{largest}", "size_threshold": 0}
        onnx.save(model, path, **place)
        assert saturating_nodes(open_model(path)) == named


@settings(max_examples=50, deadline=None)  # each opens a session
@given(st.data(), st.integers(1, 40), st.integers(1, 5), st.integers(1, 5))
def test_what_is_not_named_is_exact(data: st.DataObject, depth: int, rows: int, columns: int) -> None:
    largest = data.draw(st.sampled_from([1, 64, 100, 127]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    weights = rng.integers(-largest, largest, (depth, columns), np.int8, endpoint=True)
    model = product("MatMulInteger", weights)
    a = np.where(rng.random((rows, depth)) < 0.5, 255, rng.integers(0, 256, (rows, depth))).astype(np.uint8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"a": a})[0].astype(np.int64)
    exact = a.astype(np.int64) @ weights.astype(np.int64)
    if not saturating_nodes(open_proto(model)):
        assert np.array_equal(found, exact)
    # 32,512 for each pair of products is as much as any processor loses.
    assert np.abs(found - exact).max() <= 32512 * -(-depth // 2)


@pytest.mark.parametrize("name", ["ConvInteger", "QLinearConv"])
def test_only_one_of_the_convolutions_of_whole_numbers_is_named(name: str) -> None:
    text = {
        "ConvInteger": "(uint8[1, 8, 9, 9] x) => (int32[1, 8, 7, 7] y) { y = ConvInteger(x, W, z) }",
        "QLinearConv": "(uint8[1, 8, 9, 9] x) => (uint8[1, 8, 7, 7] y) "
        "{ y = QLinearConv(x, s, z, W, s, zw, t, z) }",
    }[name]
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> g {text}')
    sum_of_all = 255 * 127 * 8 * 9
    constants = {
        "W": np.full((8, 8, 3, 3), 127, np.int8),
        "z": np.uint8(0),
        "zw": np.int8(0),
        "s": np.float32(1),
        "t": np.float32(sum_of_all / 200),
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": np.full((1, 8, 9, 9), 255, np.uint8)})[0]
    exact = np.all(found == {"ConvInteger": sum_of_all, "QLinearConv": 200}[name])
    named = saturating_nodes(open_proto(model))
    assert named == (() if name == "ConvInteger" else ("y",))
    assert exact or named


@pytest.mark.parametrize("form", ["QLinearConv", "fused"])
@pytest.mark.parametrize(
    ("channels", "made", "groups", "named"),
    [(8, 8, 8, False), (1, 1, 1, False), (8, 16, 8, True), (8, 8, 4, True), (1, 4, 1, True)],
)
def test_a_channel_convolved_by_itself_is_exact(
    form: str, channels: int, made: int, groups: int, named: bool
) -> None:
    nodes = {
        "QLinearConv": f"y = QLinearConv <group = {groups}> (x, s, z, W, s, zw, t, z)",
        "fused": "xf = DequantizeLinear(x, s, z) wf = DequantizeLinear(W, s, zw) "
        f"yf = Conv <group = {groups}> (xf, wf) y = QuantizeLinear(yf, t, z)",
    }[form]
    model = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["" : 17]>
        g (uint8[1, {channels}, 9, 9] x) => (uint8[1, {made}, 7, 7] y) {{ {nodes} }}"""
    )
    weights = np.full((made, channels // groups, 3, 3), 127, np.int8)
    constants = {
        "W": weights,
        "z": np.uint8(0),
        "zw": np.int8(0),
        "s": np.float32(1),
        "t": np.float32(255 * 127 * weights[0].size / 200),
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()
    )
    assert bool(saturating_nodes(open_proto(model))) == named
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": np.full((1, channels, 9, 9), 255, np.uint8)})[0]
    assert named or np.all(found == 200)


@pytest.mark.parametrize(
    ("quantize", "opset", "named"),
    [
        ("QuantizeLinear(x, s)", 17, True),
        ("QuantizeLinear(x, s, zi)", 17, False),
        ("QuantizeLinear <output_dtype = 3> (x, s)", 21, False),
        ("QuantizeLinear <output_dtype = 2> (x, s)", 21, True),
    ],
)
def test_what_is_quantized_without_a_zero_point_is_uint8(quantize: str, opset: int, named: bool) -> None:
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : {opset}]>
        g (float[4, 6] x) => (int32[4, 3] y) {{ q = {quantize} y = MatMulInteger(q, W) }}"""
    )
    constants = {"W": weights_of(127), "s": np.float32(1), "zi": np.int8(0)}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()
    )
    assert bool(saturating_nodes(open_proto(model))) == named


def test_dynamic_quantisation_is_named_and_a_reduced_range_is_not(tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    rng = np.random.default_rng(0)
    weights = numpy_helper.from_array(rng.standard_normal((64, 64)).astype(np.float32), "W")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["y"], name="product")],
        "g",
        [helper.make_tensor_value_info("x", TENSOR.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TENSOR.FLOAT, ["N", 64])],
        [weights],
    )
    source, path = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)]), source)
    x = {"x": rng.standard_normal((3, 64)).astype(np.float32)}
    for how, safe in (
        ({}, False),
        ({"reduce_range": True}, True),
        ({"weight_type": QuantType.QUInt8}, True),
    ):
        quantize_dynamic(source, path, **how)
        found = saturating_nodes(open_model(path))
        assert (found == ()) == safe
        if safe:
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            exact = ReferenceEvaluator(str(path)).run(None, x)[0]
            assert np.allclose(session.run(None, x)[0], exact, rtol=1e-5, atol=1e-5)


def test_the_warning_names_one_node_and_says_what_to_do() -> None:
    assert warning(()) is None
    assert str(warning(("a",))).startswith("node `a` sums ")
    assert str(warning(("a", "b", "c"))).startswith("node `a` and 2 more sum ")
    assert "reduce_range=True" in str(warning(("a",)))
