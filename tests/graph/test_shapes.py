"""Types of values: what is known, what is bound, and what is left open."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from dnnsplit_onnx.errors import ShapeError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import ValueType, bind_shapes, free_dimensions
from tests.conftest import light

DYNAMIC = """
g (float[batch, 3] images) => (float[batch, 2] y)
<float[3, 2] w = {1, 2, 3, 4, 5, 6}>
{
   h = MatMul (images, w)
   y = Relu (h)
}
"""


@pytest.mark.parametrize(
    ("dtype", "shape", "nbytes"),
    [
        (TensorProto.FLOAT, (2, 3), 24),
        (TensorProto.FLOAT, (), 4),
        (TensorProto.FLOAT, (0, 3), 0),
        (TensorProto.BOOL, (5,), 5),
        (TensorProto.BFLOAT16, (5,), 10),
        (TensorProto.FLOAT8E5M2, (5,), 5),
        (TensorProto.INT4, (5,), 3),
        (TensorProto.UINT2, (5,), 2),
        (TensorProto.COMPLEX128, (2,), 32),
        (TensorProto.STRING, (2,), None),
        (TensorProto.FLOAT, ("batch", 3), None),
        (TensorProto.FLOAT, (None, 3), None),
        (TensorProto.FLOAT, None, None),
    ],
)
def test_sizes(dtype, shape, nbytes):
    assert ValueType("tensor", dtype, shape).nbytes == nbytes


def test_every_dtype_of_onnx_but_string_has_a_size():
    for name, dtype in TensorProto.DataType.items():
        known = ValueType("tensor", dtype, (8,)).nbytes is not None
        assert known == (name not in {"UNDEFINED", "STRING"}), name


def test_binding_makes_every_size_known(graph_text):
    graph = graph_text(DYNAMIC)
    assert free_dimensions(graph, {}) == ("batch",)
    types = bind_shapes(graph, {"batch": 4})
    assert types["h"] == ValueType("tensor", TensorProto.FLOAT, (4, 2))
    assert types.nbytes("images") == 48


def test_symbols_stay_symbols_without_binding(graph_text):
    types = bind_shapes(graph_text(DYNAMIC))
    assert types["h"].shape == ("batch", 2)
    assert types.nbytes("h") is None


def test_an_unknown_size_is_an_error_only_where_it_is_needed(graph_text):
    types = bind_shapes(graph_text(DYNAMIC))
    with pytest.raises(ShapeError) as caught:
        types.need_nbytes("images")
    assert caught.value.message == "cannot size value `images`: dimension `batch` is symbolic"
    assert caught.value.context == "in m.onnx, used by node `MatMul_h` (MatMul)"
    assert caught.value.hint == "pass --bind batch=1"


def test_a_binding_of_nothing_is_refused(graph_text):
    with pytest.raises(ShapeError, match="no dimension `bath`") as caught:
        bind_shapes(graph_text(DYNAMIC), {"bath": 1})
    assert "`batch`" in (caught.value.hint or "")
    with pytest.raises(ShapeError, match="to 0"):
        bind_shapes(graph_text(DYNAMIC), {"batch": 0})


@pytest.mark.parametrize("unknown", [None, -1])
def test_dimensions_without_a_name_bind_by_input_and_axis(tmp_path, unknown):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])
    if unknown is not None:
        x.type.tensor_type.shape.dim[0].dim_value = unknown
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y]))
    onnx.save(model, tmp_path / "m.onnx")
    graph = load_graph(tmp_path / "m.onnx")
    assert free_dimensions(graph, {}) == ("x.0",)
    assert bind_shapes(graph, {"x.0": 2})["y"].shape == (2, 3)


def test_stale_declarations_give_way_to_a_binding(graph_text, tmp_path):
    graph = graph_text(DYNAMIC)
    model = onnx.load(tmp_path / "m.onnx")
    model.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, [9, 9, 9]))
    onnx.save(model, tmp_path / "stale.onnx")
    types = bind_shapes(load_graph(tmp_path / "stale.onnx"), {"batch": 4})
    assert types["y"].shape == (4, 2)
    assert graph.outputs == ("y",)


def test_a_size_no_tensor_can_have_is_refused(graph_text):
    graph = graph_text("g (float[4611686018427387904, 4] x) => (float[N] y) { y = Relu (x) }")
    with pytest.raises(ShapeError, match="claims"):
        bind_shapes(graph).nbytes("x")


def test_small_constants_are_known(graph_text):
    types = bind_shapes(
        graph_text(
            """g (float[6] x) => (float[N] y) <int64[2] s = {2, 3}>
            { t = Constant <value = int64[1] {6}> ()
              a = Reshape (x, s)
              y = Reshape (a, t) }"""
        )
    )
    assert types.constant("s").tolist() == [2, 3]
    assert types.constant("t").tolist() == [6]
    assert types.constant("x") is None
    assert types["a"].shape == (2, 3)


def test_all_values_of_a_real_model_have_sizes():
    graph = load_graph(light("densenet121"))
    types = bind_shapes(graph)
    assert all(types.nbytes(value) for value in graph.values)


def test_a_stale_declaration_does_not_shrink_a_value(tmp_path):
    graph = onnx.parser.parse_graph("g (float[N, 3] x) => (float[1, 3] y) { a = Relu (x)  y = Neg (a) }")
    graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 3]))
    onnx.save(helper.make_model(graph, ir_version=8), tmp_path / "m.onnx")
    types = bind_shapes(load_graph(tmp_path / "m.onnx"), {"N": 8})
    assert (types["a"].shape, types["y"].shape) == ((8, 3), (8, 3))


def test_what_cannot_be_proved_is_taken_from_the_file(tmp_path):
    graph = onnx.parser.parse_graph("g (float[4, 3] x) => (float[4, 3] y) { a = own.op (x)  y = Neg (a) }")
    graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [4, 3]))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=opsets), tmp_path / "m.onnx")
    types = bind_shapes(load_graph(tmp_path / "m.onnx"))
    assert (types["a"].shape, types["y"].shape) == ((4, 3), (4, 3))
