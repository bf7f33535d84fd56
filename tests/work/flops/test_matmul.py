from __future__ import annotations

import numpy as np
import pytest

from dnnsplit_onnx.work.flops import Work
from tests.work.flops.counting import MS, count, work_of


@pytest.mark.parametrize(
    ("a", "b", "macs"),
    [
        ((3, 4), (4, 5), 60),
        ((128, 768), (768, 3072), 301_989_888),
        ((2, 12, 64, 32), (2, 12, 32, 64), 3_145_728),
        ((2, 1, 3, 4), (7, 4, 5), 840),  # broadcast batches: 2 x 7
        ((4,), (4,), 4),
        ((4,), (4, 5), 20),
        ((6, 3, 4), (4,), 72),
        ((3, 0), (0, 5), 0),
    ],
)
def test_matmul(a: tuple[int, ...], b: tuple[int, ...], macs: int) -> None:
    assert work_of("MatMul", [a, b]) == Work(macs, 0)


def test_operands_that_do_not_fit() -> None:
    assert count("MatMul", [(3, 4), (5, 6)]) is None
    assert count("MatMul", [(3, 4), ()]) is None
    assert count("MatMul", [(2, 3, 4), (3, 4, 5)]) is None
    assert count("MatMul", [(3, 4), "?"]) is None


def test_gemm() -> None:
    assert work_of("Gemm", [(1, 2048), (1000, 2048), (1000,)], transB=1) == Work(2_048_000, 1000)
    assert work_of("Gemm", [(3, 4), (4, 5)]) == Work(60, 0)
    assert work_of("Gemm", [(4, 3), (5, 4)], transA=1, transB=1) == Work(60, 0)
    # alpha scales 15 results, beta the 5 elements of C, which is added 15 times
    assert work_of("Gemm", [(3, 4), (4, 5), (5,)], alpha=0.5, beta=2.0) == Work(60, 35)
    assert count("Gemm", [(3, 4), (5, 4)]) is None
    assert count("Gemm", [(2, 3, 4), (4, 5)]) is None


def test_matmul_integer() -> None:
    assert work_of("MatMulInteger", [(3, 4), (4, 5)]) == Work(60, 0)
    assert work_of("MatMulInteger", [(3, 4), (4, 5), (), (5,)]) == Work(60, 12 + 20)
    assert work_of("MatMulInteger", [(3, 4), (4, 5), ()]) == Work(60, 12)
    assert work_of("MatMulInteger16", [(3, 4), (4, 5)], domain=MS) == Work(60, 0)


def test_qlinear_matmul() -> None:
    inputs = [(3, 4), (), (), (4, 5), (), (), (), ()]
    assert work_of("QLinearMatMul", inputs) == Work(60, 12 + 20 + 60)
    assert work_of("QLinearMatMul", [*inputs[:5], None, (), ()]) == Work(60, 12 + 60)
    assert work_of("QLinearMatMul", [*inputs[:2], None, *inputs[3:]]) == Work(60, 20 + 60)


def test_fused_matmul() -> None:
    options = {"domain": MS}
    assert work_of("FusedMatMul", [(3, 4), (5, 4)], transB=1, **options) == Work(60, 0)
    assert work_of("FusedMatMul", [(3, 4), (4, 5)], alpha=0.125, **options) == Work(60, 15)
    assert work_of("TransposeMatMul", [(4, 3), (4, 5)], transA=1, **options) == Work(60, 0)
    # A is (M, batch, batch, K): onnxruntime answers (2, 3, 5, 4).
    batched = [(5, 2, 3, 7), (2, 3, 7, 4)]
    assert work_of("FusedMatMul", batched, transBatchA=1, **options) == Work(840, 0)
    both = [(7, 2, 3, 5), (2, 3, 7, 4)]
    assert work_of("FusedMatMul", both, transBatchA=1, transA=1, **options) == Work(840, 0)
    assert work_of("FusedMatMulActivation", [(3, 4), (4, 5)], activation="Relu", **options) == Work(60, 15)


def test_fused_gemm() -> None:
    options = {"domain": MS, "activation": "LeakyRelu"}
    assert work_of("FusedGemm", [(3, 4), (4, 5), (5,)], **options) == Work(60, 15 + 30)
    assert work_of("GemmFastGelu", [(3, 4), (4, 5), (5,)], domain=MS) == Work(60, 15 * 9)
    inputs = [(3, 4), (4, 5), (5,)]
    options = {"domain": MS, "activation": "RELU"}
    assert work_of("GemmFloat8", inputs, **options) == Work(60, 15 + 15)
    assert work_of("GemmFloat8", [*inputs, ()], **options) == Work(60, 30 + 12)
    assert work_of("GemmFloat8", [*inputs, None, ()], **options) == Work(60, 30 + 20)
    assert work_of("GemmFloat8", [*inputs, None, None, ()], **options) == Work(60, 30 + 15)


