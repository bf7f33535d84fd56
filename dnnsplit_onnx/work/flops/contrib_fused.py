"""Fused activations and normalisations of com.microsoft, and its small operators."""

from __future__ import annotations

from math import prod

from dnnsplit_onnx.work.flops.elementwise import (
    GELU_ERF,
    GELU_TANH,
    SIGMOID,
    activation_operations,
    per_element,
    swish_operations,
)
from dnnsplit_onnx.work.flops.normalization import rms, standardize
from dnnsplit_onnx.work.flops.reduction import SOFTMAX
from dnnsplit_onnx.work.flops.registry import MICROSOFT, register
from dnnsplit_onnx.work.flops.view import NodeView, UnknownWork, exact_division
from dnnsplit_onnx.work.flops.work import Work

register("BiasGelu", domain=MICROSOFT)(per_element(1 + GELU_ERF))
register("BiasSoftmax", domain=MICROSOFT)(per_element(1 + SOFTMAX))
register("BiasAdd", domain=MICROSOFT)(per_element(2))  # x + bias + skip
register("GatedAdd", domain=MICROSOFT)(per_element(2))  # x + gate * y


@register("FastGelu", domain=MICROSOFT)
def fast_gelu(node: NodeView) -> Work:
    """FastGelu: the tanh form of Gelu (8), and 1 with a bias."""
    return Work(elementwise=node.input_size(0) * (GELU_TANH + node.has_input(1)))


@register("QuickGelu", domain=MICROSOFT)
def quick_gelu(node: NodeView) -> Work:
    """QuickGelu: `x * sigmoid(alpha * x)`, 6 per element; 5 if alpha is 1."""
    return Work(elementwise=node.input_size(0) * swish_operations(node.float_attribute("alpha", 1.702)))


@register("ScaledSiLU", domain=MICROSOFT)
def scaled_silu(node: NodeView) -> Work:
    """ScaledSiLU: `z * sigmoid(z)` of a scaled z, 6 per element."""
    return Work(elementwise=node.input_size(0) * (SIGMOID + 2))


@register("BiasSplitGelu", domain=MICROSOFT)
def bias_split_gelu(node: NodeView) -> Work:
    """BiasSplitGelu: the bias per input element; Gelu of one half (5) times the other (1)."""
    n = node.input_size(0)
    return Work(elementwise=n + exact_division(n, 2) * (GELU_ERF + 1))


@register("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(node: NodeView) -> Work:
    """SkipLayerNormalization: add the skip and the bias (n each), then LayerNormalization."""
    shape = node.input_shape(0, 2, 3)
    n, rows = prod(shape), prod(shape[:-1])
    additions = n * (1 + node.has_input(4))
    return Work(elementwise=additions + standardize(n, rows) + n * (1 + node.has_input(3)))


@register("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_simplified_layer_normalization(node: NodeView) -> Work:
    """SkipSimplifiedLayerNormalization: add the skip and the bias, then RMSNormalization (4n + 3g)."""
    shape = node.input_shape(0, 2, 3)
    n, rows = prod(shape), prod(shape[:-1])
    return Work(elementwise=n * (1 + node.has_input(3)) + rms(n, rows) + n)


@register("GatedRMSNorm", domain=MICROSOFT)
def gated_rms_norm(node: NodeView) -> Work:
    """GatedRMSNorm: RMSNormalization per group of the scale's length, times an activated gate."""
    n = node.input_size(0)
    groups = exact_division(n, node.input_size(1))
    gate = activation_operations(node.text_attribute("activation", "silu"))
    return Work(elementwise=rms(n, groups) + n * (2 + gate))


@register("EmbedLayerNormalization", domain=MICROSOFT)
def embed_layer_normalization(node: NodeView) -> Work:
    """EmbedLayerNormalization: add the embeddings (n, 2n with segments), then LayerNormalization.

    The index of a mask is found in 1 per element of the mask.
    """
    return Work(elementwise=_embedding(node, word=2, mask=7))


@register("QEmbedLayerNormalization", domain=MICROSOFT)
def qembed_layer_normalization(node: NodeView) -> Work:
    """QEmbedLayerNormalization: as above, and every embedding, gamma and beta is dequantized (2)."""
    hidden = node.input_shape(2, 2)[1]
    n = node.input_size(0) * hidden
    dequantized = n * (2 + node.has_input(1)) + 2 * hidden
    return Work(elementwise=_embedding(node, word=2, mask=7) + 2 * dequantized)


def _embedding(node: NodeView, word: int, mask: int) -> int:
    tokens, hidden = node.input_size(0), node.input_shape(word, 2)[1]
    n = tokens * hidden
    additions = n * (1 + node.has_input(1))
    masked = node.input_size(mask) if node.has_input(mask) else 0
    return additions + standardize(n, tokens) + 2 * n + masked


@register("GroupNorm", domain=MICROSOFT)
def group_norm(node: NodeView) -> Work:
    """GroupNorm: 7n + 4g as GroupNormalization; SiLU (5n) if `activation` is 1."""
    return Work(elementwise=_group_norm(node))


@register("SkipGroupNorm", domain=MICROSOFT)
def skip_group_norm(node: NodeView) -> Work:
    """SkipGroupNorm: add the skip and the bias (n each), then GroupNorm."""
    return Work(elementwise=_group_norm(node) + node.input_size(0) * (1 + node.has_input(4)))


def _group_norm(node: NodeView) -> int:
    shape = node.input_shape(0)
    if not shape:
        raise UnknownWork
    n = prod(shape)
    silu = (SIGMOID + 1) * n if node.int_attribute("activation", 0) else 0
    return standardize(n, shape[0] * node.positive("groups")) + 2 * n + silu


@register("BiasDropout", "BitmaskBiasDropout", domain=MICROSOFT)
def bias_dropout(node: NodeView) -> Work:
    """BiasDropout: the bias and the residual (1 each); in training 4 more, as Dropout."""
    return Work(elementwise=node.input_size(0) * (1 + node.has_input(2) + _dropout(node, 4)))


@register("BitmaskDropout", domain=MICROSOFT)
def bitmask_dropout(node: NodeView) -> Work:
    """BitmaskDropout: as Dropout."""
    return Work(elementwise=node.input_size(0) * _dropout(node, 2))


def _dropout(node: NodeView, training: int) -> int:
    return 4 * node.constant_flag(training)


@register("IsAllFinite", domain=MICROSOFT)
def is_all_finite(node: NodeView) -> Work:
    """IsAllFinite: one per element of every input."""
    return Work(elementwise=sum(node.input_size(index) for index in range(len(node.node.input))))


@register("ComplexMul", "ComplexMulConj", domain=MICROSOFT)
def complex_multiply(node: NodeView) -> Work:
    """ComplexMul: 6 per complex result (4 multiplications, 2 additions), 3 per real number written."""
    return Work(elementwise=3 * node.elements())


@register("CDist", domain=MICROSOFT)
def cdist(node: NodeView) -> Work:
    """CDist: subtract, square, add per feature of a pair; a square root per pair if Euclidean."""
    metric = node.text_attribute("metric", "sqeuclidean")
    if metric not in ("sqeuclidean", "euclidean"):
        raise UnknownWork
    (m, features), k = node.input_shape(0, 2), node.input_shape(1, 2)[0]
    return Work(elementwise=m * k * (3 * features + (metric == "euclidean")))
