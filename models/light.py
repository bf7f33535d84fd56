"""The nine network topologies that the onnx package itself ships for its backend tests.

They are real networks (AlexNet to VGG-19, opset 9) whose files are a few kilobytes: every
weight is made by a ConstantOfShape node, so it is one number, 0.02, throughout. That is
all that planning needs. Verifying with them proves little, since nearly any mistake leaves
such a network's output as it is; `randomised` gives the same topology weights to verify with.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from dnnsplit_onnx.errors import MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    _Readers = dict[str, tuple[onnx.NodeProto, int]]

_FOLDER = Path("backend", "test", "data", "light")
# The first IR version in which a weight need not also be a model input, and newer than
# opset 9 asks for; every onnxruntime in use reads it.
_IR_VERSION = 8
# What a layer's weights must make up for: a ReLU halves the variance, a softmax saturates.
_GAIN = {"Relu": math.sqrt(2), "Softmax": 0.25}


def light_file(name: str) -> Path:
    """Where the onnx package keeps a `light_*` model.

    Raises:
        MissingExtraError: This build of onnx comes without them.
    """
    spec = find_spec("onnx")  # finds the package without importing it
    roots = list(spec.submodule_search_locations or ()) if spec else []
    for root in roots:
        path = Path(root) / _FOLDER / f"{name}.onnx"
        if path.is_file():
            return path
    raise MissingExtraError(
        f"the installed onnx package does not hold `{name}`",
        hint="pip install --force-reinstall onnx  (some distributions strip its test data)",
    )


def randomised(name: str) -> onnx.ModelProto:
    """A `light_*` topology with seeded random weights in place of the constant ones.

    Args:
        name: A name with `light_` in front.

    Returns:
        The model; its weights are ordinary initializers.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(light_file(name))
    graph = model.graph
    shapes = {tensor.name: tensor for tensor in graph.initializer}
    readers = _readers(graph)
    made = [node for node in graph.node if node.op_type == "ConstantOfShape" and node.input[0] in shapes]
    for node in made:
        shape = tuple(int(d) for d in numpy_helper.to_array(shapes[node.input[0]]))
        weight = _weight(node.output[0], shape, readers)
        graph.initializer.append(numpy_helper.from_array(weight, node.output[0]))
        graph.node.remove(node)
    used = {value for node in graph.node for value in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    inputs = [value for value in graph.input if value.name not in shapes]
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend(kept)
    graph.input.extend(inputs)
    model.ir_version = _IR_VERSION
    model.producer_name = "dnnsplit-onnx zoo"
    return model


def _readers(graph: onnx.GraphProto) -> _Readers:
    """For each value, its first reader and the place where it reads it."""
    found: _Readers = {}
    for node in graph.node:
        for at, value in enumerate(node.input):
            found.setdefault(value, (node, at))
    return found


def _weight(name: str, shape: tuple[int, ...], readers: _Readers) -> NDArray[np.float32]:
    """Random numbers of the size that a weight's role asks for.

    Activations must neither die out nor blow up on their way through a hundred layers, or
    the output would no longer depend on the input.
    """
    from dnnsplit_onnx.models.weights import fan_in_uniform, uniform

    node, at = readers[name]
    while node.op_type == "Unsqueeze":  # a scale or bias on its way to a Mul or Add
        node, at = readers[node.output[0]]
    if node.op_type in ("Conv", "Gemm") and at == 1:
        # (out, in, ...) also for Gemm: transB is 1 in all of these models.
        return fan_in_uniform(name, shape, math.prod(shape[1:]), _GAIN.get(_next(node, readers), 1.0))
    if node.op_type == "BatchNormalization" and at == 1 and _next(node, readers) == "Sum":
        return uniform(name, shape, 0.4, 0.8)  # each residual block adds to the variance
    if node.op_type == "Mul" or (node.op_type == "BatchNormalization" and at in (1, 4)):
        return uniform(name, shape, 0.75, 1.25)  # scales and variances
    return uniform(name, shape, -0.05, 0.05)  # biases and means


def _next(node: onnx.NodeProto, readers: _Readers) -> str:
    """The operator that acts on what a node makes, normalisation passed over; "" at the end."""
    while (reader := readers.get(node.output[0])) is not None:
        node = reader[0]
        if node.op_type not in ("BatchNormalization", "Mul", "Add"):
            return node.op_type
    return ""
