"""Rules of operators whose windows slide over images: axis 2 is height, axis 3 is width."""

from __future__ import annotations

from dnnsplit_onnx.work.tiling.rows import Growth, Motion, Window
from dnnsplit_onnx.work.tiling.rules import MICROSOFT, Rule, add_rule
from dnnsplit_onnx.work.tiling.view import RowView

# Neighbours that an interpolated row reads on either side of the one that it lies at.
_HALOS = {"nearest": 1, "linear": 1, "cubic": 2}
# Coordinates that do not depend on how many rows there are.
_LOCAL_WAYS = ("half_pixel", "asymmetric", "pytorch_half_pixel")


def window_of(node: RowView, axis: int, kernel: tuple[int, ...]) -> Window | None:
    """The window of a convolution or a pool along one axis of its image.

    Args:
        node: The node, with the attributes `strides`, `dilations`, `pads`, `auto_pad`.
        axis: Axis 2 or beyond.
        kernel: Its size in each spatial dimension.

    Returns:
        None if the node is not one that shapes prove something of.
    """
    at, spatial = axis - 2, len(kernel)
    if not 0 <= at < spatial:
        return None
    stride = (node.ints_attribute("strides") or (1,) * spatial)[at]
    dilation = (node.ints_attribute("dilations") or (1,) * spatial)[at]
    extent = (kernel[at] - 1) * dilation + 1
    mode = node.text_attribute("auto_pad", "NOTSET")
    if mode == "NOTSET":
        pads = node.ints_attribute("pads") or (0,) * (2 * spatial)
        return Window(stride, extent, pads[at], pads[spatial + at])
    if mode == "VALID":
        return Window(stride, extent)
    dims = node.dims(0)
    height = None if dims is None else dims[axis]
    # Runtimes disagree about what dilation does to the padding that they choose.
    if mode not in ("SAME_UPPER", "SAME_LOWER") or not isinstance(height, int) or dilation > 1:
        return None
    total = max((-(-height // stride) - 1) * stride + extent - height, 0)
    less, more = total // 2, total - total // 2
    return Window(stride, extent, *((less, more) if mode == "SAME_UPPER" else (more, less)))


def spatial_pads(node: RowView, kernel: tuple[int, ...]) -> tuple[int, ...] | None:
    """The padding of all spatial dimensions as the attribute `pads` would say it."""
    windows = [window_of(node, 2 + at, kernel) for at in range(len(kernel))]
    known = [window for window in windows if window is not None]
    if len(known) < len(windows):
        return None
    return (*(window.before for window in known), *(window.after for window in known))


def kernel_of(node: RowView) -> tuple[int, ...] | None:
    """The kernel of a convolution or a pool, None if it is not known."""
    stated = node.ints_attribute("kernel_shape")
    if stated:
        return stated
    weight = node.dims(_WEIGHT.get(node.node.op_type, 1))
    numbers = tuple(dim for dim in (weight or ())[2:] if isinstance(dim, int))
    return numbers if weight is not None and numbers and len(numbers) == len(weight) - 2 else None


# Input that is the weight, where it is not input 1.
_WEIGHT = {"QLinearConv": 3}


def _sliding(node: RowView, axis: int) -> Motion | None:
    kernel = kernel_of(node)
    if kernel is None or spatial_pads(node, kernel) is None:
        return None
    return window_of(node, axis, kernel)


def _image(node: RowView, index: int, axis: int) -> int | None:
    """Input 0 is an image, and so is the result."""
    dims = node.dims(0)
    return axis if index == 0 and dims is not None and axis >= 2 else None


def _image_alone(node: RowView, index: int, axis: int) -> int | None:
    """As `_image`, for pools: the places of maxima are places in the whole."""
    return None if node.has_output(1) else _image(node, index, axis)


def _seed(node: RowView, dimension: int) -> int | None:
    dims = node.dims(0)
    return 2 + dimension if dims is not None and len(dims) > 2 + dimension else None


def _padded(node: RowView, axis: int) -> Motion | None:
    dims = node.dims(0)
    pads = node.ints_attribute("pads") or node.ints_attribute("paddings") or node.numbers(1)
    if dims is None or not pads:
        return None
    axes = node.numbers(3) if node.has_input(3) else tuple(range(len(dims)))
    if axes is None or len(pads) != 2 * len(axes):
        return None
    where = [at for at, a in enumerate(axes) if a % len(dims) == axis]
    before, after = (pads[where[0]], pads[len(axes) + where[0]]) if where else (0, 0)
    if node.text_attribute("mode", "constant") != "constant" and (before or after):
        return None
    return Window(before=before, after=after)


def _any_axis(node: RowView, index: int, axis: int) -> int | None:  # noqa: ARG001
    return axis if index == 0 else None


def _deeper(node: RowView, axis: int) -> Motion | None:  # noqa: ARG001
    block = node.int_attribute("blocksize", 0)
    if block < 1:
        return None
    return Growth(block) if node.node.op_type == "DepthToSpace" else Window(stride=block, extent=block)


def _resized(node: RowView, axis: int) -> Motion | None:
    """Whole factors, and coordinates that do not depend on how many rows there are."""
    dims, result = node.dims(0), node.result_dims()
    mode = node.text_attribute("mode", "nearest")
    if dims is None or result is None or len(dims) != len(result) or mode not in _HALOS:
        return None
    old, new = dims[axis], result[axis]
    if not isinstance(old, int) or not isinstance(new, int) or new % old:
        return None
    if node.node.op_type == "Upsample":
        return Growth(new // old, _HALOS[mode])
    return Growth(new // old, _HALOS[mode]) if _is_local(node, axis, len(dims), new // old) else None


def _is_local(node: RowView, axis: int, rank: int, factor: int) -> bool:
    """Whether a Resize reads each row's surroundings alone, by constants that are known."""
    way = node.text_attribute("coordinate_transformation_mode", "half_pixel")
    policy = node.text_attribute("keep_aspect_ratio_policy", "stretch")
    if way not in _LOCAL_WAYS or policy != "stretch" or node.opset < 11:
        return False
    if node.int_attribute("exclude_outside", 0):
        return False
    axes = tuple(a % rank for a in node.ints_attribute("axes")) or tuple(range(rank))
    scales = node.constant(2)
    if scales is None or not scales.size:
        return node.numbers(3) is not None
    return axis not in axes or float(scales.reshape(-1)[axes.index(axis)]) == factor


add_rule(Rule(_image, _sliding, _seed), "Conv", "ConvInteger", "QLinearConv")
add_rule(Rule(_image_alone, _sliding, _seed), "MaxPool", "AveragePool", "LpPool")
for _op in ("QLinearConv", "QLinearAveragePool"):
    add_rule(Rule(_image, _sliding, _seed), _op, domain=MICROSOFT)
add_rule(Rule(_image, _deeper, _seed), "DepthToSpace", "SpaceToDepth")
add_rule(Rule(_image, _resized, _seed), "Resize", "Upsample")
add_rule(Rule(_any_axis, _padded), "Pad")
