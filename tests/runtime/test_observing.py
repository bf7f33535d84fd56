"""Sizes seen in a run where inference proves none."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import ValueType, bind_shapes
from dnnsplit_onnx.runtime.observing import observe

# The length of `c` is data: how many elements of x are not zero.
DATA_DEPENDENT = """
g (float[6] x) => (int64[1, n] y)
{
   a = Relu (x)
   b = NonZero (a)
   c = Neg (b)
   y = Abs (c)
}
"""


def test_sizes_of_a_run_fill_what_is_unknown(graph_text):
    types = bind_shapes(graph_text(DATA_DEPENDENT))
    assert types.unsized == ("b", "c", "y")
    seen = observe(types, {"x": np.array([1, 2, 0, 3, -1, 0], np.float32)})
    assert seen.unsized == ()
    assert seen["c"].shape == (1, 3)
    assert seen["c"].dtype == onnx.TensorProto.INT64
    assert seen.nbytes("b") == 24
    assert types.nbytes("b") is None  # what was inferred is as it was


def test_nothing_is_run_where_all_is_known(graph_text, monkeypatch):
    types = bind_shapes(graph_text("g (float[6] x) => (float[6] y) { y = Relu (x) }"))
    assert observe(types) is types


def test_a_model_that_does_not_run_is_an_error(graph_text):
    types = bind_shapes(
        graph_text(
            "g (float[6] x) => (float[6] y) { a = own.op (x)  y = Relu (a) }",
            header='ir_version: 8, opset_import: ["" : 17, "own" : 1]',
        )
    )
    with pytest.raises(ModelError, match="cannot be loaded"):
        observe(types)


def test_elements_of_unknown_type_are_told_by_the_runtime(tmp_path):
    value = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("FusedMatMul", ["x", "x"], ["a"], domain="com.microsoft"),
        onnx.helper.make_node("Relu", ["a"], ["y"]),
    ]
    ports = [value("x", onnx.TensorProto.FLOAT, [3, 3])], [onnx.ValueInfoProto(name="y")]
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    made = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", *ports), opset_imports=opsets, ir_version=8
    )
    onnx.save(made, tmp_path / "m.onnx")
    types = bind_shapes(load_graph(tmp_path / "m.onnx"))
    assert "a" in types.unsized
    assert observe(types)["a"] == ValueType("tensor", onnx.TensorProto.FLOAT, (3, 3))


def test_a_value_of_unknown_size_is_not_held_to_the_end(tmp_path):
    # Forty values of 8 MB, one after the other, behind a size that is data: a plain run holds two.
    side = 2**21
    nodes = ["c = Identity (x)", *(f"v{at} = Neg (v{at - 1})" for at in range(1, 40))]
    text = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g (int64[1] n, float[1] x) => (float[] y) {{
        v0 = Expand (x, n)
        {chr(10).join(nodes)}
        y = ReduceMax (v39)
    }}
    """
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    code = (
        "import resource, sys, numpy as np\n"
        "from dnnsplit_onnx import load_graph\n"
        "from dnnsplit_onnx.graph.shapes import bind_shapes\n"
        "from dnnsplit_onnx.runtime.observing import observe\n"
        "types = bind_shapes(load_graph(sys.argv[1]))\n"
        "assert len(types.unsized) >= 40\n"
        "def seen(size):\n"
        "    kind = observe(types, {'n': np.array([size]), 'x': np.ones(1, np.float32)})\n"
        "    assert kind['v39'].shape == (size,)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        f"before = seen(1); print(seen({side}) - before)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.onnx")], capture_output=True, text=True, check=True
    )
    assert int(ended.stdout) < 6 * 4 * side


def test_strings_take_what_they_take_on_the_wire(graph_text):
    types = bind_shapes(graph_text("g (string[2] x) => (string[2] y) { y = Identity (x) }"))
    seen = observe(types, {"x": np.array(["a", "bcd\u00e9"], object)})
    assert seen.nbytes("x") == seen.nbytes("y") == 4 + 1 + 4 + 5
