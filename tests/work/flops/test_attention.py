from __future__ import annotations

import numpy as np
import pytest

from dnnsplit_onnx.work.flops import Work, count_node
from tests.work.flops.counting import MS, Operand, context_of, count, inferred, work_of

# 2 sequences of 16 tokens, 4 heads of 8: 2 x 4 x 16 x 16 = 2048 pairs, 16 MACs each.
Q = (2, 4, 16, 8)
PACKED = (2, 16, 32)


def test_attention() -> None:
    # per pair: softmax 5, scale 1
    assert work_of("Attention", [Q, Q, Q]) == Work(32_768, 12_288)
    heads = {"q_num_heads": 4, "kv_num_heads": 4}
    assert work_of("Attention", [PACKED, PACKED, PACKED], **heads) == Work(32_768, 12_288)
    assert work_of("Attention", [Q, Q, Q], scale=1.0) == Work(32_768, 10_240)
    assert work_of("Attention", [Q, Q, Q], scale=0.5, softcap=30.0) == Work(32_768, 2048 * 9)
    assert count("Attention", [PACKED, PACKED, PACKED]) is None  # how many heads?


def test_masks_cost_and_save_nothing() -> None:
    mask = (16, 16)
    assert work_of("Attention", [Q, Q, Q, mask]) == Work(32_768, 2048 * 7)
    assert work_of("Attention", [Q, Q, Q], is_causal=1) == Work(32_768, 2048 * 7)
    assert work_of("Attention", [Q, Q, Q], is_causal=1, left_window_size=4) == Work(32_768, 2048 * 7)
    lengths = [Q, Q, Q, mask, None, None, (2,)]
    assert work_of("Attention", lengths, is_causal=1) == Work(32_768, 2048 * 9)


def test_grouped_queries_cross_attention_and_past() -> None:
    kv = (2, 2, 16, 8)
    assert work_of("Attention", [Q, kv, kv]) == Work(32_768, 12_288)  # query heads count
    key, value = (2, 4, 20, 8), (2, 4, 20, 6)
    assert work_of("Attention", [Q, key, value]) == Work(2560 * 14, 2560 * 6)
    past = (2, 4, 48, 8)
    assert work_of("Attention", [Q, Q, Q, None, past, past]) == Work(8192 * 16, 8192 * 6)
    assert count("Attention", [Q, Q, Q, None, "?", "?"]) is None


def test_rotary_embedding() -> None:
    cache = (16, 4)
    assert work_of("RotaryEmbedding", [Q, cache, cache, (2, 16)]) == Work(0, 3072)
    assert work_of("RotaryEmbedding", [PACKED, cache, cache], num_heads=4) == Work(0, 3072)
    # Half of each head of 8 rotates.
    assert work_of("RotaryEmbedding", [Q, cache, cache], rotary_embedding_dim=4) == Work(0, 1536)
    partial = {"num_heads": 4, "rotary_embedding_dim": 4}
    assert work_of("RotaryEmbedding", [PACKED, cache, cache], **partial) == Work(0, 1536)
    for op_type in ("RotaryEmbedding", "MRotaryEmbedding"):
        assert work_of(op_type, [PACKED, (2, 16), cache, cache], domain=MS) == Work(0, 3072)
    states = [(2, 16, 8), Q, Q, Q, Q]
    assert work_of("GemmaRotaryEmbedding", states, domain=MS) == Work(0, 2 * 256 + 3 * 2048)
    grouped = [(2, 16, 8), Q, Q, (2, 2, 16, 8), (2, 2, 16, 8)]
    assert work_of("GemmaRotaryEmbedding", grouped, domain=MS) == Work(0, 2 * 256 + 3 * 1536)


@pytest.mark.parametrize(
    ("rule", "work"),
    [
        # 20 tokens, 4 query heads, 2 key-value heads, a state of 8 x 6.
        # Writing and reading the state: 20 x 48 x (2 + 4) MACs; scaling 20 x 4 x 6 outputs.
        ("linear", Work(5760, 480)),
        ("gated", Work(5760, 480 + 20 * 2 * 48 + 320)),  # decay the state, 320 exps
        ("delta", Work(7680, 480 + 20 * 2 * 12)),  # S^T k; subtract from v and scale
        ("gated_delta", Work(7680, 480 + 20 * 2 * 60 + 320)),
    ],
)
def test_linear_attention(rule: str, work: Work) -> None:
    inputs = [(2, 10, 32), (2, 10, 16), (2, 10, 12), None, (2, 10, 16), (2, 10, 2)]
    heads = {"q_num_heads": 4, "kv_num_heads": 2, "update_rule": rule}
    assert work_of("LinearAttention", inputs, **heads) == work
    assert work_of("LinearAttention", inputs, domain=MS, **heads) == work
    assert count("LinearAttention", inputs, **heads | {"update_rule": "mystery"}) is None


