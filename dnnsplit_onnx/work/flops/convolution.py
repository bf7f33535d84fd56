"""Convolutions in any number of dimensions.

MACs count every tap of the kernel, those over padding too: the usual definition, and what a direct
implementation without edge cases does. A bias is one addition per output element and not a MAC.
"""

from __future__ import annotations

from math import prod

from dnnsplit_onnx.work.flops.elementwise import SIGMOID, activation_operations
from dnnsplit_onnx.work.flops.quantization import quantize
from dnnsplit_onnx.work.flops.registry import MICROSOFT, register
from dnnsplit_onnx.work.flops.view import NodeView, UnknownWork
from dnnsplit_onnx.work.flops.work import Work


def _taps(node: NodeView, weight: int = 1) -> int:
    """Size of one filter: (C / group) x kernel, from a weight of shape (M, C / group, kernel...)."""
    shape = node.input_shape(weight)
    if len(shape) < 3:
        raise UnknownWork
    return prod(shape[1:])


@register("Conv")
@register("NhwcConv", domain=MICROSOFT)
def conv(node: NodeView) -> Work:
    """Conv: output elements x (C / group) x kernel MACs; 1 per output element with a bias.

    Groups, strides, dilations and the position of the channel axis show in the shapes alone.
    """
    n = node.output_size()
    return Work(macs=n * _taps(node), elementwise=n * node.has_input(2))


@register("FusedConv", "NhwcFusedConv", domain=MICROSOFT)
def fused_conv(node: NodeView) -> Work:
    """FusedConv: Conv, 1 per output element if `Z` is added, and the activation."""
    per_result = node.has_input(3) + activation_operations(node.text_attribute("activation", "None"))
    return conv(node) + Work(elementwise=node.output_size() * per_result)


@register("ConvTranspose")
def conv_transpose(node: NodeView) -> Work:
    """ConvTranspose: input elements x (M / group) x kernel MACs; 1 per output element with a bias."""
    return _conv_transpose(node, bias=2)


@register("ConvTransposeWithDynamicPads", domain=MICROSOFT)
def conv_transpose_with_dynamic_pads(node: NodeView) -> Work:
    """ConvTransposeWithDynamicPads: as ConvTranspose."""
    return _conv_transpose(node, bias=3)


def _conv_transpose(node: NodeView, bias: int) -> Work:
    # Each input element is spread over a whole filter; padding crops the result afterwards.
    additions = node.output_size() if node.has_input(bias) else 0
    return Work(macs=node.input_size(0) * _taps(node), elementwise=additions)


@register("ConvInteger")
def conv_integer(node: NodeView) -> Work:
    """ConvInteger: the MACs of Conv; a subtraction per element of x and w whose zero point is given."""
    zero_points = node.input_size(0) * node.has_input(2) + node.input_size(1) * node.has_input(3)
    return Work(macs=node.output_size() * _taps(node), elementwise=zero_points)


@register("QLinearConv")
@register("QLinearConv", domain=MICROSOFT)
def qlinear_conv(node: NodeView) -> Work:
    """QLinearConv: the MACs of Conv; zero points off x and w; bias and requantization per result.

    Requantization is 4: multiply by the scales, round, add the zero point, saturate.
    """
    n = node.output_size()
    zero_points = node.input_size(0) * node.has_input(2) + node.input_size(3) * node.has_input(5)
    return Work(
        macs=n * _taps(node, weight=3),
        elementwise=zero_points + n * (node.has_input(8) + quantize(node, 7)),
    )


@register("DeformConv")
def deform_conv(node: NodeView) -> Work:
    """DeformConv: the MACs of Conv; sampling and the bias are element-wise.

    A sample per input channel, tap and output position is an interpolation between the 2^d nearest
    elements (a multiplication and an addition each; their weights are not counted), times the mask if
    there is one. Each offset is added to its coordinate once.
    """
    n, taps = node.output_size(), _taps(node)
    kernel = node.input_shape(1)[2:]
    batch, in_channels, *_ = node.input_shape(0, 2 + len(kernel))
    positions = node.output_shape(0, 2 + len(kernel))[2:]
    samples = batch * in_channels * prod(kernel) * prod(positions)
    per_sample = 2 * 2 ** len(kernel) + node.has_input(4)
    sampling = samples * per_sample + node.input_size(2)
    return Work(macs=n * taps, elementwise=sampling + n * node.has_input(3))


@register("CausalConvWithState")
@register("CausalConvWithState", domain=MICROSOFT)
def causal_conv_with_state(node: NodeView) -> Work:
    """CausalConvWithState: a depthwise Conv (kernel MACs per element), its bias, and the activation."""
    n = node.input_size(0)
    silu = node.text_attribute("activation", "none").lower() in ("silu", "swish")
    per_result = node.has_input(2) + (SIGMOID + 1 if silu else 0)
    return Work(macs=n * _taps(node), elementwise=n * per_result)
