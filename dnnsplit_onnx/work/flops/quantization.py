"""Quantization and the element-wise QLinear operators.

Quantizing an element divides by the scale, rounds, adds the zero point if there is one, and saturates: 4
(3 without). Dequantizing subtracts the zero point, if any, and multiplies: 2 (1). A QLinear operator
dequantizes its operands, computes, and quantizes its result, as its definition says. Work on the scales
and zero points themselves is not counted.
"""

from __future__ import annotations

from math import prod

from dnnsplit_onnx.work.flops.elementwise import SIGMOID
from dnnsplit_onnx.work.flops.pooling import channels, window
from dnnsplit_onnx.work.flops.reduction import SOFTMAX
from dnnsplit_onnx.work.flops.registry import MICROSOFT, Formula, register
from dnnsplit_onnx.work.flops.view import NodeView, broadcast
from dnnsplit_onnx.work.flops.work import Work

DYNAMIC_QUANTIZE = 6  # the minimum and maximum of all elements; divide, round, add, saturate each


def quantize(node: NodeView, zero_point: int) -> int:
    """Operations that quantize one element; `zero_point` is the index of that input."""
    return 3 + node.has_input(zero_point)


def dequantize(node: NodeView, zero_point: int) -> int:
    """Operations that dequantize one element; `zero_point` is the index of that input."""
    return 1 + node.has_input(zero_point)


@register("QuantizeLinear")
@register("QuantizeLinear", domain=MICROSOFT)
def quantize_linear(node: NodeView) -> Work:
    """QuantizeLinear: 4 per element, 3 without a zero point; per tensor, axis or block alike."""
    return Work(elementwise=node.input_size(0) * quantize(node, 2))


@register("DequantizeLinear")
@register("DequantizeLinear", domain=MICROSOFT)
def dequantize_linear(node: NodeView) -> Work:
    """DequantizeLinear: 2 per element, 1 without a zero point."""
    return Work(elementwise=node.input_size(0) * dequantize(node, 2))


@register("DynamicQuantizeLinear")
def dynamic_quantize_linear(node: NodeView) -> Work:
    """DynamicQuantizeLinear: 6 per element: min, max, divide, round, add, saturate."""
    return Work(elementwise=DYNAMIC_QUANTIZE * node.input_size(0))


def _unary(operations: int) -> Formula:
    """X, x_scale, x_zero_point?, y_scale, y_zero_point?: dequantize, compute, quantize."""

    def formula(node: NodeView) -> Work:
        per_element = dequantize(node, 2) + operations + quantize(node, 4)
        return Work(elementwise=per_element * node.input_size(0))

    return formula


register("QLinearSigmoid", domain=MICROSOFT)(_unary(SIGMOID))
register("QLinearLeakyRelu", domain=MICROSOFT)(_unary(2))
register("QLinearSoftmax", domain=MICROSOFT)(_unary(SOFTMAX))


@register("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def qlinear_binary(node: NodeView) -> Work:
    """QLinearAdd, QLinearMul: dequantize each operand at its own size; 1 and quantize per result."""
    a, b = node.input_shape(0), node.input_shape(3)
    operands = prod(a) * dequantize(node, 2) + prod(b) * dequantize(node, 5)
    return Work(elementwise=operands + prod(broadcast(a, b)) * (1 + quantize(node, 7)))


@register("MulInteger", domain=MICROSOFT)
def mul_integer(node: NodeView) -> Work:
    """MulInteger: subtract the zero points that are given, 1 per result."""
    a, b = node.input_shape(0), node.input_shape(2)
    operands = prod(a) * node.has_input(1) + prod(b) * node.has_input(3)
    return Work(elementwise=operands + prod(broadcast(a, b)))


@register("QLinearWhere", domain=MICROSOFT)
def qlinear_where(node: NodeView) -> Work:
    """QLinearWhere: dequantize both operands, choose, quantize: 2, 2 (at their sizes), 5 per result."""
    condition, x, y = node.input_shape(0), node.input_shape(1), node.input_shape(4)
    operands = prod(x) * dequantize(node, 3) + prod(y) * dequantize(node, 6)
    return Work(elementwise=operands + prod(broadcast(condition, x, y)) * (1 + quantize(node, 8)))


@register("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(node: NodeView) -> Work:
    """QLinearConcat: dequantize and quantize every element: 6 (inputs are x, scale, zero point triples)."""
    n = sum(node.input_size(index) for index in range(2, len(node.node.input), 3))
    return Work(elementwise=n * (2 + quantize(node, 1)))


@register("QLinearReduceMean", domain=MICROSOFT)
def qlinear_reduce_mean(node: NodeView) -> Work:
    """QLinearReduceMean: dequantize, add per input element; divide, quantize per result."""
    n_in = node.input_size(0) * (dequantize(node, 2) + 1)
    return Work(elementwise=n_in + node.output_size() * (1 + quantize(node, 4)))


@register("QLinearAveragePool", domain=MICROSOFT)
def qlinear_average_pool(node: NodeView) -> Work:
    """QLinearAveragePool: dequantize the input; per result an addition per tap, divide, quantize."""
    n_in = node.input_size(0) * dequantize(node, 2)
    return Work(elementwise=n_in + node.output_size() * (window(node) + 1 + quantize(node, 4)))


@register("QLinearGlobalAveragePool", domain=MICROSOFT)
def qlinear_global_average_pool(node: NodeView) -> Work:
    """QLinearGlobalAveragePool: dequantize, add per input element; divide, quantize per result."""
    results = channels(node, axis=-1 if node.int_attribute("channels_last", 0) else 1)
    n_in = node.input_size(0) * (dequantize(node, 2) + 1)
    return Work(elementwise=n_in + results * (1 + quantize(node, 4)))


@register("GatherBlockQuantized", domain=MICROSOFT)
def gather_block_quantized(node: NodeView) -> Work:
    """GatherBlockQuantized: dequantize what is gathered: 2 per element, 1 for float8 and float4 data.

    Integer data has a zero point even where none is given: the middle of its range.
    """
    per_element = 1 if node.input_dtype(0) in _SYMMETRIC_FLOATS else 2
    return Work(elementwise=per_element * node.output_size())


# float8e4m3fn, float8e4m3fnuz, float8e5m2, float8e5m2fnuz, float4e2m1
_SYMMETRIC_FLOATS = frozenset({17, 18, 19, 20, 23})
