"""Pictures as a model's input: the normalisation becomes nodes in front of the first one.

    x [1, 3, H, W] float -> Conv -> ...
    picture [1, H, W, 3] uint8 -> Cast -> Gather -> Sub -> Mul -> Transpose -> x -> Conv -> ...

So what a cut at 0 sends is bytes, exactly. The nodes are the model's from then on: planned, cut and
proven with all others. `Gather` is there for models that read blue before red, `Transpose` for those
that read channels first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dnnsplit_onnx.errors import InputError, ModelError
from dnnsplit_onnx.files import written_whole
from dnnsplit_onnx.graph.graph import Graph, load_graph

Layout = Literal["nchw", "nhwc"]
Order = Literal["rgb", "bgr"]

#: What the new input is called.
NAME = "picture"
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """How a model wants its pixels: (pixel - mean) * scale, of pixels from 0 to 255.

    Attributes:
        layout: Channels first, or last.
        order: Red first, or blue.
        mean, scale: For each channel in that order.

    Raises:
        InputError: They are not three finite numbers, or one for all.
    """

    layout: Layout = "nchw"
    order: Order = "rgb"
    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1 / 255,)

    def __post_init__(self) -> None:
        for name in ("mean", "scale"):
            numbers = getattr(self, name)
            if len(numbers) not in (1, 3) or not np.isfinite(numbers).all():
                raise InputError(
                    f"`{name}` is {', '.join(map(str, numbers)) or 'nothing'}",
                    hint="give one number, or three: for each channel in the model's order",
                )


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
    normalisation = normalisation or Normalisation()
    old = _input(graph, value)
    proto = onnx.load(str(path), load_external_data=False)
    if output.resolve().parent != path.resolve().parent and any(_outside(proto.graph)):
        raise ModelError(
            f"`{path}` has weights in files beside it", hint=f"write it there: -o {path.parent / output.name}"
        )
    height, width = _bind(proto.graph, old, normalisation.layout, size)
    name = _put_in_front(proto, old, (height, width), normalisation)
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


def _bind(graph: onnx.GraphProto, name: str, layout: Layout, size: tuple[int, int] | None) -> tuple[int, int]:
    """The height and width of an input; where a name stands for them, it does so no more anywhere."""
    own = next(value for value in graph.input if value.name == name)
    kind = own.type.tensor_type
    dims = list(kind.shape.dim)
    channels, places = (1, (2, 3)) if layout == "nchw" else (3, (1, 2))
    if kind.elem_type not in _FLOATS or len(dims) != 4 or dims[channels].dim_value not in (0, 3):
        raise InputError(
            f"input `{name}` is no picture's in the layout {layout}: that is four dimensions of floats, "
            "3 of them channels",
            hint="give its layout: --layout nhwc" if layout == "nchw" else None,
        )
    sizes: list[int] = []
    named: dict[str, int] = {dims[0].dim_param: 1} if dims[0].dim_param else {}
    for at, axis in enumerate(places):
        known, given = dims[axis].dim_value, None if size is None else size[at]
        if known and given not in (None, known):
            raise InputError(f"input `{name}` has {known} in place of {given} {('rows', 'columns')[at]}")
        if not known and given is None:
            raise InputError(
                f"input `{name}` leaves its height or width open", hint="give them: --size HEIGHTxWIDTH"
            )
        sizes.append(known or given or 0)
        if dims[axis].dim_param:
            named[dims[axis].dim_param] = sizes[-1]
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in named:
                dim.dim_value = named[dim.dim_param]
    for axis, number in ((0, 1), (channels, 3), *zip(places, sizes, strict=True)):
        dims[axis].dim_value = number
    return sizes[0], sizes[1]


def _put_in_front(
    proto: onnx.ModelProto, old: str, size: tuple[int, int], normalisation: Normalisation
) -> str:
    """Nodes that make an input of a picture; the name of the picture."""
    graph = proto.graph
    own = next(value for value in graph.input if value.name == old)
    dtype = own.type.tensor_type.elem_type
    name = _unused(graph, NAME)
    number = helper.tensor_dtype_to_np_dtype(dtype).type
    nodes: list[onnx.NodeProto] = []
    current = name

    def add(op_type: str, reads: Sequence[str], what: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op_type, reads, [what], name=what, **attributes))
        return what

    def constant(what: str, array: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(array, what))
        return what

    current = add("Cast", [current], f"{name}/number", to=TensorProto.FLOAT)
    if normalisation.order == "bgr":
        last = constant(f"{name}/order", np.array([2, 1, 0], np.int64))
        current = add("Gather", [current, last], f"{name}/bgr", axis=3)
    mean = constant(f"{name}/mean", np.array(normalisation.mean, np.float32))
    scale = constant(f"{name}/scale", np.array(normalisation.scale, np.float32))
    current = add("Sub", [current, mean], f"{name}/centred")
    current = add("Mul", [current, scale], f"{name}/scaled")
    if number is not np.float32:
        current = add("Cast", [current], f"{name}/cast", to=dtype)
    if normalisation.layout == "nchw":
        current = add("Transpose", [current], f"{name}/channels", perm=[0, 3, 1, 2])
    nodes[-1].output[0] = old
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, [1, *size, 3]) if value.name == old else value
        for value in graph.input
    ]
    graph.value_info.append(own)
    kept = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes, *kept])
    graph.input.extend(inputs)
    return name


def _unused(graph: onnx.GraphProto, name: str) -> str:
    """A name that nothing in the model begins with."""
    taken = {value for node in graph.node for value in (node.name, *node.input, *node.output)}
    taken.update(value.name for value in (*graph.input, *graph.initializer))
    while any(one == name or one.startswith(f"{name}/") for one in taken):
        name += "_"
    return name