def test_flex_attention_runs_its_modifiers_once() -> None:
    model = inferred("""
        <ir_version: 10, opset_import: ["" : 25, "ai.onnx.preview" : 1]>
        g (float[2,4,16,8] q, float[2,2,20,8] k, float[2,2,20,6] v) => (float[2,4,16,6] y) {
            y = ai.onnx.preview.FlexAttention <score_mod = m (float[2,4,16,20] s) => (float[2,4,16,20] t) {
                u = Abs(s)
                t = Sqrt(u)
            }> (q, k, v)
        }""")
    assert count_node(model.graph.node[0], context_of(model)) == Work(2560 * 14, 2560 * 8)


# -- com.microsoft -----------------------------------------------------------------------------------


def test_fused_self_attention() -> None:
    # BERT-like: 2 x 16 tokens of 32, projected to 96: 98304 MACs, 3072 biases; then 2048 pairs.
    inputs = [PACKED, (32, 96), (96,)]
    assert work_of("Attention", inputs, domain=MS, num_heads=4) == Work(98_304 + 32_768, 3072 + 12_288)
    masked = work_of("Attention", [*inputs, (2, 16)], domain=MS, num_heads=4, unidirectional=1)
    assert masked == Work(131_072, 3072 + 2048 * 8)
    assert count("Attention", inputs, domain=MS) is None
    # Values of another width: 32 x 32 x (32 + 32 + 16), heads of 8 and 4.
    sizes = {"num_heads": 4, "qkv_hidden_sizes": [32, 32, 16]}
    assert work_of("Attention", [PACKED, (32, 80)], domain=MS, **sizes) == Work(81_920 + 2048 * 12, 12_288)
    assert count("Attention", [PACKED, (32, 81)], domain=MS, **sizes) is None


def test_fused_self_attention_with_past() -> None:
    # One new token per sequence, 15 in the past: 2 x 4 x 16 = 128 pairs.
    inputs = [(2, 1, 32), (32, 96), (96,), None, (2, 2, 4, 15, 8)]
    assert work_of("Attention", inputs, domain=MS, num_heads=4) == Work(6144 + 2048, 192 + 768)
    rotary = work_of("Attention", inputs, domain=MS, num_heads=4, do_rotary=1)
    assert rotary == Work(8192, 192 + 768 + 3 * 2 * 64)
    # A shared buffer of 64 tokens: how many are in it is a constant, or else all count.
    shared = {"domain": MS, "num_heads": 4, "past_present_share_buffer": 1}
    buffer = [*inputs[:4], (2, 2, 4, 64, 8), None]
    for op_type in ("Attention", "DecoderMaskedSelfAttention"):
        assert work_of(op_type, [*buffer, np.array(15)], **shared) == Work(8192, 960)
        assert work_of(op_type, [*buffer, ()], **shared) == Work(6144 + 512 * 16, 192 + 512 * 6)


def test_qattention() -> None:
    four = {"domain": MS, "num_heads": 4}
    inputs = [PACKED, (32, 96), (96,), (), ()]
    # as Attention; 3072 projected elements are scaled
    assert work_of("QAttention", inputs, **four) == Work(131_072, 3072 + 12_288 + 3072)
    # a mask; zero points off 1024 inputs and 3072 weights
    assert work_of("QAttention", [*inputs, (2,)], **four) == Work(131_072, 6144 + 12_288 + 2048)
    assert work_of("QAttention", [*inputs, None, ()], **four) == Work(131_072, 6144 + 12_288 + 1024)
    assert work_of("QAttention", [*inputs, None, None, ()], **four) == Work(131_072, 6144 + 12_288 + 3072)
    one = [(2, 1, 32), *inputs[1:], None, None, None, (2, 2, 4, 15, 8)]
    assert work_of("QAttention", one, **four) == Work(6144 + 2048, 192 + 768 + 192)


def with_inputs(inputs: list[Operand], **more: Operand) -> list[Operand]:
    """Inputs with optional ones at the positions that `i8=...` names."""
    positions = {int(name[1:]): operand for name, operand in more.items()}
    total = max(len(inputs), *(position + 1 for position in positions))
    padded = inputs + [None] * (total - len(inputs))
    return [positions.get(index, operand) for index, operand in enumerate(padded)]


