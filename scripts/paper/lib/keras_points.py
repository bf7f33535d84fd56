"""Cuts of a Keras model between its layers, priced both ways.

The published DNNSplit lists a model's layers in Keras's own order and prices the cut before
layer `l` by the input of that one layer (`AD_l`). What must travel is every value made
before `l` and used at `l` or after, each once: the *live* elements. Inside a residual or a
squeeze-and-excitation block the two differ, which is where the paper's tables come from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dnnsplit_onnx.converters.keras_model import as_functional
from dnnsplit_onnx.errors import InputError


@dataclass(frozen=True, slots=True)
class LayerCut:
    """The cut right before a layer.

    Attributes:
        layer: The layer's index in the model, from 0.
        name: Its name.
        live: Elements that must travel: made before it (the model's inputs included), and
            used by it or after it. For one sample.
        layer_input: Elements of its own inputs, as the paper prices the cut.
    """

    layer: int
    name: str
    live: int
    layer_input: int


def keras_cuts(model: Any) -> tuple[LayerCut, ...]:
    """The cut before each layer of a model, in the model's own order.

    Args:
        model: A Keras model with a graph of layers, each of which runs once.

    Raises:
        InputError: The model has no such graph, or a layer runs twice.
    """
    operations = as_functional(model).operations
    index = {id(operation): at for at, operation in enumerate(operations)}
    size, made, last = {}, {}, {}
    inputs = [0] * len(operations)
    for at, operation in enumerate(operations):
        node = _only_node(operation, index)
        for tensor in node.output_tensors:
            size[id(tensor)] = _elements(tensor)
            # An InputLayer computes nothing: what it names is there before it.
            made[id(tensor)] = -1 if node.is_input else at
            if node.is_input:
                inputs[at] += _elements(tensor)
                last[id(tensor)] = at
        for tensor in [] if node.is_input else node.input_tensors:
            inputs[at] += _elements(tensor)
            last[id(tensor)] = at
    return tuple(
        LayerCut(at, operation.name, _live(at, size, made, last), inputs[at])
        for at, operation in enumerate(operations)
    )


def _only_node(operation: Any, index: dict[int, int]) -> Any:
    """The one call of an operation within the model."""
    nodes = [
        node
        for node in operation._inbound_nodes
        if node.is_input or all(id(t._keras_history.operation) in index for t in node.input_tensors)
    ]
    if len(nodes) != 1:
        raise InputError(
            f"layer `{operation.name}` runs {len(nodes)} times",
            hint="a layer that runs more than once has no single place in the list of layers",
        )
    return nodes[0]


def _live(at: int, size: dict[int, int], made: dict[int, int], last: dict[int, int]) -> int:
    return sum(elements for value, elements in size.items() if made[value] < at <= last.get(value, -1))


def _elements(tensor: Any) -> int:
    """Elements for one sample: the batch dimension counts once."""
    return math.prod(int(dim) for dim in tensor.shape[1:] if dim is not None)
