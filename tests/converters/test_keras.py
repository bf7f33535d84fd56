"""Keras models, by whichever of its two routes is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from dnnsplit_onnx.converters import convert
from dnnsplit_onnx.errors import InputError, VerificationError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.layers import layer_positions
from tests.converters.support import needs

pytestmark = needs("cpu")
TORCH = pytest.param("keras-torch", marks=needs("keras"))
TENSORFLOW = pytest.param("keras-tf", marks=needs("keras-tf"))
both_routes = pytest.mark.parametrize("route", [TORCH, TENSORFLOW])

HEAD = """
import keras
def start():
    keras.utils.set_random_seed(1)
    return keras.initializers.RandomNormal(stddev=1.0)
"""

IMAGE = f"""{HEAD}
def build():
    wide = start()
    image = keras.Input((12, 12, 3), name="image")
    x = keras.layers.Conv2D(8, 3, padding="same", strides=2, name="conv")(image)
    x = keras.layers.BatchNormalization(name="norm", moving_mean_initializer=wide, beta_initializer=wide)(x)
    x = keras.layers.ReLU(name="act.1")(x)
    y = keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = keras.layers.Add(name="add")([x, y])
    inside = keras.Input((6, 6, 8))
    z = keras.layers.Conv2D(4, 1, activation="swish", name="pointwise")(inside)
    x = keras.Model(inside, z, name="inner")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    head = keras.layers.Dense(5, activation="softmax", kernel_initializer=wide, name="head")
    return keras.Model(image, head(x))
"""

TWO = f"""{HEAD}
def build():
    start()
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    shared = keras.layers.Dense(6, name="shared")
    x = keras.layers.Concatenate(name="join")([shared(keras.layers.Dense(3, name="narrow")(a)), shared(b)])
    z, y = keras.layers.Dense(2, name="z")(x), keras.layers.Dense(3, name="y")(x)
    return keras.Model({{"a": a, "b": b}}, [z, y])
"""

TEXT = f"""{HEAD}
def build():
    wide = start()
    return keras.Sequential([
        keras.Input((9,), dtype="int32", name="tokens"),
        keras.layers.Embedding(11, 6, embeddings_initializer=wide, name="embedding"),
        keras.layers.LSTM(5, name="lstm"),
        keras.layers.Dense(3, name="logits"),
    ])
"""

CONSTANT = f"""{HEAD}
def build():
    x = keras.Input((8,))
    return keras.Model(x, keras.layers.Dense(4, activation="softmax", kernel_initializer="zeros")(x))
"""

SUBCLASS = f"""{HEAD}
class Net(keras.Model):
    def __init__(self):
        super().__init__(name="net")
        self.dense = keras.layers.Dense(3)
    def call(self, x):
        return self.dense(x)
def build():
    return Net()
"""

OPEN_WIDTH = f"""{HEAD}
def build():
    start()
    x = keras.Input((None, 3), name="series")
    return keras.Model(x, keras.layers.Dense(4, name="dense")(x))
