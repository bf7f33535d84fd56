"""Pooling: one operation per tap of the window, taps over padding included (as for convolutions)."""

from __future__ import annotations

from math import prod

from dnnsplit_onnx.work.flops.registry import MICROSOFT, register
from dnnsplit_onnx.work.flops.view import NodeView, UnknownWork
from dnnsplit_onnx.work.flops.work import Work


def window(node: NodeView) -> int:
    """Taps of the pooling window.

    Raises:
        UnknownWork: The node has no `kernel_shape`.
    """
    kernel = node.ints_attribute("kernel_shape")
    if not kernel:
        raise UnknownWork
    return prod(kernel)


@register("MaxPool")
@register("NhwcMaxPool", domain=MICROSOFT)
def max_pool(node: NodeView) -> Work:
    """MaxPool: a comparison per tap and output element; the optional indices cost nothing."""
    return Work(elementwise=node.output_size() * window(node))


@register("MaxpoolWithMask", domain=MICROSOFT)
def max_pool_with_mask(node: NodeView) -> Work:
    """MaxpoolWithMask: a choice by the mask and a comparison per tap and output element."""
    return Work(elementwise=2 * node.output_size() * window(node))


@register("AveragePool")
def average_pool(node: NodeView) -> Work:
    """AveragePool: an addition per tap and a division, per output element."""
    return Work(elementwise=node.output_size() * (window(node) + 1))


@register("LpPool")
def lp_pool(node: NodeView) -> Work:
    """LpPool: per tap abs and add (p = 1), square and add (2), or abs, power and add; then the root."""
    per_tap, root = _norm(node)
    return Work(elementwise=node.output_size() * (window(node) * per_tap + root))


@register("GlobalMaxPool")
def global_max_pool(node: NodeView) -> Work:
    """GlobalMaxPool: a comparison per input element."""
    return Work(elementwise=node.input_size(0))


@register("GlobalAveragePool")
def global_average_pool(node: NodeView) -> Work:
    """GlobalAveragePool: an addition per input element and a division per output element."""
    return Work(elementwise=node.input_size(0) + channels(node))


@register("GlobalLpPool")
def global_lp_pool(node: NodeView) -> Work:
    """GlobalLpPool: as LpPool over the whole image."""
    per_tap, root = _norm(node)
    return Work(elementwise=node.input_size(0) * per_tap + channels(node) * root)


def channels(node: NodeView, axis: int = 1) -> int:
    """Results of a global pool: one per batch element and channel.

    Raises:
        UnknownWork: The input is not an image.
    """
    shape = node.input_shape(0)
    if len(shape) < 2:
        raise UnknownWork
    return shape[0] * shape[axis]


def _norm(node: NodeView) -> tuple[int, int]:
    """Operations per tap and per result of a p-norm."""
    p = node.int_attribute("p", 2)
    if p == 1:
        return 2, 0
    return (2, 1) if p == 2 else (3, 1)