def test_multi_head_attention() -> None:
    four = {"domain": MS, "num_heads": 4}
    inputs: list[Operand] = [PACKED, PACKED, PACKED]
    assert work_of("MultiHeadAttention", inputs, **four) == Work(32_768, 12_288)
    assert work_of("MultiHeadAttention", [(2, 16, 4, 3, 8)], **four) == Work(32_768, 12_288)
    assert work_of("MultiHeadAttention", [PACKED, (2, 16, 4, 2, 8)], **four) == Work(32_768, 12_288)
    # Other keys than queries, and wider values: 2 x 4 x 16 x 20 pairs.
    cross: list[Operand] = [PACKED, (2, 20, 32), (2, 20, 48)]
    assert work_of("MultiHeadAttention", cross, **four) == Work(2560 * 20, 2560 * 6)
    # 1024 queries, 1280 keys, 1920 values
    biased = with_inputs(cross, i3=(112,))
    assert work_of("MultiHeadAttention", biased, **four) == Work(2560 * 20, 2560 * 6 + 4224)
    # Keys and values as a cache of 20 tokens: the bias is that of the queries.
    cache = (2, 4, 20, 8)
    work = work_of("MultiHeadAttention", [PACKED, cache, cache, (96,)], **four)
    assert work == Work(2560 * 16, 2560 * 6 + 1024)


def test_multi_head_attention_masks() -> None:
    four = {"domain": MS, "num_heads": 4}
    inputs: list[Operand] = [PACKED, PACKED, PACKED]
    padded = with_inputs(inputs, i4=(2, 16))
    assert work_of("MultiHeadAttention", padded, **four) == Work(32_768, 2048 * 7)
    biased = with_inputs(inputs, i4=(2, 16), i5=(1, 4, 16, 16))
    assert work_of("MultiHeadAttention", biased, unidirectional=1, **four) == Work(32_768, 2048 * 9)


def test_multi_head_attention_with_past() -> None:
    four = {"domain": MS, "num_heads": 4}
    inputs: list[Operand] = [PACKED, PACKED, PACKED]
    past = with_inputs(inputs, i6=(2, 4, 48, 8), i7=(2, 4, 48, 8))
    assert work_of("MultiHeadAttention", past, **four) == Work(8192 * 16, 8192 * 6)
    # A buffer of 112 tokens, 48 of which are used.
    shared = with_inputs(inputs, i6=(2, 4, 112, 8), i7=(2, 4, 112, 8), i8=np.array(48))
    work = work_of("MultiHeadAttention", shared, past_present_share_buffer=1, **four)
    assert work == Work(8192 * 16, 8192 * 6)


def test_decoder_masked_multi_head_attention() -> None:
    four = {"domain": MS, "num_heads": 4}
    op_type = "DecoderMaskedMultiHeadAttention"
    one: list[Operand] = [(2, 1, 32)] * 3
    past = with_inputs(one, i5=(2, 4, 15, 8), i6=(2, 4, 15, 8))
    assert work_of(op_type, past, **four) == Work(2048, 768)
    packed = with_inputs([(2, 1, 96)], i5=(2, 4, 15, 8), i6=(2, 4, 15, 8))
    assert work_of(op_type, packed, **four) == Work(2048, 768)
    masked = with_inputs(past, i3=(2, 16))
    assert work_of(op_type, masked, **four) == Work(2048, 896)
    masked_and_biased = with_inputs(masked, i4=(1, 4, 1, 16), i10=(96,))
    assert work_of(op_type, masked_and_biased, **four) == Work(2048, 1024 + 192)
    shared = with_inputs(one, i5=(2, 4, 64, 8), i6=(2, 4, 64, 8), i7=np.array(15))
    assert work_of(op_type, shared, past_present_share_buffer=1, **four) == Work(2048, 768)


def test_group_query_attention() -> None:
    # 4 query heads, 1 key-value head of 8; a prompt of 16 tokens; causal: 7 per pair
    heads = {"domain": MS, "num_heads": 4, "kv_num_heads": 1}
    kv = (2, 16, 8)
    inputs: list[Operand] = [PACKED, kv, kv, None, None, (2,), ()]
    assert work_of("GroupQueryAttention", inputs, **heads) == Work(32_768, 14_336)
    packed = [(2, 16, 48), None, None, None, None, (2,), ()]
    assert work_of("GroupQueryAttention", packed, **heads) == Work(32_768, 14_336)
    assert work_of("GroupQueryAttention", inputs, causal=0, scale=1.0, **heads) == Work(32_768, 10_240)
    windowed = work_of("GroupQueryAttention", inputs, causal=0, local_window_size=4, **heads)
    assert windowed == Work(32_768, 14_336)
    biased = with_inputs(inputs, i10=(1, 4, 16, 16))
    assert work_of("GroupQueryAttention", biased, **heads) == Work(32_768, 16_384)
    cross = [PACKED, (2, 20, 8), (2, 20, 8), None, None, (2,), ()]
    assert work_of("GroupQueryAttention", cross, causal=0, **heads) == Work(2560 * 16, 2560 * 6)


