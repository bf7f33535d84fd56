"""Recurrent layers: one operator each, right for any number of steps."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from dnnsplit_onnx.converters import convert
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.layers import layer_of
from dnnsplit_onnx.graph.shapes import bind_shapes
from tests.converters.support import needs

pytestmark = [needs("cpu"), pytest.mark.filterwarnings("ignore")]
TORCH = pytest.param("keras-torch", marks=needs("keras"))
TENSORFLOW = pytest.param("keras-tf", marks=needs("keras-tf"))


def module():
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.lstm = torch.nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True)
            self.gru = torch.nn.GRU(10, 6)
            self.rnn = torch.nn.RNN(6, 3, nonlinearity="relu", bias=False)
            self.head = torch.nn.Linear(3, 2)

        def forward(self, x, h):
            wide, _ = self.lstm(x)
            time_first, last = self.gru(wide.transpose(0, 1), h)
            narrow, _ = self.rnn(time_first)
            return {"all": self.head(narrow), "flat": narrow.transpose(0, 1).flatten(1), "last": last}

    example = {"x": torch.randn(1, 7, 4), "h": torch.randn(1, 1, 6)}
    return Net(), example, {"x": {0: "batch", 1: "time"}, "h": {1: "batch"}}


@needs("pytorch")
def test_layers_of_torch_are_operators_for_any_number_of_steps(tmp_path):
    net, example, dynamic = module()
    before = copy.deepcopy(net.state_dict())
    report = convert((net, example, dynamic), tmp_path / "m.onnx")
    assert report.checked_at == (
        "batch=2 time=7",
        "the example",
        "batch=3 time=15",
        "batch=1 time=7",
    )
    assert report.max_rel_diff < 1e-5
    graph = load_graph(tmp_path / "m.onnx")
    named = {node.op_type: layer_of(node.proto) for node in graph.nodes}
    assert (named["LSTM"], named["GRU"], named["RNN"]) == ("lstm", "gru", "rnn")
    assert [node.op_type for node in graph.nodes].count("LSTM") == 2
    # The module is as it was.
    assert list(net.state_dict()) == list(before)
    assert not {"forward"} & {name for part in net.modules() for name in vars(part)}
    assert not [name for name, _ in net.named_buffers()]


@needs("pytorch")
def test_no_size_of_the_example_stays_behind(tmp_path):
    convert(module(), tmp_path / "m.onnx")
    graph = load_graph(tmp_path / "m.onnx")
    outputs = bind_shapes(graph, {"batch": 2, "time": 32})
    assert {name: outputs[name].nbytes for name in graph.outputs} == {
        "all": 32 * 2 * 2 * 4,
        "flat": 32 * 2 * 3 * 4,
        "last": 2 * 6 * 4,
    }


KERAS = """
import keras
keras.utils.set_random_seed(0)
L, wide = keras.layers, keras.initializers.RandomNormal(stddev=0.7)

def plain():
    x = keras.Input((None, 4), name="x")
    y = L.Bidirectional(L.LSTM(5, return_sequences=True, name="lstm"), name="both")(x)
    y = L.GRU(4, return_sequences=True, bias_initializer=wide, name="gru")(y)
    options = {"return_sequences": True, "bias_initializer": wide}
    back = L.GRU(4, reset_after=False, go_backwards=True, **options, name="back")
    y = back(y)
    y = L.SimpleRNN(3, return_sequences=True, return_state=True, name="rnn")(y)
    return keras.Model(x, [L.TimeDistributed(L.Dense(2))(y[0]), y[1]])

def masked():
    x = keras.Input((None,), dtype="int32", name="x")
    y = L.Embedding(7, 6, mask_zero=True, embeddings_initializer=wide)(x)
    y = L.Bidirectional(L.GRU(4, return_sequences=True))(y)
    return keras.Model(x, [y, L.LSTM(3)(y)])

def others():
    x = keras.Input((None, 6, 6, 2), name="x")
    y = L.ConvLSTM2D(3, 3, padding="same", return_sequences=True)(x)
    y = L.TimeDistributed(L.Flatten())(y)
    return keras.Model(x, L.RNN([L.LSTMCell(5, activation="elu"), L.GRUCell(3)])(y))

def frames():
    x = keras.Input((None, 5, 4), name="x")
    return keras.Model(x, L.TimeDistributed(L.LSTM(3))(x))

def masked_frames():
    x = keras.Input((None, 5), dtype="int32", name="x")
    y = L.Embedding(7, 6, mask_zero=True, embeddings_initializer=wide)(x)
    return keras.Model(x, L.TimeDistributed(L.LSTM(3))(y))
"""


@pytest.mark.slow
@pytest.mark.parametrize("route", [TORCH, TENSORFLOW])
@pytest.mark.parametrize("build", ["plain", "masked", "others", "frames", "masked_frames"])
def test_layers_of_keras_take_any_number_of_steps(importable, tmp_path, route, build):
    source = f"{importable('keras_recurrent', KERAS)}:{build}"
    report = convert(source, tmp_path / "m.onnx", route=route)
    assert len(report.checked_at) == 3
    assert report.inputs[0].shape[:2] == ("batch", "x_1")
    assert report.max_rel_diff < 1e-5


@needs("keras")
def test_layers_of_keras_are_operators_with_their_names(importable, tmp_path):
    report = convert(
        f"{importable('keras_operators', KERAS)}:plain", tmp_path / "m.onnx", route="keras-torch"
    )
    graph = load_graph(tmp_path / "m.onnx")
    named = [
        (node.op_type, layer_of(node.proto)) for node in graph.nodes if node.op_type in ("LSTM", "GRU", "RNN")
    ]
    assert named[:3] == [("LSTM", "both"), ("LSTM", "both"), ("GRU", "gru")]
    assert named[-1] == ("RNN", "rnn")
    assert [port.shape for port in report.outputs] == [("batch", "x_1", 2), ("batch", 3)]
    sizes = bind_shapes(graph, {"batch": 1, "x_1": 32})
    assert sizes[graph.outputs[0]].nbytes == 32 * 2 * np.dtype("float32").itemsize
