"""Folders of slices to run, and ways to spoil them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from dnnsplit_onnx.files import file_sha256
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.slicing import slice_model
from dnnsplit_onnx.slicing.manifest import FILE_NAME
from tests.slicing.chain import plan_at

# A net whose output depends on every input element, with a weight on each tier of two.
PERCEPTRON = """
net (float[2, 8] x) => (float[2, 4] y)
<float[8, 6] w0, float[6, 4] w1>
{
    h = MatMul(x, w0)
    a = Tanh(h)
    y = MatMul(a, w1)
}
"""


def split(model: Path, *cuts: int, name: str = "slices") -> Path:
    """The model cut at these positions, tiers called t0, t1, ..."""
    graph = load_graph(model)
    folder = model.parent / name
    slice_model(graph, plan_at(graph, cuts), folder)
    return folder


def with_weights(model: Path, seed: int = 7) -> Path:
    """Gives random weights to what a model in text form declares and nothing makes."""
    proto = onnx.load(model)
    rng = np.random.default_rng(seed)
    made = {name for node in proto.graph.node for name in node.output}
    weights = {t.name: tuple(t.dims) for t in proto.graph.initializer}
    for value in proto.graph.value_info:
        if value.name not in made:
            weights[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    del proto.graph.value_info[:], proto.graph.initializer[:]
    for name, shape in weights.items():
        array = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(proto, model)
    return model


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the manifest of a folder as JSON."""
    path = folder / FILE_NAME
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def edit_slice(folder: Path, tier: str, change: Callable[[onnx.ModelProto], None]) -> None:
    """Changes a slice, its hash in the manifest left as it was."""
    path = folder / tier / "model.onnx"
    proto = onnx.load(path)
    change(proto)
    onnx.save(proto, path)


def update_hashes(folder: Path) -> None:
    """Makes the manifest agree with the slices' files as they are."""

    def update(data: dict[str, Any]) -> None:
        for record in data["slices"]:
            if record["file"] is not None:
                record["digests"] = {"sha256": file_sha256(folder / record["file"])}

    edit_manifest(folder, update)


def scale_weight(proto: onnx.ModelProto) -> None:
    """Changes the first large weight of a model a little."""
    tensor = proto.graph.initializer[0]
    weights = numpy_helper.to_array(tensor) * np.float32(1.001)
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
