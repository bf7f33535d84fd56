"""Which node is the first to differ from the framework.

The framework gives its layers' outputs, the ONNX model is run with the last value of each
layer as a further output, and the first layer where the two are apart names the culprit.
Conversion may fuse or move things (a transposed layout, a normalisation folded into the
convolution before it), so layers whose output has no counterpart of equal shape say
nothing and are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from dnnsplit_onnx.converters.adapter import Adapter, Array, Feeds
from dnnsplit_onnx.converters.parity import OnnxRun, difference
from dnnsplit_onnx.graph.layers import layer_of, with_parents
from dnnsplit_onnx.graph.modelfile import open_model


def first_divergence(adapter: Adapter, model: Path, feeds: Feeds, tolerance: float) -> str | None:
    """Names the first node whose value differs from its layer's output, None if unknown.

    Args:
        adapter: The framework's model.
        model: The ONNX file made of it; a helper file is written beside it and removed.
        feeds: The inputs that showed the difference.
        tolerance: Largest relative difference allowed.
    """
    ends = _layer_ends(model)
    if not ends:
        return None
    values = _run_with_values(model, feeds, [node.output[0] for node in ends.values()])
    for layer, expected in adapter.layer_outputs(feeds):
        node = ends.get(layer)
        actual = values.get(node.output[0]) if node else None
        if node is None or actual is None:
            continue
        apart = [difference(expected, other)[1] for other in _layouts(actual, expected.shape)]
        if apart and min(apart) > tolerance:
            return f"node `{node.name}` ({node.op_type}) of layer `{layer}`, by {min(apart):.3g} relative"
    return None


def _layer_ends(model: Path) -> dict[str, onnx.NodeProto]:
    """The last node of each layer, those inside it included, in the file's order."""
    ends: dict[str, onnx.NodeProto] = {}
    for node in open_model(model).proto.graph.node:
        layer = layer_of(node)
        if layer and node.output and node.output[0]:
            ends.update(dict.fromkeys(with_parents(layer), node))
    return ends


def _run_with_values(model: Path, feeds: Feeds, names: list[str]) -> dict[str, Array]:
    """Runs the model with inner values as outputs; its weights stay in its own file."""
    file = open_model(model)
    present = {value.name for value in file.proto.graph.output}
    for name in names:
        if name not in present:
            file.proto.graph.output.append(onnx.ValueInfoProto(name=name))
    helper = model.with_name(model.name + ".inner.onnx")
    try:
        helper.write_bytes(file.proto.SerializeToString())
        return OnnxRun(helper)(feeds, names)
    finally:
        helper.unlink(missing_ok=True)


def _layouts(actual: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """The value as it is and with channels moved first or last, where shapes agree."""
    views = [actual]
    if actual.ndim > 2:
        views += [np.moveaxis(actual, 1, -1), np.moveaxis(actual, -1, 1)]
    yield from (view for view in views if view.shape == shape)
