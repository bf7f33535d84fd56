"""Reductions, cumulative operators, softmax and losses.

A reduction folds every input element into an accumulator: one operation per *input* element. What the
operator does to an element before (abs, square, exp) and to a result after (divide, sqrt, log) counts
one each.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from dnnsplit_onnx.work.flops.registry import MICROSOFT, register
from dnnsplit_onnx.work.flops.view import NodeView, Shape, axis_of
from dnnsplit_onnx.work.flops.work import Work


class _Steps(NamedTuple):
    """Operations per input element before folding, and per output element after it."""

    before: int
    after: int


_REDUCTIONS = {
    "ReduceSum": _Steps(0, 0),
    "ReduceProd": _Steps(0, 0),
    "ReduceMax": _Steps(0, 0),
    "ReduceMin": _Steps(0, 0),
    "ReduceMean": _Steps(0, 1),  # divide
    "ReduceL1": _Steps(1, 0),  # abs
    "ReduceL2": _Steps(1, 1),  # square, sqrt
    "ReduceSumSquare": _Steps(1, 0),  # square
    "ReduceLogSum": _Steps(0, 1),  # log
    "ReduceLogSumExp": _Steps(1, 1),  # exp, log
}


@register(*_REDUCTIONS)
def reduce(node: NodeView) -> Work:
    """ReduceX: (1 + before) per input element and `after` per output element, as in the table.

    So ReduceSum is n_in, ReduceMean n_in + n_out, ReduceL2 2 n_in + n_out. With empty axes and
    `noop_with_empty_axes` nothing is folded (nor divided by a count); the other steps remain.
    """
    steps = _REDUCTIONS[node.node.op_type]
    n_in = node.input_size(0)
    if _keeps_all_axes(node):
        after = 0 if node.node.op_type == "ReduceMean" else steps.after
        return Work(elementwise=(steps.before + after) * n_in)
    n_out = node.output_size() if steps.after else 0
    return Work(elementwise=(1 + steps.before) * n_in + steps.after * n_out)


def _keeps_all_axes(node: NodeView) -> bool:
    if not node.int_attribute("noop_with_empty_axes", 0) or node.ints_attribute("axes"):
        return False
    if not node.has_input(1):
        return True
    axes = node.constant(1)
    return axes is not None and axes.size == 0


@register("ReduceSumInteger", domain=MICROSOFT)
@register("ArgMax", "ArgMin", "CumSum", "CumProd", "Hardmax", "NonZero")
def per_input(node: NodeView) -> Work:
    """ArgMax, ArgMin, Hardmax, NonZero (comparisons), CumSum, CumProd: one per input element."""
    return Work(elementwise=node.input_size(0))


SOFTMAX = 5  # max, subtract, exp, sum, divide


@register("Softmax")
def softmax(node: NodeView) -> Work:
    """Softmax: 5 per element (max, subtract, exp, sum, divide), whatever the axis and opset."""
    return Work(elementwise=SOFTMAX * node.elements())


@register("LogSoftmax")
def log_softmax(node: NodeView) -> Work:
    """LogSoftmax: 5 per element (max, subtract, exp, sum, subtract) and a log per row.

    Before opset 13 the input is a matrix, its columns the dimensions from `axis` (default 1) on.
    """
    shape = node.input_shape(0)
    if node.opset < 13:
        rows = prod(shape[: axis_of(shape, node.int_attribute("axis", 1))])
    else:
        rows = _lanes(shape, node.int_attribute("axis", -1))
    return Work(elementwise=5 * prod(shape) + rows)


def _lanes(shape: Shape, axis: int) -> int:
    """How many vectors lie along an axis."""
    axis = axis_of(shape, axis)
    return prod(shape[:axis]) * prod(shape[axis + 1 :])


@register("NegativeLogLikelihoodLoss")
def negative_log_likelihood(node: NodeView) -> Work:
    """NegativeLogLikelihoodLoss over t targets: negate each, weigh each if there are weights, reduce.

    The reduction is t for a sum; a mean also sums the weights, if any, and divides once.
    """
    return Work(elementwise=_likelihood(node, targets=1, weights=2))


@register("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(node: NodeView) -> Work:
    """SoftmaxCrossEntropyLoss: LogSoftmax over axis 1, then NegativeLogLikelihoodLoss."""
    shape = node.input_shape(0)
    log_softmax = 5 * prod(shape) + _lanes(shape, 1)
    return Work(elementwise=log_softmax + _likelihood(node, targets=1, weights=2))


def _likelihood(node: NodeView, *, targets: int, weights: int) -> int:
    t = node.input_size(targets)
    weighted = node.has_input(weights)
    count = t * (1 + weighted)
    reduction = node.text_attribute("reduction", "mean")
    if reduction == "sum":
        count += t
    elif reduction == "mean":
        count += t * (1 + weighted) + 1
    return count