def test_an_activation_that_is_not_given_is_none() -> None:
    assert work_of("FusedMatMulActivation", [(3, 4), (4, 5)], domain=MS) == Work(60, 0)
    assert work_of("FusedGemm", [(3, 4), (4, 5), (5,)], domain=MS) == Work(60, 15)
    assert work_of("GemmFloat8", [(3, 4), (4, 5), (5,)], domain=MS) == Work(60, 15)


def test_a_vector_is_not_transposed() -> None:
    options = {"domain": MS, "transA": 1, "transBatchA": 1}
    assert work_of("FusedMatMul", [(4,), (4, 5)], **options) == Work(20, 0)


def test_qgemm() -> None:
    inputs = [(3, 4), (), (), (4, 5), (), (), (5,)]
    assert work_of("QGemm", inputs, domain=MS) == Work(60, 12 + 20 + 30)  # a float result is scaled
    assert work_of("QGemm", [*inputs, (), ()], domain=MS) == Work(60, 12 + 20 + 75)  # a quantized one, 4
    assert work_of("QGemm", [*inputs, ()], domain=MS) == Work(60, 12 + 20 + 60)  # without zero point, 3
    no_zero_points = [(3, 4), (), None, (4, 5), (), None]
    assert work_of("QGemm", no_zero_points, domain=MS) == Work(60, 15)
    assert work_of("QGemm", [*no_zero_points[:2], (), *no_zero_points[3:]], domain=MS) == Work(60, 12 + 15)
    assert work_of("QGemm", [*no_zero_points[:5], ()], domain=MS) == Work(60, 20 + 15)


def test_dynamic_quantization() -> None:
    inputs = [(3, 4), (4, 5), (), ()]
    # 12 elements of A: quantized (6) and less their zero point; 20 weights less theirs; scale, bias
    assert work_of("DynamicQuantizeMatMul", inputs, domain=MS) == Work(60, 84 + 20 + 15)
    assert work_of("DynamicQuantizeMatMul", [*inputs, (5,)], domain=MS) == Work(60, 84 + 20 + 30)
    inputs = [(3, 4), (4, 5), (), (), (), ()]
    assert work_of("MatMulIntegerToFloat", inputs, domain=MS) == Work(60, 12 + 20 + 15)
    assert work_of("MatMulIntegerToFloat", inputs[:5], domain=MS) == Work(60, 12 + 15)
    assert work_of("MatMulIntegerToFloat", [*inputs[:4], None, None, (5,)], domain=MS) == Work(60, 30)


def test_packed_weights() -> None:
    # 2 x 3 rows, K = 64, N = 16: 6144 MACs, 1024 weights, 96 results
    a = (2, 3, 64)
    sizes = {"domain": MS, "K": 64, "N": 16, "block_size": 32}
    packed, scales = (16, 2, 16), (16, 2)
    assert work_of("MatMulNBits", [a, packed, scales], bits=4, **sizes) == Work(6144, 2048)
    with_bias = [a, packed, scales, None, None, (16,)]
    assert work_of("MatMulNBits", with_bias, bits=4, **sizes) == Work(6144, 2048 + 96)
    assert count("MatMulNBits", [(2, 3, 65), packed, scales], bits=4, **sizes) is None
    assert work_of("MatMulBnb4", [a, (512,), (32,)], **sizes) == Work(6144, 1024)
    assert work_of("MatMulBnb4", [(2, 3, 16), (512,), (32,)], transB=0, **sizes) == Work(6144, 1024)
    shape = np.array([64, 16])
    assert work_of("MatMulFpQ4", [a, (640,), shape], domain=MS, blk_quant_type=0) == Work(6144, 1024)
    assert work_of("MatMulFpQ4", [a, (640,), shape], domain=MS, blk_quant_type=1) == Work(6144, 2048)
    assert work_of("MatMulFpQ4", [a, (640,), shape], domain=MS) == Work(6144, 2048)  # type 1 is the default
    assert count("MatMulFpQ4", [a, (640,), (2,)], domain=MS) is None  # the shape is data
    assert count("MatMulFpQ4", [a, (640,), np.array([64])], domain=MS) is None


