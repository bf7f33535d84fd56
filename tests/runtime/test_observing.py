"""Sizes seen in a run where inference proves none."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.graph.shapes import bind_shapes
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
