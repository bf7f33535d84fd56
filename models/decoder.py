"""A small decoder with its caches as inputs and outputs, built from code: generation in miniature.

Its caches are named as exporters name them, `past_key_values.0.key` and `present.0.key`, so
that they are recognised as states.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from dnnsplit_onnx.models.small import IR_VERSION, OPSET, PRODUCER, Builder
from dnnsplit_onnx.models.weights import uniform

_VOCABULARY, _WIDTH, _LAYERS, _HEADS, _LONGEST = 64, 64, 3, 4, 256
_HEAD = _WIDTH // _HEADS


def decoder() -> onnx.ModelProto:
    """Three causal transformer blocks over 64 tokens, four heads, up to 256 positions."""
    net = Builder("tiny_decoder")
    _constants(net)
    rows, mask = _positions(net)
    words = net.weight("words", uniform("tiny_decoder/words", (_VOCABULARY, _WIDTH), -1, 1))
    places = net.weight("places", uniform("tiny_decoder/places", (_LONGEST, _WIDTH), -0.5, 0.5))
    embedded = net.op("Gather", "word_embedding", words, "input_ids")
    value = net.op("Add", "embedding", embedded, net.op("Gather", "place_embedding", places, rows))
    for layer in range(_LAYERS):
        name = f"layer{layer}"
        mixed = _attention(net, layer, net.norm(f"{name}_norm1", value, _WIDTH), mask)
        value = net.op("Add", f"{name}_add1", value, mixed)
        inner = net.dense(f"{name}_up", net.norm(f"{name}_norm2", value, _WIDTH), (_WIDTH, 2 * _WIDTH))
        inner = net.dense(f"{name}_down", net.op("Relu", f"{name}_relu", inner), (2 * _WIDTH, _WIDTH))
        value = net.op("Add", f"{name}_add2", value, inner)
    logits = net.dense("head", net.norm("norm", value, _WIDTH), (_WIDTH, _VOCABULARY))
    net.op("Identity", "logits", logits)
    net.nodes[-1].output[0] = "logits"
    return _model(net)


def _constants(net: Builder) -> None:
    net.weight("zero", np.array(0, dtype=np.int64))
    net.weight("one", np.array(1, dtype=np.int64))
    net.weight("two", np.array(2, dtype=np.int64))
    net.weight("last", np.array([1], dtype=np.int64))
    net.weight("seen", np.array(0, dtype=np.float32))
    net.weight("unseen", np.array(-1e9, dtype=np.float32))
    net.weight("split", np.array([0, 0, _HEADS, _HEAD], dtype=np.int64))
    net.weight("merge", np.array([0, 0, _WIDTH], dtype=np.int64))
    net.weight("temperature", np.array(_HEAD**-0.5, dtype=np.float32))


def _positions(net: Builder) -> tuple[str, str]:
    """The places of the new tokens, and what each may not look at."""
    past = net.op("Gather", "past", net.op("Shape", "past_shape", "past_key_values.0.key"), "two")
    new = net.op("Gather", "new", net.op("Shape", "new_shape", "input_ids"), "one")
    total = net.op("Add", "total", past, new)
    rows = net.op("Range", "rows", past, total, "one")
    columns = net.op("Range", "columns", "zero", total, "one")
    sees = net.op("GreaterOrEqual", "sees", net.op("Unsqueeze", "row", rows, "last"), columns)
    return rows, net.op("Where", "mask", sees, "seen", "unseen")


def _attention(net: Builder, layer: int, value: str, mask: str) -> str:
    """Causal attention of the new tokens to the old ones, which lie in the caches, and to themselves."""
    name = f"layer{layer}"
    heads = {}
    for part in ("query", "key", "value"):
        dense = net.dense(f"{name}_{part}", value, (_WIDTH, _WIDTH))
        split = net.op("Reshape", f"{name}_{part}_split", dense, "split")
        heads[part] = net.op("Transpose", f"{name}_{part}_heads", split, perm=[0, 2, 1, 3])
    for part in ("key", "value"):
        past = f"past_key_values.{layer}.{part}"
        net.op("Concat", f"{name}_{part}_cache", past, heads[part], axis=2)
        net.nodes[-1].output[0] = heads[part] = f"present.{layer}.{part}"
    turned = net.op("Transpose", f"{name}_key_turned", heads["key"], perm=[0, 1, 3, 2])
    scores = net.op("MatMul", f"{name}_scores", heads["query"], turned)
    scores = net.op("Add", f"{name}_masked", net.op("Mul", f"{name}_scaled", scores, "temperature"), mask)
    softmax = net.op("Softmax", f"{name}_softmax", scores, axis=-1)
    mixed = net.op("MatMul", f"{name}_mixed", softmax, heads["value"])
    mixed = net.op("Transpose", f"{name}_gathered", mixed, perm=[0, 2, 1, 3])
    merged = net.op("Reshape", f"{name}_merged", mixed, "merge")
    return net.dense(f"{name}_out", merged, (_WIDTH, _WIDTH))


def _model(net: Builder) -> onnx.ModelProto:
    tensor = helper.make_tensor_value_info
    inputs = [tensor("input_ids", TensorProto.INT64, ["batch", "sequence"])]
    outputs = [tensor("logits", TensorProto.FLOAT, ["batch", "sequence", _VOCABULARY])]
    for layer in range(_LAYERS):
        for part in ("key", "value"):
            old: list[int | str] = ["batch", _HEADS, "past_sequence", _HEAD]
            inputs.append(tensor(f"past_key_values.{layer}.{part}", TensorProto.FLOAT, old))
            grown: list[int | str] = ["batch", _HEADS, "total_sequence", _HEAD]
            outputs.append(tensor(f"present.{layer}.{part}", TensorProto.FLOAT, grown))
    graph = helper.make_graph(net.nodes, net.name, inputs, outputs, net.weights)
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, ir_version=IR_VERSION, opset_imports=opsets, producer_name=PRODUCER)