def test_group_query_attention_prepares_queries_and_keys() -> None:
    heads = {"domain": MS, "num_heads": 4, "kv_num_heads": 1}
    kv = (2, 16, 8)
    inputs: list[Operand] = [PACKED, kv, kv, None, None, (2,), ()]
    # 4 + 1 heads of 32 tokens are 160 rows of 8, which rotate in 3 each: all of them, or 6 of 8.
    rotary = work_of("GroupQueryAttention", inputs, do_rotary=1, **heads)
    assert rotary == Work(32_768, 14_336 + 3 * 1280)
    partial = with_inputs(inputs, i7=(64, 3), i8=(64, 3))
    assert work_of("GroupQueryAttention", partial, do_rotary=1, **heads) == Work(32_768, 14_336 + 3 * 960)
    # A smooth softmax, or a sink per head: one addition for each of 128 queries and heads.
    assert work_of("GroupQueryAttention", inputs, smooth_softmax=1, **heads) == Work(32_768, 14_336 + 128)
    sink = with_inputs(inputs, i11=(4,))
    assert work_of("GroupQueryAttention", sink, **heads) == Work(32_768, 14_336 + 128)
    # RMS normalisation of 160 rows.
    normalised = with_inputs(inputs, i14=(8,), i15=(8,))
    assert work_of("GroupQueryAttention", normalised, **heads) == Work(32_768, 14_336 + 4 * 1280 + 3 * 160)


def test_group_query_attention_with_a_cache() -> None:
    heads = {"domain": MS, "num_heads": 4, "kv_num_heads": 2}
    one, kv, past = (2, 1, 32), (2, 1, 16), (2, 2, 15, 8)
    step = [one, kv, kv, past, past, (2,), ()]
    assert work_of("GroupQueryAttention", step, **heads) == Work(2048, 896)  # 15 + 1 keys: 128 pairs
    buffer = (2, 2, 64, 8)
    shared = [one, kv, kv, buffer, buffer, (2,), ()]
    assert work_of("GroupQueryAttention", shared, [one, buffer, buffer], **heads) == Work(8192, 3584)
    known = [*shared[:6], np.array(16, np.int32)]
    assert work_of("GroupQueryAttention", known, [one, buffer, buffer], **heads) == Work(2048, 896)
    # A quantized cache: 2 x 2 x 16 rows of keys are dequantized, 4 new ones quantized in 3; 8 wide.
    quantized = work_of("GroupQueryAttention", step, k_quant_type="PER_TENSOR", **heads)
    assert quantized == Work(2048, 896 + (64 + 12) * 8)


def test_packed_attention() -> None:
    # 20 tokens of sequences of at most 16: 4 heads x 20 x 16 pairs, or of 12 and 8 tokens: 4 x 208
    inputs = [(20, 32), (32, 96), (96,), (2, 16), (3,)]
    assert work_of("PackedAttention", inputs, domain=MS, num_heads=4) == Work(61_440 + 20_480, 1920 + 7680)
    known = [*inputs[:4], np.array([0, 12, 20], np.int32)]
    assert work_of("PackedAttention", known, domain=MS, num_heads=4) == Work(61_440 + 13_312, 1920 + 4992)
    tokens = (20, 32)
    inputs = [tokens, tokens, tokens, (96,), (2, 16), np.array([0, 12, 20], np.int32)]
    assert work_of("PackedMultiHeadAttention", inputs, domain=MS, num_heads=4) == Work(13_312, 4992 + 1920)
    inputs = [(20, 4, 3, 8), None, None, None, (2, 16), (3,)]
    assert work_of("PackedMultiHeadAttention", inputs, domain=MS, num_heads=4) == Work(20_480, 7680)
    bias = (1, 4, 16, 16)
    assert work_of("PackedMultiHeadAttention", [*inputs, bias], domain=MS, num_heads=4) == Work(20_480, 8960)
    biased = [*known, bias]
    assert work_of("PackedAttention", biased, domain=MS, num_heads=4) == Work(74_752, 1920 + 832 * 7)


def test_gated_relative_position_bias() -> None:
    # 2 x 4 x 16 rows of 8, D = 6: 128 x 48 MACs; bias 1024, gates 128 x (12 + 8 + 4), 2048 outputs
    inputs = [PACKED, (32,), (1, 4, 16, 16), (8, 6), (6,), (1, 4, 1, 1)]
    outputs = [(2, 4, 16, 16)]
    work = work_of("GatedRelativePositionBias", inputs, outputs, domain=MS, num_heads=4)
    assert work == Work(6144, 1024 + 3072 + 2048)
