"""Keras Applications with seeded random weights.

`weights=None` gives a network that computes nothing of note: without trained statistics
its activations die out or blow up, and a softmax over them is 1/1000 for any image. So
weights get values of the size their role asks for, as in `light`, and one image is sent
through: each batch normalisation is scaled until its output spreads as its weights say,
and the last layer until the logits spread like a trained network's. Scales are powers of
two: a last bit that differs between machines does not change them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dnnsplit_onnx.models.weights import fan_in_uniform, uniform

# Standard deviation of the logits over the classes: enough for unequal probabilities, too
# little for a softmax that is 0 and 1.
_SPREAD = 1.5


def application(name: str) -> Any:
    """A model of `keras.applications`, on whichever backend Keras runs.

    Args:
        name: The function's name: `ResNet50`.

    Returns:
        The `keras.Model`, for images of its usual size, with its 1000-way softmax.
    """
    import keras

    # Layer names count up over all models made so far; weights are seeded by them.
    keras.backend.clear_session()
    build = getattr(keras.applications, name)
    # MobileNetV3 alone takes images of any size unless told.
    model = (
        build(weights=None, input_shape=(224, 224, 3))
        if "V3" in name and "Mobile" in name
        else build(weights=None)
    )
    feeds_add = {
        operation.name
        for layer in model.layers
        if type(layer).__name__ == "Add"
        for tensor in layer._inbound_nodes[0].input_tensors
        for operation in [tensor._keras_history.operation]
    }
    for layer in model.layers:
        depthwise = type(layer).__name__ == "DepthwiseConv2D"
        for variable in layer.variables:
            value = _weight(variable.path, tuple(variable.shape), depthwise, layer.name in feeds_add)
            if value is not None:
                variable.assign(value)
    _scale(model)
    return model


def _pixel_range(model: Any) -> float:
    """The size of values that a model takes: it may scale pixels from 0 to 255 itself."""
    first = {type(layer).__name__ for layer in model.layers[1:3]}
    return 255.0 if first & {"Rescaling", "Normalization"} else 1.0


def lstm(steps: int = 32, features: int = 16, units: int = 64, classes: int = 10) -> Any:
    """A two-layer LSTM classifier over a sequence of feature vectors."""
    import keras

    keras.backend.clear_session()
    model = keras.Sequential(
        [
            keras.Input((steps, features), name="sequence"),
            keras.layers.LSTM(units, return_sequences=True, name="lstm1"),
            keras.layers.LSTM(units, name="lstm2"),
            keras.layers.Dense(classes, name="logits"),
        ],
        name="keras_lstm",
    )
    for variable in model.variables:
        if variable.path.endswith("kernel"):
            bound = 1.0 / math.sqrt(units)
            variable.assign(uniform(variable.path, tuple(variable.shape), -bound, bound))
    return model


def _weight(path: str, shape: tuple[int, ...], depthwise: bool, in_branch: bool) -> Any:
    """Seeded numbers for a weight by its role, None to leave it as it is."""
    role = path.rsplit("/", 1)[-1]
    if role == "depthwise_kernel" or (role == "kernel" and depthwise):
        return fan_in_uniform(path, shape, shape[0] * shape[1], math.sqrt(2))
    if role in ("kernel", "pointwise_kernel"):
        # Each residual block adds to the variance: a branch counts for less.
        return fan_in_uniform(path, shape, math.prod(shape[:-1]), 0.5 if in_branch else math.sqrt(2))
    if role == "gamma":
        return uniform(path, shape, 0.4, 0.8) if in_branch else uniform(path, shape, 0.75, 1.25)
    if role == "moving_variance":
        return uniform(path, shape, 0.75, 1.25)
    if role in ("bias", "beta", "moving_mean"):
        return uniform(path, shape, -0.05, 0.05)
    return None


def _scale(model: Any) -> None:
    """Scales batch normalisations and the last layer by what one image makes of them."""
    import keras

    head = next(layer for layer in reversed(model.layers) if hasattr(layer, "kernel"))

    def scaled(operation: Any) -> Any:
        if type(operation).__name__ == "BatchNormalization" and operation.scale:
            return lambda x, **_: _spread_to(
                operation, x, operation.gamma, float(np.mean(_numpy(operation.gamma)))
            )
        if operation is head:
            return lambda x, **_: _spread_to(operation, x, operation.kernel, _SPREAD)
        return operation

    softmax = getattr(head, "activation", None)
    shape = (1, *model.inputs[0].shape[1:])
    image = uniform("image", shape, -1.0, 1.0) * np.float32(_pixel_range(model))
    head.activation = keras.activations.linear
    try:
        model._run_through_graph([keras.ops.convert_to_tensor(image)], operation_fn=scaled)
    finally:
        head.activation = softmax


def _spread_to(layer: Any, x: Any, weight: Any, wanted: float) -> Any:
    """The layer's output after its weight was scaled so that the output spreads as wanted."""
    spread = float(np.std(_numpy(layer(x))))
    if spread > 0.0 and math.isfinite(spread):
        weight.assign(weight * 2.0 ** round(math.log2(wanted / spread)))
    return layer(x)


def _numpy(value: Any) -> Any:
    import keras

    return keras.ops.convert_to_numpy(value)
