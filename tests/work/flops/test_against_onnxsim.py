"""MACs of whole models held against onnxsim's own counter, to the last unit.

It defines a MAC as we do for what these models hold: products of Conv, Gemm and MatMul.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes, free_dimensions
from dnnsplit_onnx.models import ENTRIES, write_model
from dnnsplit_onnx.work.analysis import measure

model_info = pytest.importorskip("onnxsim.model_info", reason="onnxsim is not installed")


@pytest.mark.parametrize(
    "name",
    [name for name in ENTRIES if name.startswith("light_") or name in ("tiny_residual", "tiny_transformer")],
)
def test_macs_are_those_that_onnxsim_counts(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write_model(name, path)
    graph = load_graph(path)
    sizes = dict.fromkeys(free_dimensions(graph, {}), 1)
    types = bind_shapes(graph, sizes)
    concrete = onnx.load(path)
    for value in concrete.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = sizes[dim.dim_param]
    assert int(measure(graph, types).macs.sum()) == model_info.ModelInfo(concrete).macs
