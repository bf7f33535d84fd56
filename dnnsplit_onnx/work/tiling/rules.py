"""Each operator's rule: along which axis its output's rows lie, and what they read.

An operator without a rule here ends a region of tiles: its outputs depend on all rows
(global pools, Flatten, attention), or nobody has shown that they do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dnnsplit_onnx.work.tiling.rows import Motion, Window
from dnnsplit_onnx.work.tiling.view import Dims, RowView

#: Given a node, an input and the axis of the rows of that input: the axis of the rows of the
#: outputs. None if the rows are mixed, or if the operator does not read that input by rows.
Carry = Callable[[RowView, int, int], int | None]

MICROSOFT = "com.microsoft"


def _row_by_row(node: RowView, axis: int) -> Motion | None:  # noqa: ARG001
    return Window()


def _no_seed(node: RowView, dimension: int) -> int | None:  # noqa: ARG001
    return None


@dataclass(frozen=True, slots=True)
class Rule:
    """How an operator handles rows.

    Attributes:
        carry: Where rows go.
        motion: What rows of the outputs read of an input whose rows lie along an axis.
        seed: For a spatial dimension (0 height, 1 width), the axis of input 0 that it is,
            where the operator itself says so.
    """

    carry: Carry
    motion: Callable[[RowView, int], Motion | None] = _row_by_row
    seed: Callable[[RowView, int], int | None] = _no_seed


RULES: dict[tuple[str, str], Rule] = {}


def add_rule(rule: Rule, *op_types: str, domain: str = "") -> None:
    """Gives operators of a domain their rule."""
    RULES.update({(domain, op_type): rule for op_type in op_types})


def aligned(node: RowView, index: int, axis: int) -> int | None:
    """Broadcasting: axes are counted from the last; a dimension of one has no rows."""
    dims, result = node.dims(index), node.result_dims()
    if dims is None or result is None:
        return None
    at = axis + len(result) - len(dims)
    if at < 0 or (dims[axis] == 1 and result[at] != 1):
        return None
    if node.opset < 7 and not node.node.domain and node.attribute("broadcast") is not None:
        return None  # aligned by attributes, in a way of its own
    return at


def _only(*indices: int) -> Callable[[Carry], Carry]:
    """Inputs that are read by rows; all others are read whole."""

    def restrict(carry: Carry) -> Carry:
        return lambda node, index, axis: carry(node, index, axis) if index in indices else None

    return restrict


def _barring(bars: Callable[[RowView, int], tuple[int, ...] | None]) -> Carry:
    """Aligned, unless the rows lie along an axis that the operator works along.

    Args:
        bars: Those axes, given the node and the rank of input 0; None if unknown.
    """

    def carry(node: RowView, index: int, axis: int) -> int | None:
        dims = node.dims(0)
        barred = None if dims is None else bars(node, len(dims))
        return None if barred is None or axis in barred else aligned(node, index, axis)

    return carry


def _along(name: str, default: int) -> Callable[[RowView, int], tuple[int, ...]]:
    """The one axis of an attribute."""
    return lambda node, rank: (node.int_attribute(name, default) % rank,)


def _softmax(node: RowView, rank: int) -> tuple[int, ...]:
    if node.opset >= 13:
        return (node.int_attribute("axis", -1) % rank,)
    return tuple(range(node.int_attribute("axis", 1) % rank, rank))  # once it saw a matrix


def _normalised(node: RowView, rank: int) -> tuple[int, ...]:
    return tuple(range(node.int_attribute("axis", -1) % rank, rank))


def _batch_norm(node: RowView, rank: int) -> tuple[int, ...] | None:
    trains = node.int_attribute("training_mode", 0) or not node.int_attribute("spatial", 1)
    return None if trains or node.has_output(1) else tuple(range(min(2, rank)))


def _quantized(node: RowView, rank: int) -> tuple[int, ...] | None:
    scale = node.dims(1)
    if scale in ((), (1,)):
        return ()
    return (node.int_attribute("axis", 1) % rank,) if scale is not None and len(scale) == 1 else None


def _sliced(node: RowView, rank: int) -> tuple[int, ...] | None:
    if node.opset < 10:
        axes = node.ints_attribute("axes") or tuple(range(len(node.ints_attribute("starts"))))
        return tuple(axis % rank for axis in axes)
    starts, axes_given = node.numbers(1), node.axes(3, rank)
    if starts is None or axes_given is None:
        return None
    return axes_given or tuple(range(len(starts)))


def _reduced(node: RowView, index: int, axis: int) -> int | None:
    dims = node.dims(0)
    if index or dims is None:
        return None
    axes = node.axes(1, len(dims))
    if not axes or axis in axes:
        return None
    return axis if node.int_attribute("keepdims", 1) else axis - sum(a < axis for a in axes)


def _extreme(node: RowView, index: int, axis: int) -> int | None:
    dims = node.dims(0)
    if index or dims is None:
        return None
    along = node.int_attribute("axis", 0) % len(dims)
    if axis == along:
        return None
    return axis if node.int_attribute("keepdims", 1) else axis - (along < axis)


def _gathered(node: RowView, index: int, axis: int) -> int | None:
    dims, picks = node.dims(0), node.dims(1)
    if index or dims is None or picks is None or node.constant(1) is None:
        return None
    along = node.int_attribute("axis", 0) % len(dims)
    if axis == along:
        return None
    return axis if axis < along else axis - 1 + len(picks)


def _transposed(node: RowView, index: int, axis: int) -> int | None:  # noqa: ARG001
    dims = node.dims(0)
    if dims is None:
        return None
    order = node.ints_attribute("perm") or tuple(range(len(dims)))[::-1]
    return order.index(axis) if axis in order else None


def _reshaped(node: RowView, index: int, axis: int) -> int | None:
    """The axis of the result with as many rows, each of as many elements.

    Then all that stands before it agrees as well, whatever the batch is.
    """
    dims, result = node.dims(0), node.result_dims()
    if index or dims is None or result is None:
        return None
    if node.node.op_type == "Reshape" and node.numbers(1) is None:
        return None
    inner = _elements(dims[axis + 1 :])
    places = [
        at for at, dim in enumerate(result) if dim == dims[axis] and _elements(result[at + 1 :]) == inner
    ]
    return places[0] if inner is not None and len(places) == 1 else None


def _elements(dims: Dims) -> int | None:
    count = 1
    for dim in dims:
        if not isinstance(dim, int):
            return None
        count *= dim
    return count


def _rows_of_matrix(second: int) -> Carry:
    """A product whose right operand is the same for all rows.

    Args:
        second: The right operand.
    """

    def carry(node: RowView, index: int, axis: int) -> int | None:
        left, right = node.dims(0), node.dims(second)
        if index or left is None or right is None or len(right) != 2 or axis >= len(left) - 1:
            return None
        return axis

    return carry


def _gemm(node: RowView, index: int, axis: int) -> int | None:
    if index == 1 or axis or node.int_attribute("transA", 0):
        return None
    return aligned(node, index, axis) if index == 2 else 0


# fmt: off
add_rule(
    Rule(aligned),
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift", "BitwiseAnd",
    "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Div", "Elu",
    "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish",
    "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish",
    "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan", "Tanh",
    "ThresholdedRelu", "Where", "Xor",
)
add_rule(
    Rule(aligned), "BiasGelu", "FastGelu", "Gelu", "QLinearAdd", "QLinearLeakyRelu", "QLinearMul",
    "QLinearSigmoid", "QuickGelu", domain=MICROSOFT,
)
# fmt: on
add_rule(Rule(_only(0)(aligned)), "Dropout", "CastLike")
add_rule(Rule(_only(0)(_barring(_batch_norm))), "BatchNormalization")
add_rule(Rule(_barring(lambda *_: (0, 1))), "LRN")
add_rule(Rule(_barring(_along("axis", 1))), "Concat")
add_rule(Rule(_only(0)(_barring(_along("axis", 0)))), "Split")
add_rule(Rule(_barring(_softmax)), "Softmax", "LogSoftmax", "Hardmax")
add_rule(Rule(_barring(_along("axis", -1))), "LpNormalization")
add_rule(
    Rule(_only(0)(_barring(_normalised))),
    "LayerNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
)
for _domain in ("", MICROSOFT):
    add_rule(Rule(_only(0)(_barring(_quantized))), "QuantizeLinear", "DequantizeLinear", domain=_domain)
add_rule(Rule(_only(0)(_barring(_sliced))), "Slice")
_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
add_rule(Rule(_reduced), *(f"Reduce{name}" for name in _REDUCTIONS))
add_rule(Rule(_extreme), "ArgMax", "ArgMin")
add_rule(Rule(_gathered), "Gather")
add_rule(Rule(_transposed), "Transpose")
add_rule(Rule(_reshaped), "Reshape", "Squeeze", "Unsqueeze", "Flatten")
add_rule(Rule(_rows_of_matrix(1)), "MatMul", "MatMulInteger")
add_rule(Rule(_rows_of_matrix(3)), "QLinearMatMul")
add_rule(Rule(_gemm), "Gemm")
