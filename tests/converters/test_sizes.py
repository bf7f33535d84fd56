"""What is checked is checked at more sizes than the one that was traced, and in inference."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.converters import convert
from dnnsplit_onnx.converters.adapter import InputSpec
from dnnsplit_onnx.converters.conversion import Options
from dnnsplit_onnx.converters.pipeline import run_conversion
from dnnsplit_onnx.converters.routes import Route
from dnnsplit_onnx.errors import InputError, VerificationError
from tests.converters.support import Numpy, needs

pytestmark = [needs("cpu"), pytest.mark.filterwarnings("ignore")]
ROUTE = Route("pytorch", "asked for")


class Summed(Numpy):
    """Sums over an open axis; its export does that for one length, or fixes it.

    Args:
        body: What it exports as.
        shortest: The framework itself takes nothing shorter.
    """

    def __init__(self, body: str, shortest: int = 0) -> None:
        super().__init__()
        self.body, self.shortest = body, shortest
        self.inputs = (InputSpec("x", np.dtype(np.float32), ("batch", "time")),)
        self.notes = []

    def run(self, feeds):
        if feeds["x"].shape[1] < self.shortest:
            raise ValueError("too short")
        return [feeds["x"].sum(1, keepdims=True)]

    def layer_outputs(self, feeds):
        del feeds
        return iter(())

    def layer_of(self, node):
        del node

    def export(self, path, feeds):
        del feeds
        onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]>\n{self.body}'), path)


RIGHT = "g (float[b, t] x) => (float[b, 1] y) { y = ReduceSum(x) }".replace(
    "ReduceSum(x)", "ReduceSum <keepdims = 1> (x, axes)"
).replace("{", "<int64[1] axes = {1}> {")
SIX = RIGHT.replace("{ y", "{ s = Slice(x, from, to, axes) y").replace("(x, axes) }", "(s, axes) }")
SIX = SIX.replace("axes = {1}", "axes = {1}, int64[1] from = {0}, int64[1] to = {6}")
FIXED = RIGHT.replace("float[b, t]", "float[b, 6]")


def run(adapter, output, **options):
    return run_conversion(adapter, "sums", output, ROUTE, Options(**options))


def test_a_right_export_is_checked_at_other_sizes(tmp_path):
    report = run(Summed(RIGHT), tmp_path / "m.onnx")
    assert report.checked_at == ("batch=2 time=6", "batch=3 time=13", "batch=1 time=6")


def test_an_export_that_is_right_at_one_size_alone_fails(tmp_path):
    with pytest.raises(VerificationError, match="at batch=3 time=13") as caught:
        run(Summed(SIX), tmp_path / "m.onnx")
    assert "--bind time=6" in caught.value.hint
    assert run(Summed(SIX), tmp_path / "m.onnx", sizes={"time": 6}).checked


def test_an_open_dimension_that_comes_out_fixed_is_an_error_unless_asked_for(tmp_path):
    with pytest.raises(InputError, match="`time` of input `x` came out fixed at 6") as caught:
        run(Summed(FIXED), tmp_path / "m.onnx")
    assert "--bind time=6" in caught.value.hint
    assert run(Summed(FIXED), tmp_path / "m.onnx", sizes={"time": 6}).inputs[0].shape == ("batch", 6)


def test_sizes_are_those_that_the_framework_takes(tmp_path):
    report = run(Summed(RIGHT, shortest=30), tmp_path / "m.onnx")
    assert report.checked_at[:2] == ("batch=2 time=32", "batch=3 time=65")
    with pytest.raises(InputError, match="ValueError: too short") as caught:
        run(Summed(RIGHT, shortest=1000), tmp_path / "n.onnx")
    assert "--input X.npz" in caught.value.hint


def test_a_size_that_nothing_checked_is_said(tmp_path):
    class Only(Summed):
        def run(self, feeds):
            if feeds["x"].shape[1] != 6:
                raise ValueError("six")
            return super().run(feeds)

    assert "`time` at 6" in run(Only(RIGHT), tmp_path / "m.onnx").notes[0]


def recurrent():
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.gru = torch.nn.GRU(4, 5)

        def forward(self, x):
            return self.gru(x)[0]

    return Net(), torch.randn(10, 2, 4)


@needs("pytorch")
def test_the_time_of_a_recurrent_layer_is_no_batch(tmp_path):
    report = convert(recurrent(), tmp_path / "m.onnx")
    assert report.inputs[0].shape == (10, "batch", 4)
    assert "the example" in report.checked_at


@needs("pytorch")
def test_outputs_called_like_layers_keep_their_names(tmp_path):
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Linear(4, 5)

        def forward(self, x):
            wide = self.embedding(x)
            return {"linear": wide.softmax(-1), "embedding": wide, "same": wide, "x2": x}

    for check in (True, False):
        report = convert((Net(), torch.randn(2, 4)), tmp_path / f"{check}.onnx", check=check)
        assert [port.name for port in report.outputs] == ["linear", "embedding", "same", "x2"]
        onnx.checker.check_model(str(tmp_path / f"{check}.onnx"))


@needs("pytorch")
@pytest.mark.parametrize(
    ("dynamic", "sizes", "message", "hint"),
    [
        ({"y": {0: "n"}}, {}, "`y`, which is no input", "`input`"),
        ({"input": {3: "n"}}, {}, "axis 3 of `input`", "[2, 4]"),
        (None, {"bach": 3}, "no open dimension `bach`", "`batch`"),
    ],
)
def test_typos_are_noticed(tmp_path, dynamic, sizes, message, hint):
    import torch

    source = (torch.nn.Sequential(torch.nn.Linear(4, 3)), torch.randn(2, 4), dynamic)
    with pytest.raises(InputError, match=message) as caught:
        convert(source, tmp_path / "m.onnx", sizes=sizes)
    assert hint in caught.value.hint


KERAS = """
import keras, numpy as np
keras.utils.set_random_seed(0)
L = keras.layers