"""


@both_routes
def test_an_image_model_keeps_its_layers(importable, tmp_path, route):
    report = convert(f"{importable('image', IMAGE)}:build", tmp_path / "m.onnx", route=route)
    assert report.route == route
    assert report.max_rel_diff < 1e-5
    assert [(port.name, port.shape) for port in report.inputs] == [("image", ("batch", 12, 12, 3))]
    assert [(port.name, port.shape) for port in report.outputs] == [("head", ("batch", 5))]
    ends = layer_positions(load_graph(tmp_path / "m.onnx"))
    order = ["norm", "act.1", "depthwise", "add", "inner/pointwise", "pool", "head"]
    assert [name for name in ends if name in order] == order
    assert ends["inner"] == ends["inner/pointwise"]
    assert ends["head"] == report.nodes


@needs("keras")
def test_batch_normalisation_is_one_node_a_layer(importable, tmp_path):
    convert(f"{importable('norms', IMAGE)}:build", tmp_path / "m.onnx", route="keras-torch")
    graph = load_graph(tmp_path / "m.onnx")
    assert [node.op_type for node in graph.nodes].count("BatchNormalization") == 1
    assert layer_positions(graph)["conv"] < layer_positions(graph)["norm"]


@both_routes
def test_inputs_and_outputs_keep_names_and_order(importable, tmp_path, route):
    report = convert(f"{importable('two', TWO)}:build", tmp_path / "m.onnx", route=route)
    assert [(port.name, port.shape) for port in report.inputs] == [("a", ("batch", 4)), ("b", ("batch", 3))]
    assert [(port.name, port.shape) for port in report.outputs] == [("z", ("batch", 2)), ("y", ("batch", 3))]


@both_routes
def test_recurrent_models_convert(importable, tmp_path, route):
    convert(f"{importable('text', TEXT)}:build", tmp_path / "m.onnx", route=route)
    operators = [node.op_type for node in load_graph(tmp_path / "m.onnx").nodes]
    assert operators.count("LSTM") == 1


@both_routes
def test_a_fixed_batch_is_a_number(importable, tmp_path, route):
    report = convert(f"{importable('fixed', IMAGE)}:build", tmp_path / "m.onnx", route=route, batch=3)
    assert report.inputs[0].shape == (3, 12, 12, 3)
    assert report.outputs[0].shape == (3, 5)


@both_routes
def test_other_open_dimensions_have_names_and_can_be_bound(importable, tmp_path, route):
    source = f"{importable('open_width', OPEN_WIDTH)}:build"
    report = convert(source, tmp_path / "m.onnx", route=route)
    assert report.inputs[0].shape == ("batch", "series_1", 3)
    report = convert(source, tmp_path / "n.onnx", route=route, sizes={"series_1": 7})
    assert report.inputs[0].shape == ("batch", 7, 3)


@both_routes
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_saved_files_convert(importable, tmp_path, route, suffix):
    module = importable("saving", f"{IMAGE}\ndef save(path):\n    build().save(path)\n")
    _in_process(f"import {module}; {module}.save('{tmp_path}/m{suffix}')", tmp_path, route)
    report = convert(tmp_path / f"m{suffix}", tmp_path / "m.onnx", route=route)
    assert report.max_rel_diff < 1e-5
    assert "head" in layer_positions(load_graph(tmp_path / "m.onnx"))


@needs("keras-tf")
def test_saved_models_convert(importable, tmp_path):
    module = importable("exporting", f"{IMAGE}\ndef save(path):\n    build().export(path, verbose=False)\n")
    _in_process(f"import {module}; {module}.save('{tmp_path}/saved')", tmp_path, "keras-tf")
    report = convert(tmp_path / "saved", tmp_path / "m.onnx")
    assert report.route == "keras-tf"
    assert [(port.name, port.shape) for port in report.inputs] == [("image", ("batch", 12, 12, 3))]
    assert {"norm", "depthwise", "head"} <= set(layer_positions(load_graph(tmp_path / "m.onnx")))


@both_routes
def test_a_model_that_ignores_its_input_fails_the_check(importable, tmp_path, route):
    source = f"{importable('constant', CONSTANT)}:build"
    with pytest.raises(VerificationError, match="proves nothing"):
        convert(source, tmp_path / "m.onnx", route=route)
    assert not (tmp_path / "m.onnx").exists()
    assert not convert(source, tmp_path / "m.onnx", route=route, check=False).checked


@both_routes
def test_a_subclass_without_a_graph_says_what_to_do(importable, tmp_path, route):
    with pytest.raises(InputError, match="without a graph of layers") as caught:
        convert(f"{importable('subclass', SUBCLASS)}:build", tmp_path / "m.onnx", route=route)
    assert "keras.Input" in caught.value.hint


@both_routes
def test_a_file_that_is_not_one_is_an_error_in_one_line(tmp_path, route):
    (tmp_path / "m.keras").write_text("not a model")
    with pytest.raises(InputError, match="Keras cannot load"):
        convert(tmp_path / "m.keras", tmp_path / "m.onnx", route=route)


@both_routes
def test_operators_that_tensorflow_keeps_to_itself_have_a_form(importable, tmp_path, route):
    # tf2onnx knows no Erfc, and no function that is to be compiled, as grouped convolutions are.
    source = f"""{HEAD}
def build():
    wide, x = start(), keras.Input((6, 6, 4), name="x")
    y = keras.layers.Conv2D(8, 3, groups=2, activation="gelu", kernel_initializer=wide, name="conv")(x)
    return keras.Model(x, y)
"""
    report = convert(f"{importable('closed', source)}:build", tmp_path / "m.onnx", route=route)
    assert report.max_rel_diff < 1e-5
    assert list(layer_positions(load_graph(tmp_path / "m.onnx"))) == ["conv"]


@needs("keras-tf")
def test_weights_that_are_kept_apart_make_the_same_model(importable, tmp_path):
    # One weight is read once, one twice.
    model = f"""{HEAD}
def build():
    wide, x = start(), keras.Input((20,), name="x")
    shared = keras.layers.Dense(20, kernel_initializer=wide, name="shared")
    y = keras.layers.Dense(30, kernel_initializer=wide, name="once")(shared(shared(x)))
    return keras.Model(x, y)
"""
    apart = f"from dnnsplit_onnx.converters import keras_tf\nkeras_tf.LARGE = 0\n{model}"
    reports, layers = [], []
    for name, source in (("whole", model), ("apart", apart)):
        path = tmp_path / f"{name}.onnx"
        reports.append(convert(f"{importable(name, source)}:build", path, route="keras-tf"))
        layers.append(list(layer_positions(load_graph(path))))
    assert [report.max_rel_diff < 1e-5 for report in reports] == [True, True]
    assert layers[0] == layers[1] == ["shared", "once"]
    assert Counter(n.op_type for n in load_graph(tmp_path / "apart.onnx").nodes)["MatMul"] == 3


@needs("keras-tf")
def test_an_operator_without_a_form_in_onnx_is_named(importable, tmp_path):
    model = "x = keras.Input((4, 4)); return keras.Model(x, keras.ops.svd(x, compute_uv=False))"
    source = f"{importable('values', f'import keras{chr(10)}def build():{chr(10)}    {model}')}:build"
    with pytest.raises(InputError, match="no form in ONNX for TensorFlow's `Svd`"):
        convert(source, tmp_path / "m.onnx", route="keras-tf")


@needs("keras")
def test_tensorflow_is_never_imported_on_the_torch_route(importable, tmp_path):
    importable("tensorflow", "raise SystemExit('TensorFlow was imported')")
    assert convert(f"{importable('plain', IMAGE)}:build", tmp_path / "m.onnx", route="keras-torch").checked


def _in_process(code, folder, route):
    backend = {"keras-torch": "torch", "keras-tf": "tensorflow"}[route]
    subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(folder)},
        check=True,
        capture_output=True,
    )
