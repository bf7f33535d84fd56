from __future__ import annotations

import numpy as np
import pytest

from dnnsplit_onnx.work.flops import Work
from tests.work.flops.counting import MS, Operand, count, work_of

# 10 steps, a batch of 2: 20 cells; input size 8, hidden size 16.
X = (10, 2, 8)


def weights(gates: int, directions: int = 1) -> list[Operand]:
    return [(directions, gates * 16, 8), (directions, gates * 16, 16), (directions, 2 * gates * 16)]


def test_lstm() -> None:
    w, r, b = weights(4)
    # 20 x 4 x 16 x (8 + 16) MACs; 20 x 16 units of 18, and 8 for the biases
    assert work_of("LSTM", [X, w, r]) == Work(30_720, 5760)
    assert work_of("LSTM", [X, w, r, b]) == Work(30_720, 8320)


def test_lstm_options() -> None:
    w, r, b = weights(4)
    peepholes = [X, w, r, b, None, None, None, (1, 48)]
    assert work_of("LSTM", peepholes) == Work(30_720, 320 * (26 + 6))
    assert work_of("LSTM", [X, w, r, b], input_forget=1) == Work(30_720, 320 * (26 - 3))
    assert work_of("LSTM", [X, w, r, b], clip=3.0) == Work(30_720, 320 * (26 + 8))
    activations = ["HardSigmoid", "Relu", "Affine"]
    assert work_of("LSTM", [X, w, r], activations=activations) == Work(30_720, 320 * (12 + 1 + 2 + 4))
    assert count("LSTM", [X, w, r], activations=["Sigmoid", "Tanh", "Mystery"]) is None


def test_bidirectional_lstm() -> None:
    w, r, b = weights(4, directions=2)
    assert work_of("LSTM", [X, w, r, b], direction="bidirectional") == Work(61_440, 16_640)
    activations = ["Sigmoid", "Tanh", "Tanh", "Relu", "Tanh", "Tanh"]  # the second direction saves 3 x 3
    bidirectional = work_of("LSTM", [X, w, r, b], direction="bidirectional", activations=activations)
    assert bidirectional == Work(61_440, 16_640 - 320 * 9)


def test_sequence_lengths_count_if_they_are_constant() -> None:
    w, r, b = weights(4)
    assert work_of("LSTM", [X, w, r, b, np.array([10, 5], np.int32)]) == Work(23_040, 6240)
    assert work_of("LSTM", [X, w, r, b, (2,)]) == Work(30_720, 8320)  # the most they can be


def test_batch_first() -> None:
    w, r, _ = weights(4)
    assert work_of("LSTM", [(2, 10, 8), w, r], layout=1) == Work(30_720, 5760)


def test_gru() -> None:
    w, r, b = weights(3)
    # 20 x 3 x 16 x 24 MACs; 320 units of 14, and 6 for the biases
    assert work_of("GRU", [X, w, r]) == Work(23_040, 4480)
    assert work_of("GRU", [X, w, r, b]) == Work(23_040, 6400)
    assert work_of("GRU", [X, w, r, b], linear_before_reset=1) == Work(23_040, 6720)
    assert work_of("GRU", [X, w, r, b], clip=3.0) == Work(23_040, 6400 + 320 * 6)


def test_rnn() -> None:
    w, r, b = weights(1)
    assert work_of("RNN", [X, w, r]) == Work(7680, 320)
    assert work_of("RNN", [X, w, r, b]) == Work(7680, 960)
    assert work_of("RNN", [X, w, r, b], activations=["LeakyRelu"]) == Work(7680, 1280)
    assert work_of("RNN", [X, w, r, b], clip=3.0) == Work(7680, 960 + 320 * 2)


ACTIVATIONS = {
    "Relu": 1, "Tanh": 1, "Sigmoid": 4, "Affine": 2, "LeakyRelu": 2, "ThresholdedRelu": 1, "ScaledTanh": 3,
    "HardSigmoid": 4, "Elu": 4, "Softsign": 3, "Softplus": 3,
}  # fmt: skip


@pytest.mark.parametrize(("activation", "operations"), ACTIVATIONS.items())
def test_every_activation(activation: str, operations: int) -> None:
    w, r, _ = weights(1)
    assert work_of("RNN", [X, w, r], activations=[activation]) == Work(7680, 320 * operations)
    # Names are compared without case, as in onnxruntime.
    assert work_of("RNN", [X, w, r], activations=[activation.lower()]) == Work(7680, 320 * operations)


def test_dynamic_quantize_lstm() -> None:
    # Weights are transposed: (directions, input, 4 x hidden).
    inputs = [X, (1, 8, 64), (1, 16, 64), (1, 128)]
    # 20 cells more: quantize 24 numbers in 6, scale two products of 64
    assert work_of("DynamicQuantizeLSTM", inputs, domain=MS) == Work(30_720, 8320 + 20 * (144 + 128))


@pytest.mark.parametrize("op_type", ["LSTM", "GRU", "RNN"])
def test_unknown_shapes(op_type: str) -> None:
    assert count(op_type, ["?", (1, 64, 8), (1, 64, 16)]) is None
    assert count(op_type, [X, (1, 64, 8), "?"]) is None
    assert count(op_type, [X, (3, 64, 8), (3, 64, 16)]) is None  # three directions
