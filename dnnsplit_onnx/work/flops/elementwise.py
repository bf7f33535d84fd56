"""Element-wise operators and activation functions.

The count is the number of operations that the operator's definition writes down for one element,
each of add, multiply, compare, exp, tanh, erf, pow, round ... being one. Choosing between two values,
together with the comparison that decides, is one, like max. A scale or exponent that is 1 by its
attribute is not counted.
"""

from __future__ import annotations

from dnnsplit_onnx.work.flops.registry import MICROSOFT, Formula, register
from dnnsplit_onnx.work.flops.view import NodeView, UnknownWork
from dnnsplit_onnx.work.flops.work import Work

# Operators with one operation per output element.
# fmt: off
_ONE = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor",
    "IsInf", "IsNaN", "Log", "Neg", "Not", "Reciprocal", "Round", "Sign", "Sin", "Sinh", "Sqrt", "Tan",
    "Tanh", "BitwiseNot", "Add", "Sub", "Mul", "Div", "Pow", "Mod", "And", "Or", "Xor", "Equal", "Greater",
    "Less", "GreaterOrEqual", "LessOrEqual", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Where",
)
# fmt: on

SIGMOID = 4  # 1 / (1 + exp(-x))

# Activations: operations per element. The keys are operators, and names in `activations` attributes.
_ACTIVATIONS = {
    "Relu": 1,  # max(0, x)
    "ThresholdedRelu": 1,  # x if x > alpha else 0
    "LeakyRelu": 2,  # x if x >= 0 else alpha * x
    "Elu": 4,  # x if x >= 0 else alpha * (exp(x) - 1)
    "Selu": 5,  # gamma * (x if x > 0 else alpha * exp(x) - alpha)
    "Celu": 7,  # max(0, x) + min(0, alpha * (exp(x / alpha) - 1))
    "Sigmoid": SIGMOID,
    "HardSigmoid": 4,  # max(0, min(1, alpha * x + beta))
    "HardSwish": 5,  # x * HardSigmoid(x)
    "Softplus": 3,  # log(exp(x) + 1)
    "Softsign": 3,  # x / (1 + |x|)
    "Mish": 5,  # x * tanh(Softplus(x))
    "Shrink": 3,  # x + bias if x < -lambd, x - bias if x > lambd, else 0: two choices, one addition
}
_FUNCTIONS_OF_RECURRENT_LAYERS = {
    "Tanh": 1,
    "Affine": 2,  # alpha * x + beta
    "ScaledTanh": 3,  # alpha * tanh(beta * x)
    "Clip": 2,  # fused into a convolution: max(low, min(high, x))
    "Gelu": 5,
    "Identity": 0,
    "None": 0,
    "Silu": SIGMOID + 1,
    "Swish": SIGMOID + 1,
}
_BY_NAME = {name.lower(): count for name, count in (_ACTIVATIONS | _FUNCTIONS_OF_RECURRENT_LAYERS).items()}

GELU_ERF = 5  # 0.5 * x * (1 + erf(x / sqrt(2)))
GELU_TANH = 8  # 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))


def activation_operations(name: str) -> int:
    """Operations per element of an activation that an attribute names; names are case-insensitive.

    Raises:
        UnknownWork: There is no such activation.
    """
    count = _BY_NAME.get(name.lower())
    if count is None:
        raise UnknownWork
    return count


def per_element(operations: int) -> Formula:
    """A formula: a fixed number of operations per element of the broadcast operands."""

    def formula(node: NodeView) -> Work:
        return Work(elementwise=operations * node.elements())

    return formula


def per_result(operations: int) -> Formula:
    """A formula: a fixed number of operations per element of a result that no operand's shape shows."""

    def formula(node: NodeView) -> Work:
        return Work(elementwise=operations * node.output_size())

    return formula


register(*_ONE)(per_element(1))
for _name, _count in _ACTIVATIONS.items():
    register(_name)(per_element(_count))
register("PRelu")(per_element(2))  # x if x >= 0 else slope * x
register("Range")(per_result(2))  # start + i * delta
register("Range", domain=MICROSOFT)(per_result(2))


@register("Gelu")
@register("Gelu", domain=MICROSOFT)
def gelu(node: NodeView) -> Work:
    """Gelu: 5 per element with erf, 8 with tanh."""
    tanh = node.text_attribute("approximate", "none") == "tanh"
    return Work(elementwise=(GELU_TANH if tanh else GELU_ERF) * node.elements())


def swish_operations(alpha: float) -> int:
    """`x * sigmoid(alpha * x)`: 5 per element, 6 if alpha is not 1."""
    return SIGMOID + 1 + (alpha != 1.0)


@register("Swish")
def swish(node: NodeView) -> Work:
    """Swish: `x * sigmoid(alpha * x)`, 5 per element, 6 if alpha is not 1."""
    return Work(elementwise=swish_operations(node.float_attribute("alpha", 1.0)) * node.elements())


@register("SwiGLU")
def swiglu(node: NodeView) -> Work:
    """SwiGLU: `Swish(a) * b`, one more than Swish per element."""
    operations = swish_operations(node.float_attribute("alpha", 1.0)) + 1
    return Work(elementwise=operations * node.elements())


@register("Clip")
def clip(node: NodeView) -> Work:
    """Clip: one per element and bound; bounds are inputs since opset 11, attributes before."""
    bounds = node.has_input(1) + node.has_input(2)
    bounds += sum(node.attribute(name) is not None for name in ("min", "max"))
    return Work(elementwise=bounds * node.elements())


@register("Sum", "Max", "Min")
def fold(node: NodeView) -> Work:
    """Sum, Max, Min of k tensors: k - 1 per output element."""
    return Work(elementwise=(len(node.node.input) - 1) * node.elements())


@register("Mean")
def mean(node: NodeView) -> Work:
    """Mean of k tensors: k - 1 additions and a division, k per output element."""
    return Work(elementwise=len(node.node.input) * node.elements())


@register("Dropout")
def dropout(node: NodeView) -> Work:
    """Dropout: nothing at inference; in training 4 per element (draw, compare, mask, scale).

    Training is an input since opset 12 (unknown unless it is constant), does not exist in opsets 7 to
    11, and is the default of the attribute `is_test` before.
    """
    if node.opset >= 12:
        training = node.constant_flag(2)
    else:
        training = node.opset < 7 and not node.int_attribute("is_test", 0)
    return Work(elementwise=4 * node.input_size(0)) if training else Work()
