"""Attention operators of com.microsoft; see `attention` for what a query-key pair costs.

How many keys there are: the new ones and the past. Where the cache is a shared buffer, and the number of
tokens in it is not a known constant, the whole buffer counts.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import NamedTuple

from dnnsplit_onnx.work.flops.attention import ROTATION, attend, score_operations
from dnnsplit_onnx.work.flops.normalization import rms
from dnnsplit_onnx.work.flops.registry import MICROSOFT, register
from dnnsplit_onnx.work.flops.view import NodeView, UnknownWork, exact_division
from dnnsplit_onnx.work.flops.work import Work


def _projection(node: NodeView, rows: int) -> tuple[Work, int, int]:
    """The packed projection of Q, K and V: its work, and the hidden sizes of Q (= K) and V."""
    inputs, packed = node.input_shape(1, 2)
    sizes = node.ints_attribute("qkv_hidden_sizes")
    if sizes and (len(sizes) != 3 or sum(sizes) != packed):
        raise UnknownWork
    hidden, value_hidden = (sizes[0], sizes[2]) if sizes else (exact_division(packed, 3),) * 2
    work = Work(macs=rows * inputs * packed, elementwise=rows * packed * node.has_input(2))
    return work, hidden, value_hidden


def _total_keys(node: NodeView, new: int, past: int | None, used: int | None) -> int:
    """Keys after the step, from the dimension of the past and the count of tokens in it, if constant."""
    if past is None:
        return new
    if not node.int_attribute("past_present_share_buffer", 0):
        return past + new
    return past if used is None else used + new


@register("Attention", "DecoderMaskedSelfAttention", domain=MICROSOFT)
def attention(node: NodeView) -> Work:
    """Attention: the projection (MACs, bias), rotary embedding if asked for, then attention.

    A mask, an attention bias and the causal mask are one each per pair.
    """
    batch, queries, _ = node.input_shape(0, 3)
    past = node.input_shape(4, 5)[3] if node.has_input(4) else None
    return _self_attention(node, batch, queries, past, masks=(3, 5), used=node.constant_int(6))


def _self_attention(
    node: NodeView, batch: int, queries: int, past: int | None, *, masks: tuple[int, ...], used: int | None
) -> Work:
    heads = node.positive("num_heads")
    work, hidden, value_hidden = _projection(node, batch * queries)
    keys = _total_keys(node, queries, past, used)
    given = sum(node.has_input(index) for index in masks) + bool(node.int_attribute("unidirectional", 0))
    work += attend(
        batch * heads * queries * keys,
        exact_division(hidden, heads),
        exact_division(value_hidden, heads),
        score_operations(node, given),
    )
    if node.int_attribute("do_rotary", 0):
        part = node.int_attribute("rotary_embedding_dim", 0) or exact_division(hidden, heads)
        work += Work(elementwise=ROTATION * 2 * batch * queries * heads * part)
    return work


@register("QAttention", domain=MICROSOFT)
def qattention(node: NodeView) -> Work:
    """QAttention: Attention with an integer projection.

    That adds a subtraction per element whose zero point is given, and scaling each projected element.
    """
    batch, queries, _ = node.input_shape(0, 3)
    past = node.input_shape(8, 5)[3] if node.has_input(8) else None
    work = _self_attention(node, batch, queries, past, masks=(5,), used=None)
    zero_points = node.input_size(0) * node.has_input(6) + node.input_size(1) * node.has_input(7)
    return work + Work(elementwise=zero_points + batch * queries * node.input_shape(1, 2)[1])


class _Operands(NamedTuple):
    """Where an operator on projected queries, keys and values has its optional inputs."""

    bias: int
    masks: tuple[int, ...]
    past_key: int
    past_length: int


_MULTI_HEAD = {
    "MultiHeadAttention": _Operands(bias=3, masks=(4, 5), past_key=6, past_length=8),
    "DecoderMaskedMultiHeadAttention": _Operands(bias=10, masks=(3, 4), past_key=5, past_length=7),
}


class _Projected(NamedTuple):
    """Sizes of projected operands: `new` keys were projected, `given` ones come as they are."""

    batch: int
    queries: int
    hidden: int
    new: int
    given: int
    value_hidden: int


@register(*_MULTI_HEAD, domain=MICROSOFT)
def multi_head_attention(node: NodeView) -> Work:
    """MultiHeadAttention: the bias of the projections (1 per element), then attention.

    Queries, keys and values come apart, or packed along an axis; keys and values of shape
    (batch, heads, length, size) are a cache and get no bias.
    """
    operands = _MULTI_HEAD[node.node.op_type]
    heads = node.positive("num_heads")
    sizes = _projected(node, heads)
    past = node.input_shape(operands.past_key, 4)[2] if node.has_input(operands.past_key) else None
    keys = _total_keys(node, sizes.new, past, node.constant_int(operands.past_length)) + sizes.given
    masks = sum(node.has_input(index) for index in operands.masks)
    masks += bool(node.int_attribute("unidirectional", 0))
    work = attend(
        sizes.batch * heads * sizes.queries * keys,
        exact_division(sizes.hidden, heads),
        exact_division(sizes.value_hidden, heads),
        score_operations(node, masks),
    )
    if node.has_input(operands.bias):
        biased = sizes.queries * sizes.hidden + sizes.new * (sizes.hidden + sizes.value_hidden)
        work += Work(elementwise=sizes.batch * biased)
    return work


def _projected(node: NodeView, heads: int) -> _Projected:
    query = node.input_shape(0, 3, 5)
    batch, queries = query[:2]
    if len(query) == 5:  # (batch, length, heads, 3, size)
        hidden = query[2] * query[4]
        return _Projected(batch, queries, hidden, queries, 0, hidden)
    if not node.has_input(1):  # (batch, 1, 2 x hidden + value hidden), the two equal
        hidden = exact_division(query[2], 3)
        return _Projected(batch, queries, hidden, queries, 0, hidden)
    key, hidden = node.input_shape(1, 3, 4, 5), query[2]
    if len(key) == 5:  # (batch, length, heads, 2, size)
        return _Projected(batch, queries, hidden, key[1], 0, key[2] * key[4])
    value = node.input_shape(2, 3, 4)
    value_hidden = value[2] if len(value) == 3 else heads * value[3]
    if len(key) == 4:
        return _Projected(batch, queries, hidden, 0, key[2], value_hidden)
    return _Projected(batch, queries, hidden, key[1], 0, value_hidden)


@register("GroupQueryAttention", domain=MICROSOFT)
def group_query_attention(node: NodeView) -> Work:
    """GroupQueryAttention: batch x query heads x L x S pairs.

    S is `total_sequence_length` where it is a constant, else the length of the present cache, else the
    past and the new tokens. Masks: the causal or local one, and an attention bias, one each. Besides: a
    head sink or smooth softmax adds to the denominator (1 per query and head); per-head RMS
    normalisation of new queries and keys (4n + 3g); rotary embedding of both (3 per rotated element); a
    quantized cache is dequantized (1 per element) and takes the new keys and values (3 per element:
    divide, round, saturate).
    """
    heads, kv_heads = node.positive("num_heads"), node.positive("kv_num_heads")
    batch, queries, width = node.input_shape(0, 3)
    packed = not node.has_input(1)
    new = queries if packed else node.input_shape(1, 3)[1]
    head_size = exact_division(width, heads + 2 * kv_heads if packed else heads)
    keys = _cached_keys(node, new)
    smooth = node.has_input(11) or bool(node.int_attribute("smooth_softmax", 0))
    positional = bool(node.int_attribute("causal", 1)) or node.int_attribute("local_window_size", -1) != -1
    pairs = batch * heads * queries * keys
    work = attend(pairs, head_size, head_size, score_operations(node, positional + node.has_input(10)))
    query_rows, key_rows = batch * queries * heads, batch * new * kv_heads
    elementwise = smooth * query_rows
    if node.has_input(14):
        rows = query_rows + key_rows
        elementwise += rms(rows * head_size, rows) + rows * head_size
    if node.int_attribute("do_rotary", 0):
        part = 2 * node.input_shape(7, 2)[1] if node.has_input(7) else head_size
        elementwise += ROTATION * (query_rows + key_rows) * part
    for name in ("k_quant_type", "v_quant_type"):
        if node.text_attribute(name, "NONE") != "NONE":
            elementwise += (batch * kv_heads * keys + 3 * key_rows) * head_size
    return work + Work(elementwise=elementwise)


def _cached_keys(node: NodeView, new: int) -> int:
    total = node.constant_int(6)
    if total is not None:
        return total
    present = node.known_output_shape(1)
    if present is not None and len(present) == 4:
        return present[2]
    return node.input_shape(3, 4)[2] + new if node.has_input(3) else new


@register("PackedAttention", domain=MICROSOFT)
def packed_attention(node: NodeView) -> Work:
    """PackedAttention: the projection of the tokens, then attention within each sequence.

    If the sequences' lengths are not a known constant, every token meets as many keys as the longest
    sequence may hold.
    """
    tokens, _ = node.input_shape(0, 2)
    heads = node.positive("num_heads")
    work, hidden, value_hidden = _projection(node, tokens)
    pairs = heads * _packed_pairs(node, tokens, offsets=3, lengths=4)
    per_pair = score_operations(node, masks=int(node.has_input(5)))
    sizes = exact_division(hidden, heads), exact_division(value_hidden, heads)
    return work + attend(pairs, *sizes, per_pair)


@register("PackedMultiHeadAttention", domain=MICROSOFT)
def packed_multi_head_attention(node: NodeView) -> Work:
    """PackedMultiHeadAttention: the bias of the projections, then attention as in PackedAttention."""
    query = node.input_shape(0, 2, 4)
    tokens, heads = query[0], node.positive("num_heads")
    if len(query) == 4:  # (tokens, heads, 3, size)
        hidden = value_hidden = query[1] * query[3]
    else:
        hidden, value_hidden = query[1], node.input_shape(2, 2)[1]
    pairs = heads * _packed_pairs(node, tokens, offsets=4, lengths=5)
    per_pair = score_operations(node, masks=int(node.has_input(6)))
    biased = tokens * (2 * hidden + value_hidden) * node.has_input(3)
    sizes = exact_division(hidden, heads), exact_division(value_hidden, heads)
    return attend(pairs, *sizes, per_pair) + Work(elementwise=biased)


def _packed_pairs(node: NodeView, tokens: int, offsets: int, lengths: int) -> int:
    ends = node.constant(lengths)
    if ends is not None:
        bounds = ends.reshape(-1).tolist()
        return sum((stop - start) ** 2 for start, stop in pairwise(bounds))
    return tokens * node.input_shape(offsets, 2)[1]


@register("GatedRelativePositionBias", domain=MICROSOFT)
def gated_relative_position_bias(node: NodeView) -> Work:
    """GatedRelativePositionBias: head_size x D MACs per token and head; the gates, and their product.

    Element-wise: the query bias (1 per element), the bias of the product and the sum of each half (2 D
    per token and head), two sigmoids, `u * (r * a - 1) + 2` (4), and 1 per output element.
    """
    heads = node.positive("num_heads")
    head_size, width = node.input_shape(3, 2)
    batch, _, length, keys = node.output_shape(0, 4)
    rows = batch * heads * length
    gates = rows * (2 * width + 2 * 4 + 4)
    return Work(macs=rows * head_size * width, elementwise=rows * head_size + gates + rows * keys)


@register("GemmaRotaryEmbedding", domain=MICROSOFT)
def gemma_rotary_embedding(node: NodeView) -> Work:
    """GemmaRotaryEmbedding: sin and cos of the embedding (2), 3 per element of queries and keys."""
    rotated = node.input_size(1) + prod(node.input_shape(3))
    return Work(elementwise=2 * node.input_size(0) + ROTATION * rotated)
