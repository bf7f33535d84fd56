from __future__ import annotations

import pytest

from tests.work.flops.counting import MS, count, elementwise

X = (2, 6, 4, 5)  # 240 elements
SCALE = (6,)
BATCH_NORM = [X, SCALE, SCALE, SCALE, SCALE]


def test_batch_normalization_at_inference_is_a_scale_and_a_shift() -> None:
    assert elementwise("BatchNormalization", BATCH_NORM, [X], opset=15) == 480
    assert elementwise("BatchNormalization", BATCH_NORM, [X], opset=9) == 480
    assert elementwise("BatchNormalization", BATCH_NORM, [X], opset=8, spatial=1) == 480
    assert elementwise("BatchNormalization", BATCH_NORM, [X], opset=6, is_test=1) == 480


def test_batch_normalization_in_training() -> None:
    # 7 x 240 + 10 x 6 channels
    outputs = [X, SCALE, SCALE]
    assert elementwise("BatchNormalization", BATCH_NORM, outputs, opset=15, training_mode=1) == 1740
    assert elementwise("BatchNormalization", BATCH_NORM, [X, SCALE, SCALE, SCALE, SCALE], opset=8) == 1740
    assert elementwise("BatchNormalization", BATCH_NORM, [X], opset=6) == 1740
    assert elementwise("BatchNormalization", BATCH_NORM, outputs, opset=14, training_mode=1) == 1740


@pytest.mark.parametrize("opset", [7, 9, 13, 14])
def test_batch_normalization_infers_by_default(opset: int) -> None:
    assert elementwise("BatchNormalization", BATCH_NORM, [X], opset=opset) == 480


def test_instance_normalization() -> None:
    # 12 groups: 7 x 240 + 4 x 12
    assert elementwise("InstanceNormalization", [X, SCALE, SCALE]) == 1728


@pytest.mark.parametrize(("opset", "scale"), [(18, (3,)), (21, (6,))])
def test_group_normalization(opset: int, scale: tuple[int]) -> None:
    # 3 groups in each of 2 images: 7 x 240 + 4 x 6
    assert elementwise("GroupNormalization", [X, scale, scale], opset=opset, num_groups=3) == 1704
    assert count("GroupNormalization", [X, scale, scale], opset=opset) is None  # num_groups is missing


def test_layer_normalization() -> None:
    # 48 rows of 5: 5 x 240 + 4 x 48, scale 240, shift 240
    assert elementwise("LayerNormalization", [X, (5,), (5,)]) == 1872
    assert elementwise("LayerNormalization", [X, (5,)]) == 1632
    # 12 rows of 20
    assert elementwise("LayerNormalization", [X, (4, 5), (4, 5)], axis=2) == 1728
    assert count("LayerNormalization", [X, (5,)], axis=4) is None


@pytest.mark.parametrize("op_type", ["RMSNormalization", "SimplifiedLayerNormalization"])
def test_rms_normalization(op_type: str) -> None:
    assert elementwise(op_type, [X, (5,)]) == 4 * 240 + 3 * 48


def test_mean_variance_normalization() -> None:
    # Per channel: 6 groups; per image and channel: 12.
    assert elementwise("MeanVarianceNormalization", [X]) == 1200 + 24
    assert elementwise("MeanVarianceNormalization", [X], axes=[2, 3]) == 1200 + 48


def test_lp_normalization() -> None:
    assert elementwise("LpNormalization", [X]) == 720 + 48
    assert elementwise("LpNormalization", [X], axis=1) == 720 + 40
    assert elementwise("LpNormalization", [X], p=1) == 720


def test_lrn() -> None:
    assert elementwise("LRN", [X], [X], size=5) == 2400


