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
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dnnsplit_onnx.errors import InputError

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


def put_in_front(
    proto: onnx.ModelProto,
    value: str,
    size: tuple[int, int] | None = None,
    normalisation: Normalisation | None = None,
    *,
    keeps_name: bool = False,
) -> str:
    """Nodes that make an input of a picture, in place; see above.

    Args:
        proto: The model.
        value: The input that is normalised pixels.
        size: Height and width, where the model leaves them open.
        normalisation: How it wants its pixels.
        keeps_name: Whether the picture takes the input's name, which its pixels lose.

    Returns:
        The name of the picture.

    Raises:
        InputError: The input is no picture's, or its size is open; or the model returns it, so that
            its name cannot go.
    """
    normalisation = normalisation or Normalisation()
    sizes = _bind(proto.graph, value, normalisation.layout, size)
    stem = _unused(proto.graph, NAME)
    if not keeps_name:
        _put_in_front(proto.graph, value, stem, stem, sizes, normalisation)
        return stem
    if any(output.name == value for output in proto.graph.output):
        raise InputError(
            f"the model returns its input `{value}`",
            hint="write a model that reads a picture: dnnsplit-onnx image MODEL -o IMAGE_MODEL",
        )
    pixels = f"{stem}/pixels"
    next(own for own in proto.graph.input if own.name == value).name = pixels
    _rename(proto.graph, value, pixels)
    said = [one for one in proto.graph.value_info if one.name != value]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(said)
    _put_in_front(proto.graph, pixels, value, stem, sizes, normalisation)
    return value


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Has all nodes, and those of bodies, read a value by another name."""
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name == old:
                node.input[at] = new
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _rename(body, old, new)


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
    graph: onnx.GraphProto,
    pixels: str,
    name: str,
    stem: str,
    size: tuple[int, int],
    normalisation: Normalisation,
) -> None:
    """Nodes that make an input of a picture.

    Args:
        graph: The model's.
        pixels: The input.
        name: The picture's name.
        stem: What the names of nodes and weights begin with.
        size: Height and width.
        normalisation: How the model wants its pixels.
    """
    own = next(value for value in graph.input if value.name == pixels)
    dtype = own.type.tensor_type.elem_type
    nodes: list[onnx.NodeProto] = []

    def add(op_type: str, reads: Sequence[str], what: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op_type, reads, [what], name=what, **attributes))
        return what

    def constant(what: str, array: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(array, what))
        return what

    current = add("Cast", [name], f"{stem}/number", to=TensorProto.FLOAT)
    if normalisation.order == "bgr":
        last = constant(f"{stem}/order", np.array([2, 1, 0], np.int64))
        current = add("Gather", [current, last], f"{stem}/bgr", axis=3)
    mean = constant(f"{stem}/mean", np.array(normalisation.mean, np.float32))
    scale = constant(f"{stem}/scale", np.array(normalisation.scale, np.float32))
    current = add("Sub", [current, mean], f"{stem}/centred")
    current = add("Mul", [current, scale], f"{stem}/scaled")
    if dtype != TensorProto.FLOAT:
        current = add("Cast", [current], f"{stem}/cast", to=dtype)
    if normalisation.layout == "nchw":
        add("Transpose", [current], f"{stem}/channels", perm=[0, 3, 1, 2])
    nodes[-1].output[0] = pixels
    inputs = [
        value if value is not own else helper.make_tensor_value_info(name, TensorProto.UINT8, [1, *size, 3])
        for value in graph.input
    ]
    graph.value_info.append(own)
    kept = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes, *kept])
    graph.input.extend(inputs)


def _unused(graph: onnx.GraphProto, name: str) -> str:
    """A name that nothing in the model begins with."""
    taken = {value for node in graph.node for value in (node.name, *node.input, *node.output)}
    taken.update(value.name for value in (*graph.input, *graph.initializer))
    while any(one == name or one.startswith(f"{name}/") for one in taken):
        name += "_"
    return name
