"""Sorting and selection: comparisons of the textbook algorithm, and matrices that are factorised."""

from __future__ import annotations

from math import prod

from dnnsplit_onnx.work.flops.registry import MICROSOFT, register
from dnnsplit_onnx.work.flops.view import NodeView, UnknownWork, axis_of, log2_ceil
from dnnsplit_onnx.work.flops.work import Work


def sort_comparisons(n: int) -> int:
    """Comparisons of a merge sort: n x ceil(log2 n)."""
    return n * log2_ceil(n)


@register("TopK")
def top_k(node: NodeView) -> Work:
    """TopK: every element meets a heap of k: n x max(1, ceil(log2 k)); k is an attribute before opset 10."""
    shape = node.input_shape(0)
    if node.opset >= 10:
        k = node.constant_int(1)
        if k is None:
            selected = node.output_shape()
            k = selected[axis_of(selected, node.int_attribute("axis", -1))]
    else:
        k = node.positive("k")
    return Work(elementwise=prod(shape) * max(1, log2_ceil(k)))


@register("Unique")
@register("Unique", domain=MICROSOFT)
def unique(node: NodeView) -> Work:
    """Unique: sort, then compare neighbours; slices along an axis compare all their elements."""
    shape = node.input_shape(0)
    axis = node.attribute("axis")
    n = prod(shape) if axis is None else shape[axis_of(shape, axis.i)]
    per_comparison = 1 if axis is None or not n else prod(shape) // n
    return Work(elementwise=per_comparison * (sort_comparisons(n) + n))


@register("Det")
def determinant(node: NodeView) -> Work:
    """Det of n x n matrices by elimination: n(n-1)/2 divisions, n(n-1)(2n-1)/3 for the updates, n - 1.

    An update is a multiplication and a subtraction; the diagonal is multiplied at the end. They are not
    MACs: elimination is no contraction.
    """
    batch, n = _square(node)
    divisions, updates = n * (n - 1) // 2, n * (n - 1) * (2 * n - 1) // 3
    return Work(elementwise=batch * (divisions + updates + max(n - 1, 0)))


@register("Inverse", domain=MICROSOFT)
def inverse(node: NodeView) -> Work:
    """Inverse of n x n matrices by Gauss-Jordan elimination: 2 n^3."""
    batch, n = _square(node)
    return Work(elementwise=batch * 2 * n**3)


def _square(node: NodeView) -> tuple[int, int]:
    shape = node.input_shape(0)
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise UnknownWork
    return prod(shape[:-2]), shape[-1]
