"""Matrix products.

MACs are M x N x K per matrix of the broadcast batch. Adding a bias, and scaling by an alpha or beta that
is not 1, is element-wise.
"""

from __future__ import annotations

from math import prod

from dnnsplit_onnx.work.flops.elementwise import GELU_TANH, activation_operations
from dnnsplit_onnx.work.flops.quantization import DYNAMIC_QUANTIZE, quantize
from dnnsplit_onnx.work.flops.registry import MICROSOFT, register
from dnnsplit_onnx.work.flops.view import NodeView, Shape, UnknownWork, broadcast, exact_division
from dnnsplit_onnx.work.flops.work import Work


def product(a: Shape, b: Shape) -> tuple[int, int]:
    """MACs and result elements of `numpy.matmul`: batches broadcast, a 1-D operand is a vector.

    Raises:
        UnknownWork: The shapes do not fit.
    """
    if not a or not b:
        raise UnknownWork
    a = a if len(a) > 1 else (1, *a)
    b = b if len(b) > 1 else (*b, 1)
    if a[-1] != b[-2]:
        raise UnknownWork
    results = prod(broadcast(a[:-2], b[:-2])) * a[-2] * b[-1]
    return results * a[-1], results


@register("MatMul")
def matmul(node: NodeView) -> Work:
    """MatMul: result elements x K MACs."""
    return Work(macs=product(node.input_shape(0), node.input_shape(1))[0])