def test_float8_and_float4_weights() -> None:
    a = (2, 3, 64)
    assert work_of("MatMulBlockQuantizedFp8Weight", [a, (16, 64), (16, 1)], domain=MS) == Work(6144, 1024)
    assert work_of("MatMulBlockQuantizedFp8Weight", [a, (16, 64), (16, 1), ()], domain=MS) == Work(6144, 1792)
    inputs = [a, (16, 64), (16, 1), (), (16,)]
    assert work_of("MatMulBlockQuantizedFp8Weight", inputs, domain=MS) == Work(6144, 1024 + 768 + 96)
    assert count("MatMulBlockQuantizedFp8Weight", [(), (16, 64), (16, 1)], domain=MS) is None
    inputs = [a, (16, 32), (16, 4), (), None, (16,)]
    assert work_of("MatMulBlockQuantizedFp4Weight", inputs, domain=MS) == Work(6144, 1024 + 96)


# 6 rows of K = 64; RMS normalisation: 4 x 384 + 3 x 6 = 1554. A product with N = 16: 6144 MACs, 96 results,
# 1024 weights to dequantize in 2.
ROWS = (2, 3, 64)


def test_fused_mlp() -> None:
    mlp = {"domain": MS, "K": 64, "N": 16, "activation": "silu"}
    packed, scales, bias = (16, 2, 16), (16, 2), (16,)
    plain = [ROWS, None, None, packed, scales, None, packed, scales]
    # per result SiLU (5) and the product (1)
    assert work_of("MatMulNBitsMlp", plain, **mlp) == Work(12_288, 4096 + 576)
    skipped = [ROWS, ROWS, (64,), packed, scales, None, packed, scales]
    assert work_of("MatMulNBitsMlp", skipped, **mlp) == Work(12_288, 4096 + 576 + 384 + 1554)
    biased = [ROWS, None, None, packed, scales, bias, packed, scales, bias]
    assert work_of("MatMulNBitsMlp", biased, **mlp) == Work(12_288, 4096 + 576 + 192)


def test_fused_query_key_value() -> None:
    qkv = {"domain": MS, "K": 64, "Nq": 16, "Nkv": 8}
    q, k = [(16, 2, 16), (16, 2)], [(8, 2, 16), (8, 2)]
    start = [ROWS, None, (64,)]
    # 32 columns: 12288 MACs and 2048 weights
    none = [*start, *q, None, *k, None, *k]
    assert work_of("MatMulNBitsQkv", none, **qkv) == Work(12_288, 4096 + 1554)
    # Each bias alone: 6 x 16, 6 x 8, 6 x 8.
    assert work_of("MatMulNBitsQkv", [*start, *q, (16,), *k, None, *k], **qkv) == Work(12_288, 5650 + 96)
    assert work_of("MatMulNBitsQkv", [*start, *q, None, *k, (8,), *k], **qkv) == Work(12_288, 5650 + 48)
    assert work_of("MatMulNBitsQkv", [*start, *q, None, *k, None, *k, (8,)], **qkv) == Work(12_288, 5650 + 48)


# 6 tokens of 8, 4 experts of inner size 16, two per token: 12 visits of 256 weights. Routing is 24 x (5 + 1),
# a visit 16 times the activation, and weighing and adding 8 results.
TOKENS, ROUTER, UP, DOWN = (2, 3, 8), (6, 4), (4, 16, 8), (4, 8, 16)


@pytest.mark.parametrize("tokens", [TOKENS, (6, 8)])
def test_mixture_of_experts(tokens: tuple[int, ...]) -> None:
    two = {"domain": MS, "k": 2}
    inputs = [tokens, ROUTER, UP, None, DOWN]
    assert work_of("MoE", inputs, **two) == Work(3072, 144 + 12 * 32)
    assert work_of("MoE", inputs, domain=MS) == Work(1536, 144 + 6 * 32)  # one expert per token
    assert work_of("MoE", inputs, activation_type="silu", **two) == Work(3072, 144 + 12 * (80 + 16))
    assert work_of("MoE", inputs, normalize_routing_weights=1, **two) == Work(3072, 144 + 24 + 12 * 32)
    # The biases are 16 and 8 wide.
    assert work_of("MoE", [tokens, ROUTER, UP, (4, 16), DOWN], **two) == Work(3072, 144 + 12 * 48)
    assert work_of("MoE", [tokens, ROUTER, UP, None, DOWN, (4, 8)], **two) == Work(3072, 144 + 12 * 40)


def test_gated_experts() -> None:
    two = {"domain": MS, "k": 2}
    inputs = [TOKENS, ROUTER, UP, None, DOWN, None, UP]
    # A third matrix gates the inner activations: 128 MACs more per visit, and a product each.
    assert work_of("MoE", inputs, **two) == Work(4608, 144 + 12 * 48)
    assert work_of("MoE", [*inputs, (4, 16)], **two) == Work(4608, 144 + 12 * 64)
    # SwiGLU takes 8 per inner element; fused, the first product is twice as wide as the inner size.
    swiglu = two | {"activation_type": "swiglu"}
    assert work_of("MoE", inputs, **swiglu) == Work(4608, 144 + 12 * (128 + 16))
    fused = [TOKENS, ROUTER, (4, 32, 8), None, DOWN]
    assert work_of("MoE", fused, swiglu_fusion=1, **swiglu) == Work(12 * 384, 144 + 12 * (128 + 16))


