"""A model's file with a picture in place of normalised pixels; see `graph.picturing`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto

from dnnsplit_onnx.errors import InputError, ModelError
from dnnsplit_onnx.files import written_whole
from dnnsplit_onnx.graph.graph import Graph, load_graph
from dnnsplit_onnx.graph.picturing import Normalisation, put_in_front


def with_picture(
    model: str | Path,
    output: str | Path,
    *,
    value: str | None = None,
    size: tuple[int, int] | None = None,
    normalisation: Normalisation | None = None,
    force: bool = False,
) -> str:
    """Writes a model that reads a picture in place of normalised pixels.

    Args:
        model: The ONNX file.
        output: The file to write. Weights in files beside the model stay there, so a model with
            such files is written into their folder.
        value: The input that is normalised pixels; the model's only one by default.
        size: Height and width, where the model leaves them open.
        normalisation: How it wants its pixels.
        force: Whether to replace a file.

    Returns:
        The name of the new input.

    Raises:
        InputError: There is no such input, or it is no picture's, or its size is open.
        ModelError: The model cannot be read, or has weights in files elsewhere.
        OutputError: The file exists, or cannot be written.
    """
    path, output = Path(model), Path(output)
    graph = load_graph(path)
    old = _input(graph, value)
    proto = onnx.load(str(path), load_external_data=False)
    if output.resolve().parent != path.resolve().parent and any(_outside(proto.graph)):
        raise ModelError(
            f"`{path}` has weights in files beside it", hint=f"write it there: -o {path.parent / output.name}"
        )
    name = put_in_front(proto, old, size, normalisation)
    with written_whole(output, force=force) as file:
        file.write(proto.SerializeToString())
    return name


def _input(graph: Graph, value: str | None) -> str:
    if value is None and len(graph.inputs) == 1:
        return next(iter(graph.inputs))
    if value is None or value not in graph.inputs:
        listed = ", ".join(f"`{name}`" for name in graph.inputs)
        which = "which of the model's inputs is a picture is not said"
        what = which if value is None else f"the model has no input `{value}`"
        raise InputError(what, hint=f"name one with --input: {listed}")
    return value


def _outside(graph: onnx.GraphProto) -> Sequence[bool]:
    return [tensor.data_location == TensorProto.EXTERNAL for tensor in graph.initializer]