@register("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def fused_matmul(node: NodeView) -> Work:
    """FusedMatMul: MatMul of possibly transposed operands; 1 per result if alpha is not 1."""
    macs, results = _fused_product(node)
    return Work(macs=macs, elementwise=results * _scales(node, "alpha"))


@register("FusedMatMulActivation", domain=MICROSOFT)
def fused_matmul_activation(node: NodeView) -> Work:
    """FusedMatMulActivation: FusedMatMul and the activation."""
    macs, results = _fused_product(node)
    per_result = _scales(node, "alpha") + activation_operations(node.text_attribute("activation", "None"))
    return Work(macs=macs, elementwise=results * per_result)


def _fused_product(node: NodeView) -> tuple[int, int]:
    return product(_transposed(node, 0, "A"), _transposed(node, 1, "B"))


def _transposed(node: NodeView, index: int, operand: str) -> Shape:
    """The shape of an operand after the transpositions that the attributes ask for."""
    shape = node.input_shape(index)
    if node.int_attribute(f"transBatch{operand}", 0) and len(shape) > 2:
        # The first dimension belongs to the matrix, the next ones to the batch.
        shape = (*shape[1:-1], shape[0], shape[-1])
    if node.int_attribute(f"trans{operand}", 0) and len(shape) > 1:
        shape = (*shape[:-2], shape[-1], shape[-2])
    return shape


def _scales(node: NodeView, name: str) -> bool:
    return node.float_attribute(name, 1.0) != 1.0


@register("Gemm")
def gemm(node: NodeView) -> Work:
    """Gemm: M x N x K MACs; per result 1 for C and 1 for an alpha, per element of C 1 for a beta."""
    return _gemm(node, b=1, c=2)


@register("FusedGemm", domain=MICROSOFT)
def fused_gemm(node: NodeView) -> Work:
    """FusedGemm: Gemm and the activation."""
    per_result = activation_operations(node.text_attribute("activation", "None"))
    return _gemm(node, b=1, c=2) + Work(elementwise=_gemm_product(node, 1)[1] * per_result)


@register("GemmFloat8", domain=MICROSOFT)
def gemm_float8(node: NodeView) -> Work:
    """GemmFloat8: Gemm and the activation; 1 per operand or result element whose scale is given."""
    results = _gemm_product(node, 1)[1]
    scaling = node.input_size(0) * node.has_input(3) + node.input_size(1) * node.has_input(4)
    per_result = node.has_input(5) + activation_operations(node.text_attribute("activation", "None"))
    return _gemm(node, b=1, c=2) + Work(elementwise=scaling + results * per_result)


@register("QGemm", domain=MICROSOFT)
def qgemm(node: NodeView) -> Work:
    """QGemm: Gemm over A and B less their zero points; 1 to scale a result, 4 to quantize it."""
    macs, results = _gemm_product(node, 3)
    zero_points = node.input_size(0) * node.has_input(2) + node.input_size(3) * node.has_input(5)
    scaling = quantize(node, 8) if node.has_input(7) else 1
    return Work(macs=macs, elementwise=zero_points + results * (node.has_input(6) + scaling))


def _gemm_product(node: NodeView, b: int) -> tuple[int, int]:
    x, y = _transposed(node, 0, "A"), _transposed(node, b, "B")
    if len(x) != 2 or len(y) != 2:
        raise UnknownWork
    return product(x, y)


def _gemm(node: NodeView, b: int, c: int) -> Work:
    macs, results = _gemm_product(node, b)
    elementwise = results * _scales(node, "alpha")
    if node.has_input(c):
        elementwise += results
        if _scales(node, "beta"):
            elementwise += node.input_size(c)
    return Work(macs=macs, elementwise=elementwise)


@register("GemmFastGelu", domain=MICROSOFT)
def gemm_fast_gelu(node: NodeView) -> Work:
    """GemmFastGelu: MatMul, its bias, and the tanh form of Gelu (8)."""
    macs, results = product(node.input_shape(0), node.input_shape(1))
    return Work(macs=macs, elementwise=results * (node.has_input(2) + GELU_TANH))


@register("MatMulInteger")
@register("MatMulInteger16", domain=MICROSOFT)
def matmul_integer(node: NodeView) -> Work:
    """MatMulInteger: the MACs of MatMul; a subtraction per operand element whose zero point is given."""
    macs, _ = product(node.input_shape(0), node.input_shape(1))
    return Work(macs=macs, elementwise=_zero_points(node, a=2, b=3))


def _zero_points(node: NodeView, a: int, b: int) -> int:
    return node.input_size(0) * node.has_input(a) + node.input_size(1) * node.has_input(b)


@register("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(node: NodeView) -> Work:
    """MatMulIntegerToFloat: MatMulInteger; per result 1 for the scales and 1 for the bias."""
    macs, results = product(node.input_shape(0), node.input_shape(1))
    return Work(macs=macs, elementwise=_zero_points(node, a=4, b=5) + results * (1 + node.has_input(6)))


@register("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(node: NodeView) -> Work:
    """DynamicQuantizeMatMul: quantize A (6) and subtract its zero point (1); then as above."""
    macs, results = product(node.input_shape(0), node.input_shape(1))
    operands = node.input_size(0) * (DYNAMIC_QUANTIZE + 1) + node.input_size(1) * node.has_input(3)
    return Work(macs=macs, elementwise=operands + results * (1 + node.has_input(4)))


@register("QLinearMatMul")
def qlinear_matmul(node: NodeView) -> Work:
    """QLinearMatMul: the MACs of MatMul; zero points off a and b; 4 per result to requantize it."""
    macs, results = product(node.input_shape(0), node.input_shape(3))
    zero_points = node.input_size(0) * node.has_input(2) + node.input_size(3) * node.has_input(5)
    return Work(macs=macs, elementwise=zero_points + results * quantize(node, 7))


def quantized_weight_product(node: NodeView, n: int, k: int) -> tuple[int, int]:
    """MACs and results of `A (..., K) x W (K, N)`, where N and K are attributes and W is packed.

    Raises:
        UnknownWork: The last dimension of A is not K.
    """
    a = node.input_shape(0)
    if not a or a[-1] != k:
        raise UnknownWork
    return prod(a) * n, prod(a[:-1]) * n


@register("MatMulNBits", domain=MICROSOFT)
def matmul_nbits(node: NodeView) -> Work:
    """MatMulNBits: rows x N x K MACs; dequantize each weight once (2); 1 per result with a bias."""
    n, k = node.positive("N"), node.positive("K")
    macs, results = quantized_weight_product(node, n, k)
    return Work(macs=macs, elementwise=2 * n * k + results * node.has_input(5))


@register("MatMulBnb4", domain=MICROSOFT)
def matmul_bnb4(node: NodeView) -> Work:
    """MatMulBnb4: rows x N x K MACs; each weight is looked up and scaled (1)."""
    n, k = node.positive("N"), node.positive("K")
    macs, _ = quantized_weight_product(node, *((n, k) if node.int_attribute("transB", 1) else (k, n)))
    return Work(macs=macs, elementwise=n * k)


@register("MatMulFpQ4", domain=MICROSOFT)
def matmul_fpq4(node: NodeView) -> Work:
    """MatMulFpQ4: rows x N x K MACs; each weight is scaled (1) and, in type 1, offset (1)."""
    a, b = node.input_shape(0), node.constant(2)
    if b is None or b.size != 2 or not a:
        raise UnknownWork
    k, n = (int(dim) for dim in b.reshape(-1))
    rows = exact_division(prod(a), k)
    per_weight = 2 if node.int_attribute("blk_quant_type", 1) == 1 else 1
    return Work(macs=rows * n * k, elementwise=per_weight * n * k)


@register("MatMulBlockQuantizedFp8Weight", domain=MICROSOFT)
def matmul_fp8(node: NodeView) -> Work:
    """MatMulBlockQuantizedFp8Weight: rows x N x K MACs; each weight is scaled (1); the bias.

    With a scale for A each of its elements is divided by it before rounding and multiplied after.
    """
    scaling = 2 * node.input_size(0) * node.has_input(3)
    return _block_quantized(node, bias=4) + Work(elementwise=scaling)


@register("MatMulBlockQuantizedFp4Weight", domain=MICROSOFT)
def matmul_fp4(node: NodeView) -> Work:
    """MatMulBlockQuantizedFp4Weight: rows x N x K MACs; each weight is scaled (1); the bias."""
    return _block_quantized(node, bias=5)


def _block_quantized(node: NodeView, bias: int) -> Work:
    n, a = node.input_shape(1, 2)[0], node.input_shape(0)
    if not a:
        raise UnknownWork
    rows, k = prod(a[:-1]), a[-1]
    return Work(macs=rows * n * k, elementwise=n * k + rows * n * node.has_input(bias))
