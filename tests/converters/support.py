"""Skipping where a framework is missing, and a framework that never is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.converters.adapter import Adapter, InputSpec
from dnnsplit_onnx.converters.extras import install_line, missing


def needs(*extras: str) -> pytest.MarkDecorator:
    """Skips where an extra is not installed, and says which."""
    absent = [extra for extra in extras if missing(extra)]
    reason = "not installed: " + ", ".join(absent) + (f" ({install_line(absent[0])})" if absent else "")
    return pytest.mark.skipif(bool(absent), reason=reason)


BODY = """
g (float[batch, 4] x) => (float[batch, 3] y)
<float[4, 8] w1, float[8, 3] w2>
{
    a = MatMul(x, w1)
    b = Relu(a)
    y = MatMul(b, w2)
}
"""
LAYERS = {"a": "dense1", "b": "act", "y": "dense2"}


class Numpy(Adapter):
    """A framework of three lines, to test everything around frameworks with.

    Args:
        broken: The layer that the export gets wrong, None for a right one.
        scale: Multiplies the output: zero makes a check vacuous.
    """

    route = "pytorch"

    def __init__(self, broken: str | None = None, scale: float = 1.0) -> None:
        self.inputs = (InputSpec("x", np.dtype(np.float32), ("batch", 4)),)
        generator = np.random.default_rng(7)
        self.w1 = generator.standard_normal((4, 8)).astype(np.float32)
        self.w2 = (generator.standard_normal((8, 3)) * scale).astype(np.float32)
        self.broken = broken
        self.layers, self.parameters, self.notes = 3, 56, ["a note"]

    def versions(self):
        return {"numpy": np.__version__}

    def run(self, feeds):
        return [dict(self.layer_outputs(feeds))["dense2"]]

    def layer_outputs(self, feeds):
        a = feeds["x"] @ self.w1
        b = np.maximum(a, 0)
        yield from (("dense1", a), ("act", b), ("dense2", b @ self.w2))

    def layer_of(self, node):
        return LAYERS[node.output[0]]

    def export(self, path: Path, feeds) -> None:
        del feeds
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{BODY}')
        for name, weight in (("w1", self.w1), ("w2", self.w2)):
            model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
        for node in model.graph.node:
            node.name = f"node_{node.output[0]}"
            if LAYERS[node.output[0]] == self.broken:
                node.op_type = "Softplus" if node.op_type == "Relu" else node.op_type
                if node.op_type == "MatMul":
                    weight = model.graph.initializer[0 if node.output[0] == "a" else 1]
                    weight.CopyFrom(
                        onnx.numpy_helper.from_array(
                            onnx.numpy_helper.to_array(weight) * np.float32(1.01), weight.name
                        )
                    )
        onnx.save(model, path)
