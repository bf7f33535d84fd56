"""From a model that nobody has seen to a verified split: no error on the way, three commands at most."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from dnnsplit_onnx.models import write_model
from tests.cli.conftest import Run

MACHINES = ("--edge", "raspberry-pi-4", "--cloud", "l4", "--link", "wifi")


def weights(rng: np.random.Generator, **shapes: tuple[int, ...]) -> list[onnx.TensorProto]:
    return [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) * 0.2, name)
        for name, shape in shapes.items()
    ]


def from_text(text: str, path: Path, tensors: list[onnx.TensorProto]) -> None:
    model = parser.parse_model(text)
    model.graph.initializer.extend(tensors)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def classifier(path: Path) -> None:
    """Its batch is open."""
    write_model("tiny_residual", path)


def encoder(path: Path) -> None:
    """Two inputs of int64, batch and length open."""
    text = """<ir_version: 9, opset_import: ["" : 17]>
    bert (int64[batch, length] input_ids, int64[batch, length] attention_mask)
      => (float[batch, length, 32] hidden) {
        words = Gather <axis = 0> (table, input_ids)
        mask = Cast <to = 1> (attention_mask)
        axes = Constant <value_ints = [-1]> ()
        wide = Unsqueeze (mask, axes)
        kept = Mul (words, wide)
        a = MatMul (kept, w0)
        b = Relu (a)
        c = MatMul (b, w1)
        d = Add (c, kept)
        hidden = LayerNormalization <axis = -1> (d, scale)
    }"""
    rng = np.random.default_rng(0)
    from_text(text, path, weights(rng, table=(100, 32), w0=(32, 64), w1=(64, 32), scale=(32,)))


def detector(path: Path) -> None:
    """Boxes whose number depends on the picture."""
    rng = np.random.default_rng(1)
    long = [("most", [10]), ("boxes_shape", [1, -1, 4]), ("scores_shape", [1, 1, -1])]
    tensors = [*weights(rng, w=(8, 3, 3, 3), wb=(4, 8, 1, 1), ws=(1, 8, 1, 1))]
    tensors += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in long]
    tensors += [numpy_helper.from_array(np.array([0.5], np.float32), name) for name in ("iou", "score")]
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["f"], strides=[4, 4], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["f"], ["g"]),
        helper.make_node("Conv", ["g", "wb"], ["b"]),
        helper.make_node("Conv", ["g", "ws"], ["s"]),
        helper.make_node("Sigmoid", ["s"], ["p"]),
        helper.make_node("Transpose", ["b"], ["bt"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["bt", "boxes_shape"], ["boxes"]),
        helper.make_node("Reshape", ["p", "scores_shape"], ["scores"]),
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou", "score"], ["selected"]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, "height", "width"])
    selected = helper.make_tensor_value_info("selected", TensorProto.INT64, ["n", 3])
    graph = helper.make_graph(nodes, "detector", [images], [selected], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def speech(path: Path) -> None:
    """A wave of open length through convolutions and an LSTM."""
    text = """<ir_version: 9, opset_import: ["" : 17]>
    speech (float[batch, 1, samples] wave) => (float[frames, batch, 5] logits) {
        a = Conv <strides = [4]> (wave, k0)
        b = Relu (a)
        c = Conv <strides = [2]> (b, k1)
        d = Relu (c)
        e = Transpose <perm = [2, 0, 1]> (d)
        y, h, cell = LSTM <hidden_size = 6> (e, wx, wh)
        axes = Constant <value_ints = [1]> ()
        z = Squeeze (y, axes)
        logits = MatMul (z, out)
    }"""
    rng = np.random.default_rng(2)
    shapes = {"k0": (4, 1, 8), "k1": (8, 4, 4), "wx": (1, 24, 8), "wh": (1, 24, 6), "out": (6, 5)}
    from_text(text, path, weights(rng, **shapes))


@pytest.mark.parametrize("make", [classifier, encoder, detector, speech], ids=lambda make: make.__name__)
def test_three_commands_from_an_unknown_model_to_a_proven_split(
    run: Run, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "model.onnx")
    assert run("inspect", tmp_path / "model.onnx").code == 0
    planned = run("plan", tmp_path / "model.onnx", *MACHINES)
    assert planned.code == 0, planned.err
    # Somewhere in the middle, whether or not it pays.
    found = run("inspect", tmp_path / "model.onnx", "--json").json
    middle = str(found["candidates"][len(found["candidates"]) // 2] or len(found["nodes"]) // 2)
    ended = run(
        "split", tmp_path / "model.onnx", *MACHINES, "--at", middle, "-o", tmp_path / "slices", "--json"
    )
    assert ended.code == 0, ended.err
    assert "error" not in ended.err
    proof = ended.json["verification"]
    assert proof["passed"]
    assert proof["bitwise"]
