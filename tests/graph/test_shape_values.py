"""Shapes behind values that are computed from shapes, held against real runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.models import write_model
from dnnsplit_onnx.runtime.observing import observe


@pytest.mark.parametrize("sizes", [(1, 1, 16), (2, 5, 1), (3, 7, 40)])
def test_a_decoder_is_sized_as_it_runs(tmp_path: Path, sizes: tuple[int, int, int]) -> None:
    write_model("tiny_decoder", tmp_path / "m.onnx")
    graph = load_graph(tmp_path / "m.onnx")
    types = bind_shapes(graph, dict(zip(("batch", "sequence", "past_sequence"), sizes, strict=True)))
    assert types.unsized == ()
    assert list(types.inferred.graph.node) == list(graph.proto.graph.node)
    # What inference leaves open without them is what a run shows.
    blind = bind_shapes(graph, dict(types.bindings))
    del blind.inferred.graph.value_info[:]
    seen = observe(blind, None)
    assert seen.observed
    for name, kind in seen.observed.items():
        assert types[name].shape == kind.shape, name


RANGES = """
range (float[N, M] x) => (float[A, B] y) {
    shape = Shape(x)
    n = Gather<axis = 0>(shape, zero)
    m = Gather<axis = 0>(shape, one)
    sum = Add(n, m)
    half = Div(sum, two)
    numbers = Range(zero, half, one)
    floats = Cast<to = 1>(numbers)
    row = Unsqueeze(floats, axes)
    y = Mul(row, row)
}
"""


def ranges(folder: Path) -> onnx.ModelProto:
    model = onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]>' + RANGES)
    for name, value in (("zero", 0), ("one", 1), ("two", 2)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.int64), name))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0], np.int64), "axes"))
    onnx.save(model, folder / "m.onnx")
    return model


def test_lengths_that_are_computed(tmp_path: Path) -> None:
    ranges(tmp_path)
    graph = load_graph(tmp_path / "m.onnx")
    types = bind_shapes(graph, {"N": 5, "M": 8})
    assert types["numbers"].shape == (6,)
    assert types["row"].shape == (1, 6)
    assert bind_shapes(graph, {"N": 5})["numbers"].nbytes is None  # M is open: nothing is guessed


def test_a_claim_of_a_billion_numbers_costs_nothing(tmp_path: Path) -> None:
    model = ranges(tmp_path)
    model.graph.initializer[2].CopyFrom(onnx.numpy_helper.from_array(np.array(-1, np.int64), "two"))
    model.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.array(1, np.int64), "one"))
    model.graph.node[4].op_type = "Sub"
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1 << 40
    onnx.save(model, tmp_path / "m.onnx")
    types = bind_shapes(load_graph(tmp_path / "m.onnx"), {"M": 1 << 40})
    assert types["numbers"].nbytes is None
