"""Operators of onnxruntime 1.32 for packed weights, adapters, and fused expert layers."""

from __future__ import annotations

from math import prod

from dnnsplit_onnx.work.flops.elementwise import SIGMOID, swish_operations
from dnnsplit_onnx.work.flops.matmul import quantized_weight_product
from dnnsplit_onnx.work.flops.registry import MICROSOFT, register
from dnnsplit_onnx.work.flops.view import NodeView, UnknownWork, exact_division
from dnnsplit_onnx.work.flops.work import Work


@register("MatMulPacked", domain=MICROSOFT)
def matmul_packed(node: NodeView) -> Work:
    """MatMulPacked: rows x N x K MACs; each weight is scaled (1); what follows per result.

    That is the global scale (1), and relu2 (a maximum and a product) or silu (`x * sigmoid(x)`).
    """
    n, k = node.positive("N"), node.positive("K")
    macs, results = quantized_weight_product(node, n, k)
    after = {"none": 0, "relu2": 2, "relu_squared": 2, "silu": SIGMOID + 1}
    activation = after.get(node.text_attribute("activation_type", "none"))
    if activation is None:
        raise UnknownWork
    return Work(macs=macs, elementwise=n * k + results * (activation + node.has_input(2)))


@register("MatMulNBitsQLoRA", domain=MICROSOFT)
def matmul_nbits_qlora(node: NodeView) -> Work:
    """MatMulNBitsQLoRA: MatMulNBits of the base, down to rank R and up again, and their sum.

    Each weight is dequantized once (2). Without an up projection the base is all.
    """
    n, k = node.positive("N"), node.positive("K")
    macs, results = quantized_weight_product(node, n, k)
    rank, up = node.input_shape(3)[0], node.input_shape(5)
    base = Work(macs=macs, elementwise=2 * n * k)
    if not prod(up) or not rank:
        return base
    rows = exact_division(results, n)
    return base + Work(macs=rows * rank * (k + n), elementwise=2 * rank * (k + n) + results)


@register("SwiGLU", domain=MICROSOFT)
def swiglu(node: NodeView) -> Work:
    """SwiGLU of com.microsoft: `g * sigmoid(alpha * g) * (l + beta)`; see `_gated`."""
    halves = 1 if node.has_input(1) else 2  # both may come in one
    return Work(elementwise=exact_division(node.input_size(0), halves) * _gated(node))


@register("RouterGateUpProj", domain=MICROSOFT)
def router_gate_up(node: NodeView) -> Work:
    """RouterGateUpProj: one product of K x (router + 2 x inter) weights, then SwiGLU of inter."""
    x, w = node.input_shape(0), node.input_shape(1, 2)
    if not x or x[-1] != w[0] or node.text_attribute("activation", "swiglu") != "swiglu":
        raise UnknownWork
    inter = exact_division(w[1] - node.positive("router_size"), 2)
    rows = prod(x[:-1])
    return Work(macs=rows * prod(w), elementwise=rows * inter * _gated(node))


def _gated(node: NodeView) -> int:
    """Operations per result: clamps of one half (1) and the other (2), Swish, the offset, the product."""
    clamps = 3 if node.float_attribute("limit", 0.0) > 0 else 0
    offset = 1 if node.float_attribute("activation_beta", 0.0) else 0
    return clamps + swish_operations(node.float_attribute("activation_alpha", 1.0)) + offset + 1
