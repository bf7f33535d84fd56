"""Normalisations: what the primitive operators of their definitions cost.

For n elements in g groups that share statistics: the mean (n + g), its subtraction (n), the squares
(n), their mean (n + g), adding epsilon (g), the square root (g) and the division (n) make 5n + 4g, and
an affine scale and shift n each.
"""

from __future__ import annotations

from math import prod

from dnnsplit_onnx.work.flops.registry import register
from dnnsplit_onnx.work.flops.view import NodeView, Shape, UnknownWork, axis_of
from dnnsplit_onnx.work.flops.work import Work


def standardize(n: int, groups: int) -> int:
    """Operations that give n elements zero mean and unit variance in each of their groups."""
    return 5 * n + 4 * groups


def rms(n: int, groups: int) -> int:
    """Operations of `x / sqrt(mean(x^2) + epsilon)`: square, mean, add, sqrt, divide."""
    return 3 * n + 3 * groups


@register("BatchNormalization")
def batch_normalization(node: NodeView) -> Work:
    """BatchNormalization: 2 per element at inference, the scale and shift that its constants fold to.

    They are element-wise operations and not MACs. In training 7n + 10c for c channels: the statistics
    of the batch, scale, shift, and two running averages (multiply, multiply, add).
    """
    n = node.input_size(0)
    if not _is_training(node):
        return Work(elementwise=2 * n)
    channels = node.input_size(1)
    return Work(elementwise=standardize(n, channels) + 2 * n + 6 * channels)


def _is_training(node: NodeView) -> bool:
    """An attribute since opset 14, further outputs from opset 7 on, `is_test = 0` before."""
    if node.opset >= 14:
        return bool(node.int_attribute("training_mode", 0))
    if node.opset >= 7:
        return any(node.has_output(index) for index in range(1, len(node.node.output)))
    return not node.int_attribute("is_test", 0)


@register("InstanceNormalization")
def instance_normalization(node: NodeView) -> Work:
    """InstanceNormalization: 7n + 4g, a group being one channel of one batch element."""
    shape = _image(node)
    return Work(elementwise=standardize(prod(shape), shape[0] * shape[1]) + 2 * prod(shape))


@register("GroupNormalization")
def group_normalization(node: NodeView) -> Work:
    """GroupNormalization: 7n + 4g, g = batch x `num_groups`; opset 18 scales per group, same count."""
    shape = _image(node)
    groups = shape[0] * node.positive("num_groups")
    return Work(elementwise=standardize(prod(shape), groups) + 2 * prod(shape))


def _image(node: NodeView) -> Shape:
    shape = node.input_shape(0)
    if len(shape) < 2:
        raise UnknownWork
    return shape


@register("LayerNormalization")
def layer_normalization(node: NodeView) -> Work:
    """LayerNormalization: 5n + 4g, scale n, and n more with a bias; a group per index before `axis`."""
    shape = node.input_shape(0)
    n = prod(shape)
    return Work(elementwise=standardize(n, _rows(node, shape)) + n * (1 + node.has_input(2)))


@register("RMSNormalization", "SimplifiedLayerNormalization")
def rms_normalization(node: NodeView) -> Work:
    """RMSNormalization (onnxruntime: SimplifiedLayerNormalization): 4n + 3g."""
    shape = node.input_shape(0)
    return Work(elementwise=rms(prod(shape), _rows(node, shape)) + prod(shape))


def _rows(node: NodeView, shape: Shape) -> int:
    return prod(shape[: axis_of(shape, node.int_attribute("axis", -1))])


@register("MeanVarianceNormalization")
def mean_variance_normalization(node: NodeView) -> Work:
    """MeanVarianceNormalization: 5n + 4g; a group per index of the axes that are not in `axes`."""
    shape = node.input_shape(0)
    axes = {axis_of(shape, axis) for axis in node.ints_attribute("axes") or (0, 2, 3)}
    groups = prod(dim for axis, dim in enumerate(shape) if axis not in axes)
    return Work(elementwise=standardize(prod(shape), groups))


@register("LpNormalization")
def lp_normalization(node: NodeView) -> Work:
    """LpNormalization: 3n (abs or square, sum, divide), and a square root per lane if p is 2."""
    shape = node.input_shape(0)
    axis = axis_of(shape, node.int_attribute("axis", -1))
    roots = prod(shape[:axis]) * prod(shape[axis + 1 :]) if node.int_attribute("p", 2) == 2 else 0
    return Work(elementwise=3 * prod(shape) + roots)


@register("LRN")
def local_response_normalization(node: NodeView) -> Work:
    """LRN: `size` + 5 per element: square, the window's sum, scale, bias, power, divide.

    The window counts in full at the first and last channels, like the taps of a convolution.
    """
    return Work(elementwise=(node.positive("size") + 5) * node.elements())
