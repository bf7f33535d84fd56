from __future__ import annotations

import pytest

from dnnsplit_onnx.work.flops import Work
from tests.work.flops.counting import MS, count, work_of


@pytest.mark.parametrize(
    ("x", "w", "y", "macs"),
    [
        # The stem of ResNet50: 64 x 112 x 112 results of 3 x 7 x 7 taps.
        ((1, 3, 224, 224), (64, 3, 7, 7), (1, 64, 112, 112), 118_013_952),
        # Depthwise, of MobileNet: 32 x 112 x 112 results of 9 taps.
        ((1, 32, 112, 112), (32, 1, 3, 3), (1, 32, 112, 112), 3_612_672),
        # Two groups, of AlexNet: 256 x 26 x 26 results of 48 x 5 x 5 taps.
        ((1, 96, 26, 26), (256, 48, 5, 5), (1, 256, 26, 26), 207_667_200),
        # 1-D, a batch of 2: 2 x 8 x 98 results of 4 x 3 taps.
        ((2, 4, 100), (8, 4, 3), (2, 8, 98), 18_816),
        # 3-D: 16 x 8 x 8 x 8 results of 3 x 27 taps.
        ((1, 3, 8, 8, 8), (16, 3, 3, 3, 3), (1, 16, 8, 8, 8), 663_552),
        ((0, 4, 100), (8, 4, 3), (0, 8, 98), 0),
    ],
)
def test_conv(x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...], macs: int) -> None:
    assert work_of("Conv", [x, w], [y]) == Work(macs, 0)


def test_bias_is_elementwise() -> None:
    assert work_of("Conv", [(2, 4, 100), (8, 4, 3), (8,)], [(2, 8, 98)]) == Work(18_816, 1568)


def test_unknown_shapes() -> None:
    assert count("Conv", [(2, 4, 100), (8, 4, 3)], ["?"]) is None
    assert count("Conv", [(2, 4, 100), "?"], [(2, 8, 98)]) is None
    assert count("Conv", [(2, 4), (8, 4)], [(2, 8)]) is None


def test_conv_transpose() -> None:
    # Each of 8 x 7 x 7 input elements meets 16 x 4 x 4 weights.
    x, w, y = (1, 8, 7, 7), (8, 16, 4, 4), (1, 16, 14, 14)
    assert work_of("ConvTranspose", [x, w], [y]) == Work(100_352, 0)
    assert work_of("ConvTranspose", [x, w, (16,)], [y]) == Work(100_352, 3136)
    # Two groups: a filter holds 16 of the 32 output channels.
    assert work_of("ConvTranspose", [x, w], [(1, 32, 14, 14)], group=2) == Work(100_352, 0)
    assert work_of("ConvTransposeWithDynamicPads", [x, w, (4,), (16,)], [y], domain=MS) == Work(100_352, 3136)


X, W, Y = (1, 3, 8, 8), (4, 3, 3, 3), (1, 4, 6, 6)  # 192, 108, 144 elements; 144 x 27 = 3888 MACs


def test_conv_integer() -> None:
    assert work_of("ConvInteger", [X, W], [Y]) == Work(3888, 0)
    assert work_of("ConvInteger", [X, W, ()], [Y]) == Work(3888, 192)
    assert work_of("ConvInteger", [X, W, (), (4,)], [Y]) == Work(3888, 300)


def test_qlinear_conv_without_zero_points() -> None:
    inputs = [X, (), None, W, (4,), None, (), ()]
    assert work_of("QLinearConv", inputs, [Y]) == Work(3888, 576)
    assert work_of("QLinearConv", [X, (), (), W, (4,), None, (), ()], [Y]) == Work(3888, 192 + 576)
    assert work_of("QLinearConv", [X, (), None, W, (4,), (4,), (), ()], [Y]) == Work(3888, 108 + 576)


def test_qlinear_conv() -> None:
    inputs = [X, (), (), W, (4,), (4,), (), ()]
    # zero points off x and w, four operations to requantize each result, and the bias
    assert work_of("QLinearConv", inputs, [Y]) == Work(3888, 300 + 576)
    assert work_of("QLinearConv", [*inputs, (4,)], [Y]) == Work(3888, 300 + 576 + 144)
    assert work_of("QLinearConv", inputs, [(1, 6, 6, 4)], domain=MS, channels_last=1) == Work(3888, 876)


def test_deform_conv() -> None:
    # 3 channels x 9 taps x 36 positions = 972 samples of 8 operations; 2 x 9 x 36 = 648 offsets
    offset, mask = (1, 18, 6, 6), (1, 9, 6, 6)
    assert work_of("DeformConv", [X, W, offset], [Y]) == Work(3888, 7776 + 648)
    assert work_of("DeformConv", [X, W, offset, (4,)], [Y]) == Work(3888, 7776 + 648 + 144)
    assert work_of("DeformConv", [X, W, offset, (4,), mask], [Y]) == Work(3888, 7776 + 648 + 972 + 144)
    # A sample lies between 2 neighbours on a line, and between 8 in space.
    line = [(1, 3, 8), (4, 3, 3), (1, 3, 6)]
    assert work_of("DeformConv", line, [(1, 4, 6)]) == Work(216, 3 * 3 * 6 * 4 + 18)
    space = [(1, 1, 3, 3, 3), (1, 1, 2, 2, 2), (1, 24, 2, 2, 2)]
    assert work_of("DeformConv", space, [(1, 1, 2, 2, 2)]) == Work(64, 8 * 8 * 16 + 192)


@pytest.mark.parametrize(
    ("activation", "operations"),
    [
        *[("Relu", 1), ("Sigmoid", 4), ("Clip", 2), ("LeakyRelu", 2), ("Tanh", 1), ("HardSigmoid", 4)],
        *[("Gelu", 5), ("Silu", 5), ("Swish", 5), ("Identity", 0), ("None", 0)],
    ],
)
def test_fused_conv(activation: str, operations: int) -> None:
    options = {"domain": MS, "activation": activation}
    assert work_of("FusedConv", [X, W, (4,)], [Y], **options) == Work(3888, 144 * (1 + operations))
    # The residual Z is added before the activation.
    assert work_of("FusedConv", [X, W, (4,), Y], [Y], **options) == Work(3888, 144 * (2 + operations))
    assert work_of("FusedConv", [X, W, (4,)], [Y], domain=MS) == Work(3888, 144)
    y = (1, 6, 6, 4)
    assert work_of("NhwcFusedConv", [(1, 8, 8, 3), W, (4,), y], [y], **options) == Work(
        3888, 144 * (2 + operations)
    )


def test_unknown_activation() -> None:
    assert work_of("FusedConv", [X, W], [Y], domain=MS) == Work(3888, 0)  # none is no activation
    assert count("FusedConv", [X, W], [Y], domain=MS, activation="Mystery") is None


def test_nhwc_conv() -> None:
    assert work_of("NhwcConv", [(1, 8, 8, 3), W], [(1, 6, 6, 4)], domain=MS) == Work(3888, 0)


@pytest.mark.parametrize("domain", ["", MS])
def test_causal_conv_with_state(domain: str) -> None:
    inputs = [(2, 6, 10), (6, 1, 4)]
    assert work_of("CausalConvWithState", inputs, domain=domain) == Work(480, 0)
    options = {"domain": domain, "activation": "silu"}
    assert work_of("CausalConvWithState", [*inputs, (6,)], **options) == Work(480, 120 * 6)
