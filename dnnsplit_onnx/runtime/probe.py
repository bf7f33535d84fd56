"""A model small enough to try a provider with, using what most models use."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dnnsplit_onnx.errors import DnnsplitError, ModelError
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.runtime.inputs import to_values
from dnnsplit_onnx.runtime.sessions import SessionOptions, open_session

_SHAPE = (1, 3, 8, 8)


def run_probe(provider: str) -> None:
    """Runs a convolution (cuDNN, on CUDA) and a matrix product (cuBLAS) on a provider.

    Raises:
        ModelError: The model fails there, or computes something else than on the CPU.
        MissingExtraError: onnxruntime lacks the provider, or falls back from it.
    """
    inputs = {"x": np.linspace(-1, 1, np.prod(_SHAPE), dtype=np.float32).reshape(_SHAPE)}
    with tempfile.TemporaryDirectory(prefix="dnnsplit-probe-") as folder:
        path = _write(Path(folder) / "probe.onnx")
        made = []
        for name in dict.fromkeys(("cpu", provider)):
            session = open_session(path, SessionOptions(provider=name), label=f"a small model on `{name}`")
            values = to_values([Port(name="x", dtype="float", shape=_SHAPE)], inputs)
            made.append(session.run(values)["y"].numpy())
    if not np.allclose(made[0], made[-1], rtol=1e-2, atol=1e-2):  # CUDA multiplies in TF32
        raise ModelError(f"a small model on `{provider}` computes something else than on the CPU")


def _write(path: Path) -> Path:
    """Conv, then MatMul, in a form that any onnxruntime of the last years reads."""
    weights = np.linspace(-1, 1, 4 * 3 * 3 * 3, dtype=np.float32).reshape(4, 3, 3, 3)
    matrix = np.linspace(-1, 1, 6 * 5, dtype=np.float32).reshape(6, 5)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "m"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, _SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4, 6, 5))],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(matrix, "m")],
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


if __name__ == "__main__":
    try:
        run_probe(sys.argv[1])
    except DnnsplitError as failure:
        sys.exit(failure.message)
