"""Attention and what belongs to it, of the ONNX domains.

Scaled dot-product attention over P query-key pairs (batch x heads x queries x keys) is D MACs a pair for
the scores and D_v for the weighted values. Element-wise, a pair costs 5 for softmax, 1 for the scale
(unless it is 1), 1 for each mask or bias, and 3 for a soft cap (divide, tanh, multiply). Masks, causal or
windowed, save nothing: all pairs are counted, as in the operator's definition.
"""

from __future__ import annotations

from math import prod

from dnnsplit_onnx.work.flops.reduction import SOFTMAX
from dnnsplit_onnx.work.flops.registry import MICROSOFT, PREVIEW, register
from dnnsplit_onnx.work.flops.scope import GraphContext, graph_work
from dnnsplit_onnx.work.flops.view import NodeView, UnknownWork, exact_division
from dnnsplit_onnx.work.flops.work import Work

SOFT_CAP = 3
ROTATION = 3  # cos * x1 - sin * x2, or sin * x1 + cos * x2, per rotated element


def attend(pairs: int, head_size: int, value_head_size: int, per_pair: int) -> Work:
    """Scores, `per_pair` operations on each, and the weighted sum of the values.

    Args:
        pairs: batch x heads x queries x keys.
        head_size: D, of queries and keys.
        value_head_size: D_v.
        per_pair: Element-wise operations per score.
    """
    return Work(macs=pairs * (head_size + value_head_size), elementwise=pairs * per_pair)


def score_operations(node: NodeView, masks: int) -> int:
    """Operations on one score: softmax, scale, soft cap, and the masks and biases that are added."""
    scale = node.attribute("scale")
    scaled = scale is None or scale.f != 1.0
    capped = node.float_attribute("softcap", 0.0) != 0.0
    return SOFTMAX + scaled + SOFT_CAP * capped + masks


def split_heads(node: NodeView, index: int, heads: str) -> tuple[int, int, int, int]:
    """(batch, heads, length, head size) of an operand, 4-D or with its heads packed in the last axis."""
    shape = node.input_shape(index, 3, 4)
    if len(shape) == 4:
        return shape[0], shape[1], shape[2], shape[3]
    count = node.positive(heads)
    return shape[0], count, shape[1], exact_division(shape[2], count)


@register("Attention")
def attention(node: NodeView) -> Work:
    """Attention: batch x query heads x L x S pairs, with S the past and the new keys.

    A mask operand, the causal or windowed mask, and the padding lengths are one each.
    """
    batch, heads, queries, head_size = split_heads(node, 0, "q_num_heads")
    keys = split_heads(node, 1, "kv_num_heads")[2]
    value_head_size = split_heads(node, 2, "kv_num_heads")[3]
    if node.has_input(4):
        keys += node.input_shape(4, 4)[2]
    windows = (node.int_attribute("left_window_size", -1), node.int_attribute("right_window_size", -1))
    positional = bool(node.int_attribute("is_causal", 0)) or windows != (-1, -1)
    masks = node.has_input(3) + positional + node.has_input(6)
    pairs = batch * heads * queries * keys
    return attend(pairs, head_size, value_head_size, score_operations(node, masks))


@register("FlexAttention", domain=PREVIEW)
def flex_attention(node: NodeView) -> Work:
    """FlexAttention: Attention over all pairs, and the modifier subgraphs on all of them at once."""
    batch, heads, queries, head_size = node.input_shape(0, 4)
    keys, value_head_size = node.input_shape(1, 4)[2], node.input_shape(2, 4)[3]
    pairs = batch * heads * queries * keys
    work = attend(pairs, head_size, value_head_size, score_operations(node, masks=0))
    for name in ("score_mod", "prob_mod"):
        if node.attribute(name) is not None:
            modifier = node.graph_attribute(name)
            work += graph_work(modifier, GraphContext(modifier, outer=node.context))
    return work


@register("RotaryEmbedding")
@register("RotaryEmbedding", "MRotaryEmbedding", domain=MICROSOFT)
def rotary_embedding(node: NodeView) -> Work:
    """RotaryEmbedding: 3 per rotated element; a partial rotation leaves the rest of a head alone."""
    shape = node.input_shape(0, 3, 4)
    rotated = prod(shape)
    part = node.int_attribute("rotary_embedding_dim", 0)
    if part:
        head_size = shape[-1] if len(shape) == 4 else exact_division(shape[-1], node.positive("num_heads"))
        rotated = exact_division(rotated, head_size) * part
    return Work(elementwise=ROTATION * rotated)


@register("LinearAttention")
@register("LinearAttention", domain=MICROSOFT)
def linear_attention(node: NodeView) -> Work:
    """LinearAttention: the recurrence, token by token, on a state of d_k x d_v per key-value head.

    MACs: d_k d_v per token and key-value head for the outer product added to the state, as much again for
    `S^T k` in the delta rules, and d_k d_v per output head for `q^T S`. Element-wise: decaying the state
    (d_k d_v) and the exp of each decay; in the delta rules subtracting from v and scaling by beta (2 d_v);
    scaling the output (1 each).
    """
    batch, tokens, width = node.input_shape(0, 3)
    q_heads, kv_heads = node.positive("q_num_heads"), node.positive("kv_num_heads")
    d_k = exact_division(width, q_heads)
    d_v = exact_division(node.input_shape(2, 3)[2], kv_heads)
    rule = node.text_attribute("update_rule", "gated_delta")
    if rule not in ("linear", "gated", "delta", "gated_delta"):
        raise UnknownWork
    delta, gated = rule.endswith("delta"), rule.startswith("gated")
    steps, out_heads = batch * tokens, max(q_heads, kv_heads)
    state = d_k * d_v
    per_kv_head = state * gated + 2 * d_v * delta
    return Work(
        macs=steps * state * (kv_heads * (1 + delta) + out_heads),
        elementwise=steps * (kv_heads * per_kv_head + out_heads * d_v) + (node.input_size(4) if gated else 0),
    )
