"""Formulas against loops that count while they compute, whose results onnxruntime confirms."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from dnnsplit_onnx.work.flops import TensorType, Work, count_node
from tests.work.flops import machine as loops
from tests.work.flops.counting import Shapes
from tests.work.flops.machine import Array, Machine

runtime = pytest.importorskip("onnxruntime")

OPSET = 23
examples = settings(max_examples=25, deadline=None)
small = st.integers(1, 3)


def tensor(shape: tuple[int, ...]) -> Array:
    """Small numbers, exact in float32."""
    return np.random.default_rng(sum(shape)).integers(-8, 9, shape) / 8


def check(
    op_type: str, operands: list[Array | None], expected: Array, counted: Work, **attributes: Any
) -> None:
    """Runs the node in onnxruntime, compares the result, then the count."""
    given = {f"x{i}": x.astype(np.float32) for i, x in enumerate(operands) if x is not None}
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(operands)]
    while not names[-1]:  # onnxruntime 1.31 crashes on a LayerNormalization that ends in an empty name
        names.pop()
    node = helper.make_node(op_type, names, ["y"], **attributes)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name, x in given.items()]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", values, [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y: npt.NDArray[np.float32] = session.run(None, given)[0]
    np.testing.assert_allclose(expected, y, rtol=1e-4, atol=1e-4)
    types = {name: TensorType(TensorProto.FLOAT, x.shape) for name, x in given.items()}
    types["y"] = TensorType(TensorProto.FLOAT, y.shape)
    assert count_node(node, Shapes(types, opsets={"": OPSET})) == counted


@examples
@given(st.data())
def test_conv(data: st.DataObject) -> None:
    d, group = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    each = st.lists(st.integers(1, 2), min_size=d, max_size=d)
    kernel, strides, dilations, pads = (data.draw(each) for _ in range(4))
    channels, filters, batch = (
        group * data.draw(small),
        group * data.draw(small),
        data.draw(st.integers(1, 2)),
    )
    x = tensor((batch, channels, *[data.draw(st.integers(3, 4)) for _ in range(d)]))
    w = tensor((filters, channels // group, *kernel))
    bias = tensor((filters,)) if data.draw(st.booleans()) else None
    options = {"group": group, "strides": strides, "dilations": dilations, "pads": pads * 2}
    machine = Machine()
    y = loops.conv(machine, x, w, bias, **options)
    check("Conv", [x, w, bias], y, machine.work, **options)


@examples
@given(st.data())
def test_conv_transpose(data: st.DataObject) -> None:
    d, group = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2))
    each = st.lists(st.integers(1, 3), min_size=d, max_size=d)
    x = tensor((1, group * data.draw(small), *data.draw(each)))
    w = tensor((x.shape[1], data.draw(small), *data.draw(each)))
    options = {"group": group, "strides": data.draw(each)}
    machine = Machine()
    y = loops.conv_transpose(machine, x, w, **options)
    check("ConvTranspose", [x, w], y, machine.work, **options)


@examples
@given(st.integers(1, 3), st.booleans(), st.data())
def test_pool(d: int, average: bool, data: st.DataObject) -> None:
    each = st.lists(st.integers(1, 3), min_size=d, max_size=d)
    kernel, strides = data.draw(each), data.draw(each)
    x = tensor((1, 2, *[size + data.draw(st.integers(0, 2)) for size in kernel]))
    machine = Machine()
    y = loops.pool(machine, x, kernel, strides, average=average)
    op_type = "AveragePool" if average else "MaxPool"
    check(op_type, [x], y, machine.work, kernel_shape=kernel, strides=strides)


@examples
@given(st.data())
def test_matmul(data: st.DataObject) -> None:
    m, n, k = (data.draw(small) for _ in range(3))
    batch = data.draw(st.lists(small, max_size=2))
    # Either operand may lack leading batch dimensions, have some of 1, or be a vector.
    a_batch = [
        data.draw(st.sampled_from([1, size])) for size in batch[data.draw(st.integers(0, len(batch))) :]
    ]
    a = (k,) if data.draw(st.booleans()) else (*a_batch, m, k)
    b = (k,) if data.draw(st.booleans()) else (*batch, k, n)
    machine = Machine()
    y = loops.matmul(machine, tensor(a), tensor(b))
    check("MatMul", [tensor(a), tensor(b)], y, machine.work)


@examples
@given(st.data())
def test_einsum(data: st.DataObject) -> None:
    sizes = {letter: data.draw(small) for letter in "abcd"}
    letters = st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True)
    terms = ["".join(data.draw(letters)) for _ in range(2)]
    used = sorted(set("".join(terms)))
    result = "".join(data.draw(st.lists(st.sampled_from(used), max_size=3, unique=True)))
    operands = [tensor(tuple(sizes[letter] for letter in term)) for term in terms]
    machine = Machine()
    y = loops.einsum(machine, terms, result, operands)
    check("Einsum", [*operands], y, machine.work, equation=f"{terms[0]},{terms[1]}->{result}")


@examples
@given(rows=small, columns=st.integers(1, 6))
def test_softmax(rows: int, columns: int) -> None:
    x, machine = tensor((rows, columns)), Machine()
    y = np.array([loops.softmax(machine, row) for row in x])
    check("Softmax", [x], y, machine.work)


@examples
@given(rows=small, columns=st.integers(1, 6), biased=st.booleans())
def test_layer_normalization(rows: int, columns: int, biased: bool) -> None:
    x, scale, machine = tensor((2, rows, columns)), tensor((columns,)), Machine()
    bias = tensor((columns,)) if biased else None
    y = loops.layer_norm(machine, x, scale, bias, 0.125)
    check("LayerNormalization", [x, scale, bias], y, machine.work, epsilon=0.125)


@examples
@given(
    kv_heads=st.integers(1, 2),
    per_kv=st.integers(1, 2),
    queries=small,
    keys=small,
    size=small,
    masked=st.booleans(),
)
def test_attention(kv_heads: int, per_kv: int, queries: int, keys: int, size: int, masked: bool) -> None:
    q = tensor((2, kv_heads * per_kv, queries, size))
    k, v = tensor((2, kv_heads, keys, size)), tensor((2, kv_heads, keys, size))
    mask = tensor((queries, keys)) if masked else None
    machine = Machine()
    y = loops.attention(machine, q, k, v, mask)
    check("Attention", [q, k, v, mask], y, machine.work)


directions = st.sampled_from(["forward", "reverse", "bidirectional"])


def recurrent(op_type: str, gates: int, data: st.DataObject, options: dict[str, Any]) -> None:
    """Draws a layer, runs it cell by cell, and compares the sequence of its states."""
    direction = data.draw(directions)
    count = 2 if direction == "bidirectional" else 1
    steps, batch, inputs, hidden = (data.draw(small) for _ in range(4))
    x = tensor((steps, batch, inputs))
    w, r = tensor((count, gates * hidden, inputs)), tensor((count, gates * hidden, hidden))
    b = tensor((count, 2 * gates * hidden)) if data.draw(st.booleans()) else None
    p = tensor((count, 3 * hidden)) if op_type == "LSTM" and data.draw(st.booleans()) else None
    machine = Machine()
    y = np.zeros((steps, count, batch, hidden))
    for d, n in loops.positions((count, batch)):
        h, c = np.zeros(hidden), np.zeros(hidden)
        backwards = direction == "reverse" or d == 1
        for t in reversed(range(steps)) if backwards else range(steps):
            bias = None if b is None else b[d]
            if op_type == "LSTM":
                peepholes = None if p is None else p[d]
                h, c = loops.lstm_cell(machine, x[t, n], h, c, w[d], r[d], bias, peepholes)
            elif op_type == "GRU":
                before = bool(options["linear_before_reset"])
                h = loops.gru_cell(machine, x[t, n], h, w[d], r[d], bias, linear_before_reset=before)
            else:
                h = loops.rnn_cell(machine, x[t, n], h, w[d], r[d], bias)
            y[t, d, n] = h
    operands = [x, w, r, b] + ([None, None, None, p] if p is not None else [])
    check(op_type, operands, y, machine.work, hidden_size=hidden, direction=direction, **options)


@examples
@given(st.data())
def test_rnn(data: st.DataObject) -> None:
    recurrent("RNN", 1, data, {})


@examples
@given(st.data(), st.integers(0, 1))
def test_gru(data: st.DataObject, linear_before_reset: int) -> None:
    recurrent("GRU", 3, data, {"linear_before_reset": linear_before_reset})


@examples
@given(st.data())
def test_lstm(data: st.DataObject) -> None:
    recurrent("LSTM", 4, data, {})