def test_skip_layer_normalization() -> None:
    tokens, row = (2, 3, 8), (8,)  # 48 elements in 6 rows
    packed, shared = (6, 8), (1, 3, 8)
    skip = "SkipLayerNormalization"
    assert elementwise(skip, [tokens, tokens, row], domain=MS) == 48 + 240 + 24 + 48
    assert elementwise(skip, [tokens, tokens, row, row], domain=MS) == 48 + 240 + 24 + 96
    assert elementwise(skip, [tokens, tokens, row, row, row], domain=MS) == 96 + 240 + 24 + 96
    assert elementwise(skip, [tokens, shared, row], domain=MS) == 48 + 240 + 24 + 48
    assert elementwise(skip, [packed, packed, row], domain=MS) == 48 + 240 + 24 + 48
    simplified = "SkipSimplifiedLayerNormalization"
    assert elementwise(simplified, [packed, packed, row], domain=MS) == 48 + 144 + 18 + 48
    assert elementwise(simplified, [tokens, shared, row], domain=MS) == 48 + 144 + 18 + 48
    assert elementwise(simplified, [tokens, tokens, row], domain=MS) == 48 + 144 + 18 + 48
    assert elementwise(simplified, [tokens, tokens, row, row], domain=MS) == 96 + 144 + 18 + 48


def test_embed_layer_normalization() -> None:
    ids, words, positions, segments, row = (2, 3), (100, 8), (16, 8), (2, 8), (8,)
    # 48 elements in 6 rows: two additions, 7 x 48 + 4 x 6; the mask has 6 elements
    inputs = [ids, ids, words, positions, segments, row, row]
    assert elementwise("EmbedLayerNormalization", inputs, domain=MS) == 96 + 336 + 24
    assert elementwise("EmbedLayerNormalization", [*inputs, ids], domain=MS) == 96 + 336 + 24 + 6
    inputs = [ids, None, words, positions, None, row, row]
    assert elementwise("EmbedLayerNormalization", inputs, domain=MS) == 48 + 336 + 24
    # Three embeddings of 48 elements, gamma and beta: dequantized in 2 each.
    inputs = [ids, ids, words, positions, segments, row, row]
    assert elementwise("QEmbedLayerNormalization", inputs, domain=MS) == 96 + 336 + 24 + 2 * (144 + 16)
    inputs = [ids, None, words, positions, None, row, row]
    assert elementwise("QEmbedLayerNormalization", inputs, domain=MS) == 48 + 336 + 24 + 2 * (96 + 16)


def test_group_norm() -> None:
    image, row = (2, 4, 5, 6), (6,)  # channels last
    assert elementwise("GroupNorm", [image, row, row], domain=MS, groups=3) == 1680 + 24
    assert elementwise("GroupNorm", [image, row, row], domain=MS, groups=3, activation=1) == 1680 + 24 + 1200
    assert count("GroupNorm", [(), row, row], domain=MS, groups=3) is None
    inputs = [image, row, row, image, row]
    assert elementwise("SkipGroupNorm", inputs, domain=MS, groups=3) == 480 + 1680 + 24
    assert elementwise("SkipGroupNorm", inputs[:4], domain=MS, groups=3) == 240 + 1680 + 24


def test_gated_rms_norm() -> None:
    # 3 groups of 4 in 5 rows: 3 x 60 + 3 x 15; scale, gate product and SiLU of the gate: 7 x 60
    assert elementwise("GatedRMSNorm", [(5, 12), (4,), (5, 12)], domain=MS) == 225 + 420


def test_optimisers() -> None:
    training = "ai.onnx.preview.training"
    rate, step, one, two = (), (), (10,), (4, 5)
    three_each = [rate, step, one, two, one, two, one, two]
    assert elementwise("Adagrad", [rate, step, one, one, one], domain=training) == 90
    assert elementwise("Momentum", three_each, domain=training, mode="standard") == 210
    assert elementwise("Momentum", three_each, domain=training, mode="nesterov") == 270
    assert elementwise("Adagrad", three_each, domain=training) == 270
    assert elementwise("Adam", [*three_each, one, two], domain=training) == 450
    assert count("Adam", three_each, domain=training) is None  # a state is missing


def test_batch_normalization_reads_the_size_of_its_input() -> None:
    assert elementwise("BatchNormalization", BATCH_NORM, ["?"]) == 480
    assert count("BatchNormalization", ["?", SCALE, SCALE, SCALE, SCALE], ["?"]) is None
