"""Small networks built from code with seeded random weights: seconds to slice and verify.

Each has what makes cutting hard: a residual sum, a squeeze-excite gate, attention. Their
batch dimension is symbolic (`batch`) where that is what exported models have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dnnsplit_onnx.models.weights import fan_in_uniform, uniform

# Old enough for every onnxruntime in use.
IR_VERSION = 10
OPSET = 17
PRODUCER = "dnnsplit-onnx zoo"


class Builder:
    """Collects nodes and weights; each method adds a layer and returns the value it makes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, values: NDArray[np.generic]) -> str:
        """Adds a weight."""
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def op(self, op_type: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node of one output, `NAME_out`."""
        self.nodes.append(helper.make_node(op_type, list(inputs), [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def conv(self, name: str, value: str, channels: tuple[int, int], kernel: int, **attributes: Any) -> str:
        """A convolution with a bias that keeps height and width, but for strides."""
        source, target = channels
        fan_in = source * kernel * kernel
        shape = (target, source, kernel, kernel)
        weight = fan_in_uniform(f"{self.name}/{name}.w", shape, fan_in, math.sqrt(2))
        bias = uniform(f"{self.name}/{name}.b", (target,), -0.1, 0.1)
        pads = [kernel // 2] * 4
        inputs = (value, self.weight(f"{name}.w", weight), self.weight(f"{name}.b", bias))
        return self.op("Conv", name, *inputs, kernel_shape=[kernel, kernel], pads=pads, **attributes)

    def dense(self, name: str, value: str, sizes: tuple[int, int]) -> str:
        """A product with a matrix on the right, then a bias: any number of leading axes."""
        weight = fan_in_uniform(f"{self.name}/{name}.w", sizes, sizes[0])
        bias = uniform(f"{self.name}/{name}.b", sizes[1:], -0.1, 0.1)
        product = self.op("MatMul", name, value, self.weight(f"{name}.w", weight))
        return self.op("Add", f"{name}_bias", product, self.weight(f"{name}.b", bias))

    def norm(self, name: str, value: str, size: int) -> str:
        """A layer normalisation over the last axis."""
        scale = self.weight(f"{name}.scale", uniform(f"{self.name}/{name}.scale", (size,), 0.75, 1.25))
        bias = self.weight(f"{name}.bias", uniform(f"{self.name}/{name}.bias", (size,), -0.1, 0.1))
        return self.op("LayerNormalization", name, value, scale, bias, axis=-1)

    def model(
        self, value: str, input_shape: Sequence[int | str], output_shape: Sequence[int | str]
    ) -> onnx.ModelProto:
        """The model of one input and one output, `input` and `output`."""
        self.op("Identity", "logits", value)
        self.nodes[-1].output[0] = "output"
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, list(input_shape))],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, list(output_shape))],
            self.weights,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, ir_version=IR_VERSION, opset_imports=opsets, producer_name=PRODUCER)


def residual_cnn() -> onnx.ModelProto:
    """Three residual blocks at falling resolution on 64 x 64 images, ten classes."""
    net = Builder("tiny_residual")
    value = net.op("Relu", "stem_relu", net.conv("stem", "input", (3, 16), 3, strides=[2, 2]))
    source = 16
    for block, target in enumerate((16, 32, 64), 1):
        strides = [1, 1] if source == target else [2, 2]
        name = f"block{block}"
        inner = net.op(
            "Relu", f"{name}_relu1", net.conv(f"{name}_conv1", value, (source, target), 3, strides=strides)
        )
        inner = net.conv(f"{name}_conv2", inner, (target, target), 3)
        if source != target:
            value = net.conv(f"{name}_project", value, (source, target), 1, strides=strides)
        value = net.op("Relu", f"{name}_relu2", net.op("Add", f"{name}_add", inner, value))
        source = target
    value = net.op("Flatten", "flatten", net.op("GlobalAveragePool", "pool", value))
    return net.model(net.dense("classifier", value, (64, 10)), ("batch", 3, 64, 64), ("batch", 10))


def squeeze_excite_cnn() -> onnx.ModelProto:
    """Three squeeze-excite blocks on 64 x 64 images, ten classes."""
    net = Builder("tiny_squeeze_excite")
    value = net.op("Relu", "stem_relu", net.conv("stem", "input", (3, 16), 3, strides=[2, 2]))
    source = 16
    for block, target in enumerate((24, 32, 48), 1):
        name = f"block{block}"
        value = net.op(
            "Relu", f"{name}_relu", net.conv(f"{name}_conv", value, (source, target), 3, strides=[2, 2])
        )
        gate = net.op("GlobalAveragePool", f"{name}_squeeze", value)
        gate = net.op(
            "Relu", f"{name}_reduce_relu", net.conv(f"{name}_reduce", gate, (target, target // 4), 1)
        )
        gate = net.op("Sigmoid", f"{name}_gate", net.conv(f"{name}_expand", gate, (target // 4, target), 1))
        value = net.op("Mul", f"{name}_excite", value, gate)
        source = target
    value = net.op("Flatten", "flatten", net.op("GlobalAveragePool", "pool", value))
    return net.model(net.dense("classifier", value, (48, 10)), ("batch", 3, 64, 64), ("batch", 10))


def transformer() -> onnx.ModelProto:
    """Two pre-norm transformer blocks, 32 tokens of 64 features, four heads."""
    net = Builder("tiny_transformer")
    value = net.dense("embed", "input", (32, 64))
    net.weight("split", np.array([0, 0, 4, 16], dtype=np.int64))
    net.weight("merge", np.array([0, 0, 64], dtype=np.int64))
    net.weight("temperature", np.array(0.25, dtype=np.float32))
    for block in (1, 2):
        name = f"block{block}"
        normed = net.norm(f"{name}_norm1", value, 64)
        value = net.op("Add", f"{name}_add1", value, _attention(net, name, normed))
        inner = net.dense(f"{name}_up", net.norm(f"{name}_norm2", value, 64), (64, 128))
        inner = net.op("Relu", f"{name}_relu", inner)
        value = net.op("Add", f"{name}_add2", value, net.dense(f"{name}_down", inner, (128, 64)))
    pooled = net.op("ReduceMean", "pool", net.norm("norm", value, 64), axes=[1], keepdims=0)
    return net.model(net.dense("classifier", pooled, (64, 10)), ("batch", 32, 32), ("batch", 10))


def _attention(net: Builder, name: str, value: str) -> str:
    """Multi-head self-attention over 64 features."""
    heads = {}
    for part, order in (("query", (0, 2, 1, 3)), ("key", (0, 2, 3, 1)), ("value", (0, 2, 1, 3))):
        dense = net.dense(f"{name}_{part}", value, (64, 64))
        split = net.op("Reshape", f"{name}_{part}_split", dense, "split")
        heads[part] = net.op("Transpose", f"{name}_{part}_heads", split, perm=list(order))
    scores = net.op("MatMul", f"{name}_scores", heads["query"], heads["key"])
    scores = net.op("Mul", f"{name}_scaled", scores, "temperature")
    mixed = net.op(
        "MatMul", f"{name}_mixed", net.op("Softmax", f"{name}_softmax", scores, axis=-1), heads["value"]
    )
    mixed = net.op("Transpose", f"{name}_gathered", mixed, perm=[0, 2, 1, 3])
    return net.dense(f"{name}_out", net.op("Reshape", f"{name}_merged", mixed, "merge"), (64, 64))