def test_quantized_mixture_of_experts() -> None:
    # 12 visits can hit all 4 experts, so 4 x 256 weights are dequantized.
    two = {"domain": MS, "k": 2}
    up, down = (4, 16, 4), (4, 8, 8)
    inputs = [(6, 8), ROUTER, up, (4, 16), None, down, (4, 8)]
    assert work_of("QMoE", inputs, **two) == Work(3072, 144 + 12 * 32 + 2048)
    biased = [(6, 8), ROUTER, up, (4, 16), (4, 16), down, (4, 8), (4, 8)]
    assert work_of("QMoE", biased, **two) == Work(3072, 144 + 12 * 56 + 2048)
    gated = [*inputs, None, up, (4, 16)]
    assert work_of("QMoE", gated, **two) == Work(4608, 144 + 12 * 48 + 3072)
    swiglu = two | {"activation_type": "swiglu"}
    assert work_of("QMoE", gated, **swiglu) == Work(4608, 144 + 12 * (128 + 16) + 3072)
    assert work_of("QMoE", [*gated, (4, 16)], **two) == Work(4608, 144 + 12 * 64 + 3072)
    # One token visits two experts at most; by default one.
    one = [(1, 8), (1, 4), *inputs[2:]]
    assert work_of("QMoE", one, **two) == Work(512, 24 + 2 * 32 + 1024)
    assert work_of("QMoE", one, domain=MS) == Work(256, 24 + 32 + 512)


def test_pairwise_distances() -> None:
    assert work_of("CDist", [(3, 4), (5, 4)], domain=MS, metric="sqeuclidean") == Work(0, 180)
    assert work_of("CDist", [(3, 4), (5, 4)], domain=MS, metric="euclidean") == Work(0, 195)
    assert count("CDist", [(3, 4), (5, 4)], domain=MS, metric="jaccard") is None


def test_packed_weights_of_onnxruntime_132() -> None:
    # 2 x 3 rows, K = 64, N = 16: 6144 MACs, 1024 weights, 96 results
    a, blob = (2, 3, 64), (16, 40)
    sizes = {"domain": MS, "K": 64, "N": 16}
    assert work_of("MatMulPacked", [a, blob], **sizes) == Work(6144, 1024)
    assert work_of("MatMulPacked", [a, blob, ()], activation_type="silu", **sizes) == Work(
        6144, 1024 + 96 * 6
    )
    assert work_of("MatMulPacked", [a, blob], activation_type="relu2", **sizes) == Work(6144, 1024 + 96 * 2)
    assert count("MatMulPacked", [a, blob], activation_type="unheard", **sizes) is None
    assert count("MatMulPacked", [(2, 65), blob], **sizes) is None
    # An adapter of rank 8: 6 rows x 8 x (64 + 16) more, its 640 weights, and the sum of 96 results.
    packed, scales = (16, 2, 16), (16, 2)
    down, up = [(8, 2, 32), (8, 2)], [(16, 1, 32), (16, 1)]
    whole = [a, packed, scales, *down, *up]
    assert work_of("MatMulNBitsQLoRA", whole, **sizes) == Work(6144 + 3840, 2048 + 1280 + 96)
    bare = [a, packed, scales, *down, (16, 0, 32), (16, 1)]
    assert work_of("MatMulNBitsQLoRA", bare, **sizes) == Work(6144, 2048)


def test_gated_halves() -> None:
    # Swish of alpha 1 is 5 a result, of another alpha 6; then the product.
    two = [(3, 8), (3, 8)]
    assert work_of("SwiGLU", two, domain=MS) == Work(0, 24 * 6)
    assert work_of("SwiGLU", [(3, 16)], domain=MS) == Work(0, 24 * 6)
    rich = {"activation_alpha": 1.702, "activation_beta": 1.0, "limit": 7.0}
    assert work_of("SwiGLU", two, domain=MS, **rich) == Work(0, 24 * (3 + 6 + 1 + 1))
    # 5 rows, K = 8, a router of 4 and halves of 6.
    product = [(5, 8), (8, 16)]
    assert work_of("RouterGateUpProj", product, domain=MS, router_size=4) == Work(640, 5 * 6 * 6)
    assert count("RouterGateUpProj", product, domain=MS, router_size=5) is None
    assert count("RouterGateUpProj", [(5, 7), (8, 16)], domain=MS, router_size=4) is None
