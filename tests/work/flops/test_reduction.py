from __future__ import annotations

import numpy as np
import pytest

from dnnsplit_onnx.work.flops import Work
from tests.work.flops.counting import MS, count, elementwise, work_of

# (2, 3, 4) -> (2, 4): 24 in, 8 out.
REDUCTIONS = {
    "ReduceSum": 24,
    "ReduceProd": 24,
    "ReduceMax": 24,
    "ReduceMin": 24,
    "ReduceMean": 32,
    "ReduceL1": 48,
    "ReduceL2": 56,
    "ReduceSumSquare": 48,
    "ReduceLogSum": 32,
    "ReduceLogSumExp": 56,
}


@pytest.mark.parametrize(("op_type", "operations"), REDUCTIONS.items())
def test_axes_as_attribute_or_input(op_type: str, operations: int) -> None:
    assert elementwise(op_type, [(2, 3, 4)], [(2, 4)], opset=11, axes=[1], keepdims=0) == operations
    assert elementwise(op_type, [(2, 3, 4), np.array([1])], [(2, 1, 4)], opset=18) == operations


def test_all_axes_by_default() -> None:
    assert elementwise("ReduceMean", [(2, 3, 4)], [()], keepdims=0) == 25


# With no axes nothing is folded; what happens to each element remains.
@pytest.mark.parametrize(
    ("op_type", "operations"),
    [("ReduceSum", 0), ("ReduceMean", 0), ("ReduceSumSquare", 24), ("ReduceL2", 48), ("ReduceLogSum", 24)],
)
def test_no_axes(op_type: str, operations: int) -> None:
    options = {"noop_with_empty_axes": 1}
    assert elementwise(op_type, [(2, 3, 4)], [(2, 3, 4)], **options) == operations
    assert elementwise(op_type, [(2, 3, 4), np.array([], np.int64)], [(2, 3, 4)], **options) == operations


def test_sums_need_no_result_shape_and_means_do() -> None:
    assert elementwise("ReduceSum", [(2, 3, 4)], ["?"]) == 24
    assert count("ReduceMean", [(2, 3, 4)], ["?"]) is None


@pytest.mark.parametrize("op_type", ["ArgMax", "ArgMin", "CumSum", "CumProd", "Hardmax", "NonZero"])
def test_one_per_input_element(op_type: str) -> None:
    assert elementwise(op_type, [(2, 3, 4)]) == 24


def test_integer_sum() -> None:
    assert elementwise("ReduceSumInteger", [(2, 3, 4)], domain=MS, axes=[1]) == 24


def test_softmax() -> None:
    # The 2-D coercion before opset 13 does not change the count.
    assert elementwise("Softmax", [(2, 3, 4)], [(2, 3, 4)], opset=11, axis=1) == 120
    assert elementwise("Softmax", [(2, 3, 4)], [(2, 3, 4)], opset=13, axis=1) == 120


@pytest.mark.parametrize(
    ("opset", "options", "rows"),
    [(11, {}, 2), (11, {"axis": 2}, 6), (13, {}, 6), (13, {"axis": 1}, 8), (13, {"axis": 0}, 12)],
)
def test_log_softmax_takes_a_log_per_row(opset: int, options: dict[str, int], rows: int) -> None:
    assert elementwise("LogSoftmax", [(2, 3, 4)], opset=opset, **options) == 120 + rows


def test_losses() -> None:
    # 5 targets of 7 classes. Negate 5, sum 5, divide once; weights: weigh 5, sum 5 of them.
    nll = "NegativeLogLikelihoodLoss"
    assert elementwise(nll, [(5, 7), (5,)]) == 11
    assert elementwise(nll, [(5, 7), (5,), (7,)]) == 21
    assert elementwise(nll, [(5, 7), (5,)], reduction="sum") == 10
    assert elementwise(nll, [(5, 7), (5,)], reduction="none") == 5
    # LogSoftmax: 5 x 35 and a log for each of 5 rows.
    assert elementwise("SoftmaxCrossEntropyLoss", [(5, 7), (5,)]) == 180 + 11


def test_resnet_head() -> None:
    assert work_of("ReduceMean", [(1, 2048, 7, 7)], [(1, 2048, 1, 1)], axes=[2, 3], opset=13) == Work(
        0, 102400
    )
