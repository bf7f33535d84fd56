"""Layer names of a tf2onnx graph, read from scopes.

TensorFlow names an operation by the scopes it was made in, `resnet50_1/conv1_relu_1/Relu`:
model, layer, operation, where Keras adds `_1`, and `_3` at a shared layer's second call.
tf2onnx keeps the names of operators that it takes over and makes up others (`Conv__224`)
where it folds a layer into another. A folded convolution still reads weights that carry
their layer's name, and that only it reads.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import onnx

_COUNTED = re.compile(r"_\d+$")
_WRAPPERS = ("StatefulPartitionedCall", "PartitionedCall")


def known_layers(graph: onnx.GraphProto, model: Any) -> dict[str, str]:
    """The layer of each node by the node's name, from the list of a model's layers.

    Args:
        graph: What tf2onnx made.
        model: The Keras model.
    """
    paths = dict(_paths(model, ""))

    def find(name: str) -> str | None:
        steps = name.split("/")[:-1]
        for step in reversed(steps):
            for candidate in (step, _COUNTED.sub("", step)):
                if candidate in paths:
                    return paths[candidate]
        return None

    return _assign(graph, find)


def scope_layers(graph: onnx.GraphProto) -> dict[str, str]:
    """The layer of each node by the node's name, taken from the scopes alone.

    The scope that all share is the model; the one below it is the layer.
    """
    scopes = [_inner(node.name) for node in graph.node if "/" in node.name]
    outermost = Counter(scope[0] for scope in scopes if scope)
    model = outermost.most_common(1)[0][0] if outermost else ""

    def find(name: str) -> str | None:
        steps = _inner(name)
        if steps and steps[0] == model:
            steps = steps[1:]
        return _COUNTED.sub("", steps[0]) if steps else None

    return _assign(graph, find)


def _assign(graph: onnx.GraphProto, find: Callable[[str], str | None]) -> dict[str, str]:
    weights = {tensor.name for tensor in graph.initializer if tensor.dims}
    readers = Counter(name for node in graph.node for name in node.input)
    found: dict[str, str] = {}
    for node in graph.node:
        own = [name for name in node.input if name in weights and readers[name] == 1]
        for name in (node.name, *own, *node.output):
            layer = find(name)
            if layer:
                found[node.name] = layer
                break
    return found


def _paths(model: Any, outer: str) -> Iterator[tuple[str, str]]:
    """The name of each layer, and its path through models inside models."""
    for layer in model.layers:
        path = f"{outer}/{layer.name}" if outer else layer.name
        yield layer.name, path
        if hasattr(layer, "layers"):
            yield from _paths(layer, path)


def _inner(name: str) -> list[str]:
    """The scopes of an operation without those of function calls and without its own name."""
    return [step for step in name.split("/")[:-1] if not step.startswith(_WRAPPERS)]
