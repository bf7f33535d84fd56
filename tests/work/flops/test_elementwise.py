from __future__ import annotations

import numpy as np
import pytest

from dnnsplit_onnx.work.flops import Work
from tests.work.flops.counting import MS, count, elementwise, work_of

# Operations per element of every unary operator, written out by hand.
UNARY = {
    "Abs": 1, "Acos": 1, "Acosh": 1, "Asin": 1, "Asinh": 1, "Atan": 1, "Atanh": 1, "BitwiseNot": 1, "Ceil": 1,
    "Cos": 1, "Cosh": 1, "Erf": 1, "Exp": 1, "Floor": 1, "IsInf": 1, "IsNaN": 1, "Log": 1, "Neg": 1, "Not": 1,
    "Reciprocal": 1, "Round": 1, "Sign": 1, "Sin": 1, "Sinh": 1, "Sqrt": 1, "Tan": 1, "Tanh": 1,
    "Relu": 1, "ThresholdedRelu": 1, "LeakyRelu": 2, "Elu": 4, "Selu": 5, "Celu": 7, "Sigmoid": 4,
    "HardSigmoid": 4, "HardSwish": 5, "Softplus": 3, "Softsign": 3, "Mish": 5, "Shrink": 3, "Gelu": 5,
    "Swish": 5, "Clip": 0, "Sum": 0, "Max": 0, "Min": 0, "Mean": 1,
}  # fmt: skip


@pytest.mark.parametrize(("op_type", "per_element"), UNARY.items())
def test_unary(op_type: str, per_element: int) -> None:
    assert work_of(op_type, [(2, 3, 4)], [(2, 3, 4)]) == Work(macs=0, elementwise=24 * per_element)


BINARY = [
    "Add", "Sub", "Mul", "Div", "Pow", "Mod", "And", "Or", "Xor", "Equal", "Greater", "Less",
    "GreaterOrEqual", "LessOrEqual", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor",
]  # fmt: skip


@pytest.mark.parametrize("op_type", BINARY)
def test_binary_counts_the_broadcast_result(op_type: str) -> None:
    assert elementwise(op_type, [(2, 1, 4), (3, 1)], [(2, 3, 4)]) == 24


def test_unknown_output_is_the_broadcast_of_the_inputs() -> None:
    assert elementwise("Add", [(2, 1, 4), (3, 1)], ["?"]) == 24
    assert count("Add", [(2, 3), (4,)], ["?"]) is None  # does not broadcast: not a valid node
    assert count("Add", [(2, 3), "?"], ["?"]) is None


def test_scalars_and_empty_tensors() -> None:
    assert elementwise("Add", [(), ()], [()]) == 1
    assert elementwise("Relu", [(0, 7)], [(0, 7)]) == 0


def test_where_chooses_once_per_element() -> None:
    assert elementwise("Where", [(4, 1), (4, 5), ()], [(4, 5)]) == 20


@pytest.mark.parametrize(("op_type", "operations"), [("Sum", 40), ("Max", 40), ("Min", 40), ("Mean", 60)])
def test_variadic(op_type: str, operations: int) -> None:
    # Three operands of 20 elements: two additions each, and the division of the mean.
    assert elementwise(op_type, [(4, 5), (4, 5), (5,)], [(4, 5)]) == operations


def test_clip_counts_the_bounds_that_are_given() -> None:
    assert elementwise("Clip", [(10,), (), ()], [(10,)]) == 20
    assert elementwise("Clip", [(10,), None, ()], [(10,)]) == 10
    assert elementwise("Clip", [(10,)], [(10,)], opset=6, min=0.0, max=6.0) == 20
    assert elementwise("Clip", [(10,)], [(10,)], opset=6, max=6.0) == 10


def test_parametrised_activations() -> None:
    assert elementwise("Gelu", [(10,)], approximate="tanh") == 80
    assert elementwise("Swish", [(10,)], alpha=1.5) == 60
    assert elementwise("SwiGLU", [(10,), (10,)]) == 60
    assert elementwise("SwiGLU", [(10,), (10,)], alpha=1.5) == 70
    assert elementwise("PRelu", [(2, 3, 4), (3, 1)]) == 48


def test_range() -> None:
    assert elementwise("Range", [(), (), ()], [(12,)]) == 24
    assert elementwise("Range", [(), (), ()], [(12,)], domain=MS) == 24
    assert count("Range", [(), (), ()], ["?"]) is None


def test_dropout_is_free_at_inference() -> None:
    assert elementwise("Dropout", [(8,)]) == 0
    assert elementwise("Dropout", [(8,), (), np.array(False)]) == 0
    assert elementwise("Dropout", [(8,)], opset=7) == 0
    assert elementwise("Dropout", [(8,)], opset=6, is_test=1) == 0


def test_dropout_in_training() -> None:
    assert elementwise("Dropout", [(8,), (), np.array(True)]) == 32
    assert elementwise("Dropout", [(8,), (), np.array(True)], opset=12) == 32
    assert elementwise("Dropout", [(8,)], opset=6) == 32
    assert count("Dropout", [(8,), (), ()]) is None  # the mode is data


@pytest.mark.parametrize(
    ("op_type", "inputs", "operations"),
    [
        ("FastGelu", [(6, 4)], 24 * 8),
        ("FastGelu", [(6, 4), (4,)], 24 * 9),
        ("BiasGelu", [(6, 4), (4,)], 24 * 6),
        ("Gelu", [(6, 4)], 24 * 5),
        ("QuickGelu", [(6, 4)], 24 * 6),
        ("ScaledSiLU", [(6, 4)], 24 * 6),
        ("BiasAdd", [(6, 4), (4,), (6, 4)], 24 * 2),
        ("GatedAdd", [(6, 4), (6, 4), (6, 1)], 24 * 2),
        ("BiasSoftmax", [(6, 4), (4,)], 24 * 6),
        ("BiasSplitGelu", [(6, 4), (4,)], 24 + 12 * 6),
        ("ComplexMul", [(6, 2), (6, 2)], 36),
        ("IsAllFinite", [(6, 4), (3,)], 27),
    ],
)
def test_com_microsoft(op_type: str, inputs: list[tuple[int, ...]], operations: int) -> None:
    # onnx infers nothing about these operators, so their outputs are unknown.
    assert elementwise(op_type, inputs, ["?"], domain=MS) == operations


def test_bias_dropout() -> None:
    assert elementwise("BiasDropout", [(6, 4), (4,), (6, 4)], domain=MS) == 48
    assert elementwise("BiasDropout", [(6, 4), (4,), None, (), np.array(True)], domain=MS) == 120
    assert elementwise("BitmaskDropout", [(6, 4), (), np.array(True)], domain=MS) == 96


@pytest.mark.parametrize(
    ("op_type", "operations"), [("RandomNormal", 36), ("RandomUniformLike", 36), ("Bernoulli", 24)]
)
def test_random(op_type: str, operations: int) -> None:
    assert elementwise(op_type, [(3, 4)], [(3, 4)]) == operations


def test_multinomial() -> None:
    # 2 rows x (exp, sum, divide of 10 classes + 5 samples x (a draw + 10 comparisons))
    assert elementwise("Multinomial", [(2, 10)], [(2, 5)], sample_size=5) == 170
