"""Fused quantized projections and mixtures of experts of com.microsoft."""

from __future__ import annotations

from math import prod

from dnnsplit_onnx.work.flops.elementwise import SIGMOID, activation_operations
from dnnsplit_onnx.work.flops.matmul import quantized_weight_product
from dnnsplit_onnx.work.flops.normalization import rms
from dnnsplit_onnx.work.flops.reduction import SOFTMAX
from dnnsplit_onnx.work.flops.registry import MICROSOFT, register
from dnnsplit_onnx.work.flops.view import NodeView, exact_division, log2_ceil
from dnnsplit_onnx.work.flops.work import Work


@register("MatMulNBitsMlp", domain=MICROSOFT)
def matmul_nbits_mlp(node: NodeView) -> Work:
    """MatMulNBitsMlp: (skip and) RMS normalisation, two MatMulNBits, `activation(gate) * up`."""
    n, k = node.positive("N"), node.positive("K")
    macs, results = quantized_weight_product(node, n, k)
    activated = activation_operations(node.text_attribute("activation", "silu")) + 1
    biases = node.has_input(5) + node.has_input(8)
    elementwise = 2 * 2 * n * k + results * (biases + activated) + _prologue(node)
    return Work(macs=2 * macs, elementwise=elementwise)


@register("MatMulNBitsQkv", domain=MICROSOFT)
def matmul_nbits_qkv(node: NodeView) -> Work:
    """MatMulNBitsQkv: (skip and) RMS normalisation, then MatMulNBits for Q, K and V."""
    k, n_q, n_kv = node.positive("K"), node.positive("Nq"), node.positive("Nkv")
    macs, results = quantized_weight_product(node, n_q + 2 * n_kv, k)
    rows = exact_division(results, n_q + 2 * n_kv)
    biases = rows * (n_q * node.has_input(5) + n_kv * (node.has_input(8) + node.has_input(11)))
    return Work(macs=macs, elementwise=2 * (n_q + 2 * n_kv) * k + biases + _prologue(node))


def _prologue(node: NodeView) -> int:
    """Operations of the skip (input 1) and the RMS normalisation (its scale is input 2)."""
    shape = node.input_shape(0)
    n, rows = prod(shape), prod(shape[:-1])
    return n * node.has_input(1) + (rms(n, rows) + n) * node.has_input(2)


@register("MoE", domain=MICROSOFT)
def mixture_of_experts(node: NodeView) -> Work:
    """MoE: each token goes through its top k experts; a MAC per weight of each.

    Element-wise: routing (softmax over the experts, their selection, 2 k to normalise if asked for), the
    biases, the activation (and 1 for a gate), and weighing and adding up k results.
    """
    hidden = node.input_shape(0, 2, 3)[-1]
    experts = node.input_shape(1, 2)[1]
    up = exact_division(node.input_size(2), experts * hidden)
    return _experts(node, up, hidden, biases=(3, 5, 7), gate_weight=6)


@register("QMoE", domain=MICROSOFT)
def quantized_mixture_of_experts(node: NodeView) -> Work:
    """QMoE: as MoE, and the weights of the experts that can be hit are dequantized once (2 each)."""
    hidden = node.input_shape(0, 2, 3)[-1]
    experts, up = node.input_shape(2, 3)[:2]
    work = _experts(node, up, hidden, biases=(4, 7, 10), gate_weight=8)
    tokens_times_k = exact_division(node.input_size(0), hidden) * node.int_attribute("k", 1)
    weights = _expert_weights(node, up, hidden, gate_weight=8)
    return work + Work(elementwise=2 * min(experts, tokens_times_k) * weights)


def _inner(node: NodeView, up: int) -> int:
    """The inner size of an expert; a fused SwiGLU computes the gate and the value in one product."""
    fused = node.text_attribute("activation_type", "relu") == "swiglu" and node.int_attribute(
        "swiglu_fusion", 0
    )
    return exact_division(up, 2) if fused else up


def _expert_weights(node: NodeView, up: int, hidden: int, gate_weight: int) -> int:
    inner = _inner(node, up)
    return hidden * (up + inner + (inner if node.has_input(gate_weight) else 0))


def _experts(node: NodeView, up: int, hidden: int, biases: tuple[int, int, int], gate_weight: int) -> Work:
    rows, experts = node.input_shape(1, 2)
    k, inner = node.int_attribute("k", 1), _inner(node, up)
    visits = rows * k
    activation = node.text_attribute("activation_type", "relu")
    # SwiGLU multiplies G by the sigmoid of a scaled G, and that by a shifted L.
    per_inner = SIGMOID + 4 if activation == "swiglu" else activation_operations(activation)
    gated = activation != "swiglu" and node.has_input(gate_weight)
    widths = (up, hidden, inner)
    added = sum(width for width, index in zip(widths, biases, strict=True) if node.has_input(index))
    routing = rows * experts * (SOFTMAX + max(1, log2_ceil(k)))
    routing += 2 * visits * bool(node.int_attribute("normalize_routing_weights", 0))
    return Work(
        macs=visits * _expert_weights(node, up, hidden, gate_weight),
        elementwise=routing + visits * (added + inner * (per_inner + gated) + 2 * hidden),
    )
