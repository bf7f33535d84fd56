"""Classical models of ai.onnx.ml: linear models, support vectors, feature scaling.

A row is one example: the first dimension of the input, or all of a 1-D input.
"""

from __future__ import annotations

from math import prod

from dnnsplit_onnx.work.flops.elementwise import SIGMOID, per_element
from dnnsplit_onnx.work.flops.reduction import SOFTMAX
from dnnsplit_onnx.work.flops.registry import ML, register
from dnnsplit_onnx.work.flops.view import NodeView, Shape, UnknownWork, exact_division
from dnnsplit_onnx.work.flops.work import Work

register("Binarizer", "Imputer", domain=ML)(per_element(1))  # compare
register("Scaler", domain=ML)(per_element(2))  # (x - offset) * scale

_POST_TRANSFORM = {"NONE": 0, "LOGISTIC": SIGMOID, "SOFTMAX": SOFTMAX, "SOFTMAX_ZERO": SOFTMAX, "PROBIT": 1}


def examples(node: NodeView) -> tuple[int, int]:
    """Rows of the input, and features in each."""
    shape: Shape = node.input_shape(0)
    if len(shape) == 1:
        return 1, shape[0]
    if not shape:
        raise UnknownWork
    return shape[0], prod(shape[1:])


def post_transform(node: NodeView) -> int:
    """Operations per score: none, logistic (4), softmax (5), or probit (1)."""
    name = node.text_attribute("post_transform", "NONE")
    if name not in _POST_TRANSFORM:
        raise UnknownWork
    return _POST_TRANSFORM[name]


def class_labels(node: NodeView, *names: str) -> int:
    """How many class labels a classifier has, in whichever of the attributes they are."""
    for name in names:
        attribute = node.attribute(name)
        if attribute is not None:
            return len(attribute.ints) + len(attribute.strings)
    raise UnknownWork


def floats(node: NodeView, name: str) -> int:
    """How many numbers a list-of-floats attribute holds; 0 if it is not set."""
    attribute = node.attribute(name)
    return 0 if attribute is None else len(attribute.floats)


@register("Normalizer", domain=ML)
def normalizer(node: NodeView) -> Work:
    """Normalizer: 2 per element for MAX (compare, divide), 3 for L1, and for L2 with a root per row."""
    rows, features = examples(node)
    norm = node.text_attribute("norm", "MAX")
    if norm not in ("MAX", "L1", "L2"):
        raise UnknownWork
    per_element = 2 if norm == "MAX" else 3
    return Work(elementwise=rows * (features * per_element + (norm == "L2")))


@register("LinearRegressor", domain=ML)
def linear_regressor(node: NodeView) -> Work:
    """LinearRegressor: a MAC per row and coefficient; the intercepts and the post-transform."""
    rows, features = examples(node)
    coefficients = floats(node, "coefficients")
    targets = exact_division(coefficients, features)
    elementwise = floats(node, "intercepts") + targets * post_transform(node)
    return Work(macs=rows * coefficients, elementwise=rows * elementwise)


@register("LinearClassifier", domain=ML)
def linear_classifier(node: NodeView) -> Work:
    """LinearClassifier: as LinearRegressor, and a comparison per score to choose the label."""
    rows, features = examples(node)
    coefficients = floats(node, "coefficients")
    scores = exact_division(coefficients, features)
    elementwise = floats(node, "intercepts") + scores * (post_transform(node) + 1)
    return Work(macs=rows * coefficients, elementwise=rows * elementwise)


def _kernels(node: NodeView, vectors: int) -> tuple[int, int]:
    """MACs and element-wise operations, per row, of the kernel with each support vector.

    A linear, polynomial or sigmoid kernel is a dot product: a MAC per feature; the latter two then take 3
    (scale, shift, power or tanh). An RBF kernel subtracts (1) and accumulates the square (a MAC) per
    feature, then takes 2 (scale, exp).
    """
    features = examples(node)[1]
    kind = node.text_attribute("kernel_type", "LINEAR")
    finish = {"LINEAR": 0, "POLY": 3, "SIGMOID": 3, "RBF": features + 2}
    if kind not in finish:
        raise UnknownWork
    return vectors * features, vectors * finish[kind]


@register("SVMRegressor", domain=ML)
def svm_regressor(node: NodeView) -> Work:
    """SVMRegressor: the kernels, a MAC per support vector, rho; without vectors, a linear model."""
    rows, _ = examples(node)
    vectors = node.int_attribute("n_supports", 0)
    macs, elementwise = _kernels(node, vectors)
    coefficients = vectors or floats(node, "coefficients")
    return Work(rows * (macs + coefficients), rows * (elementwise + 1 + post_transform(node)))


@register("SVMClassifier", domain=ML)
def svm_classifier(node: NodeView) -> Work:
    """SVMClassifier: the kernels, then a decision (MACs and rho) and a vote per pair of classes.

    Each support vector takes part in the decisions of its class against the c - 1 others. With
    `prob_a`, each decision is calibrated: `1 / (1 + exp(a * f + b))`, 5. Without support vectors: a linear
    model and its rho per class. Choosing the label is a comparison per class.
    """
    rows, _ = examples(node)
    classes = class_labels(node, "classlabels_ints", "classlabels_strings")
    vectors = sum(node.ints_attribute("vectors_per_class"))
    finish = classes * (1 + post_transform(node))
    if not vectors:
        return Work(rows * floats(node, "coefficients"), rows * (classes + finish))
    macs, elementwise = _kernels(node, vectors)
    pairs = classes * (classes - 1) // 2
    calibration = 5 if floats(node, "prob_a") else 0
    return Work(
        macs=rows * (macs + vectors * (classes - 1)),
        elementwise=rows * (elementwise + pairs * (2 + calibration) + finish),
    )
