"""The framework's own layer names, kept on ONNX nodes.

A converted node carries the name of the Keras layer or the path of the PyTorch module
that it came from, in its `metadata_props` under `LAYER_KEY`. So a user can cut by the
names they know: `--at layer:conv3_block1_out`, `--at layer:encoder.layer.5`.

A name is a path: `encoder.layer.5.output.dense` lies in the layer `encoder.layer.5`, and
a Keras model inside a model gives `backbone/conv1`. Each prefix is a layer of its own,
which ends where the last of its nodes ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import onnx

from dnnsplit_onnx.errors import CutError, close_names
from dnnsplit_onnx.graph.graph import Graph

# Other tools ignore keys that they do not know.
LAYER_KEY = "dnnsplit.layer"

_STEP = re.compile(r"[./]")


def layer_of(node: onnx.NodeProto) -> str | None:
    """The layer that a node came from, None if the file does not say."""
    for entry in node.metadata_props:
        if entry.key == LAYER_KEY:
            return str(entry.value)
    return None


def set_layer(node: onnx.NodeProto, layer: str) -> None:
    """Records the layer that a node came from, in place of what was recorded before."""
    for entry in node.metadata_props:
        if entry.key == LAYER_KEY:
            entry.value = layer
            return
    node.metadata_props.add(key=LAYER_KEY, value=layer)


def layer_positions(graph: Graph) -> dict[str, int]:
    """For each layer, the position of the cut right after its last node.

    Layers come in the order in which they end; a layer that holds others, such as
    `encoder.layer.5`, is among them.
    """
    ends: dict[str, int] = {}
    for at, node in enumerate(graph.nodes):
        layer = layer_of(node.proto)
        if layer:
            for name in with_parents(layer):
                ends[name] = at + 1
    return dict(sorted(ends.items(), key=lambda item: item[1]))


def layer_position(graph: Graph, name: str) -> int:
    """The position of the cut right after a layer.

    Args:
        graph: The graph of a converted model.
        name: The layer, as the framework calls it.

    Raises:
        CutError: No node carries that layer's name; the hint lists the nearest names.
    """
    positions = layer_positions(graph)
    if name in positions:
        return positions[name]
    context = f"in {graph.file.path}"
    if not positions:
        raise CutError(
            f"no layer `{name}`: the model carries no layer names",
            context=context,
            hint="models that `convert` makes carry them; or cut at a position, a node or a value",
        )
    near = close_names(name, positions, n=3, cutoff=0.4) or list(positions)[:3]
    raise CutError(
        f"no layer `{name}`",
        context=context,
        hint="layers are named like " + ", ".join(f"`{other}`" for other in near),
    )


def with_parents(layer: str) -> Iterator[str]:
    """The layers that a node of this layer lies in: `a.b.c` in `a`, `a.b` and `a.b.c`."""
    for step in _STEP.finditer(layer):
        if step.start():
            yield layer[: step.start()]
    yield layer