class Noisy(L.Layer):
    def __init__(self):
        super().__init__()
        self.inner = L.Dropout(0.5)
    def call(self, x, training=True):
        return self.inner(x, training=training) * (3.0 if training else 1.0)

def net(shape, *layers):
    return keras.Sequential([keras.Input(shape, name="x"), *layers])
def pools():
    image = (None, None, 3)
    return net(image, L.MaxPooling2D(2, padding="same"), L.Conv2D(4, 3, strides=2, padding="same"),
               L.AveragePooling2D(3, strides=2, padding="same"), L.AveragePooling2D(2, padding="same"))
def time():
    return net((None, 3), L.TimeDistributed(L.Dense(4)), L.MaxPooling1D(2), L.Conv1D(3, 3, padding="same"))
def training():
    x = keras.Input((8, 8, 3), name="x")
    y = L.RandomRotation(0.2)(L.RandomFlip()(x))
    y = L.Dropout(0.5)(L.Conv2D(4, 3)(y), training=True)
    y = L.GaussianNoise(1.0)(Noisy()(y))
    return keras.Model(x, L.Dense(3)(L.Flatten()(y)))
def predicted(path):
    np.save(path, training().predict(np.linspace(-1, 1, 384, dtype="float32").reshape(2, 8, 8, 3), verbose=0))
"""


@needs("keras")
@pytest.mark.parametrize(("build", "rank"), [("pools", 4), ("time", 3)])
def test_images_and_series_of_any_size(importable, tmp_path, build, rank):
    report = convert(f"{importable('keras_sizes', KERAS)}:{build}", tmp_path / "m.onnx", route="keras-torch")
    assert len(report.checked_at) == 3
    assert [type(dim) for dim in report.inputs[0].shape] == [str] * (rank - 1) + [int]
    assert report.max_rel_diff < 1e-5


@needs("keras")
def test_what_is_exported_is_what_predict_gives(importable, tmp_path):
    import os
    import subprocess
    import sys

    from dnnsplit_onnx.converters.parity import OnnxRun

    module = importable("keras_training", KERAS)
    convert(f"{module}:training", tmp_path / "m.onnx", route="keras-torch")
    subprocess.run(
        [sys.executable, "-c", f"import {module}; {module}.predicted('{tmp_path}/y.npy')"],
        env={**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
    )
    image = np.linspace(-1, 1, 384, dtype="float32").reshape(2, 8, 8, 3)
    (got,) = OnnxRun(tmp_path / "m.onnx")({"x": image}).values()
    np.testing.assert_allclose(got, np.load(tmp_path / "y.npy"), rtol=1e-4, atol=1e-5)
