"""Resizing, sampling and regions of interest.

An interpolated value is a weighted sum of its neighbours: a multiplication and an addition per
neighbour. Coordinates of a fixed grid, and interpolation weights, are not counted; picking the nearest
neighbour is data movement.
"""

from __future__ import annotations

from math import prod

from dnnsplit_onnx.work.flops.registry import MICROSOFT, register
from dnnsplit_onnx.work.flops.sorting import sort_comparisons
from dnnsplit_onnx.work.flops.view import NodeView, Shape, UnknownWork
from dnnsplit_onnx.work.flops.work import Work

# Neighbours along one axis.
_NEIGHBOURS = {"linear": 2, "bilinear": 2, "trilinear": 2, "cubic": 4, "bicubic": 4}


def _neighbours(mode: str) -> int:
    if mode not in _NEIGHBOURS:
        raise UnknownWork
    return _NEIGHBOURS[mode]


@register("Resize", "Upsample")
def resize(node: NodeView) -> Work:
    """Resize, Upsample: 0 if nearest; else 2 per output element and neighbour.

    An axis that changes its length has 2 neighbours (linear) or 4 (cubic); with `antialias` an axis that
    shrinks has as many times more as it shrinks, rounded up.
    """
    mode = node.text_attribute("mode", "nearest")
    if mode == "nearest":
        return Work()
    per_axis = _neighbours(mode)
    before, after = node.input_shape(0), node.output_shape()
    if len(before) != len(after):
        raise UnknownWork
    antialias = bool(node.int_attribute("antialias", 0))
    taps = 1
    for old, new in zip(before, after, strict=True):
        if old != new:
            taps *= per_axis * (-(-old // new) if antialias and 0 < new < old else 1)
    return Work(elementwise=2 * taps * prod(after) if taps > 1 else 0)


@register("GridSample")
@register("GridSample", domain=MICROSOFT)
def grid_sample(node: NodeView) -> Work:
    """GridSample: per coordinate 4 to scale it to pixels (3 with `align_corners`); then interpolation.

    Rounding a coordinate to the nearest pixel is 1.
    """
    image, grid = node.input_shape(0), node.input_shape(1)
    if len(image) < 3 or len(grid) != len(image):
        raise UnknownWork
    mode = node.text_attribute("mode", "linear")
    scaling = 3 if node.int_attribute("align_corners", 0) else 4
    if mode == "nearest":
        return Work(elementwise=prod(grid) * (scaling + 1))
    results = image[0] * image[1] * prod(grid[1:-1])
    taps = _neighbours(mode) ** grid[-1]
    return Work(elementwise=prod(grid) * scaling + 2 * taps * results)


@register("AffineGrid")
def affine_grid(node: NodeView) -> Work:
    """AffineGrid: a matrix product with homogeneous coordinates, d + 1 MACs per number of the grid."""
    shape = node.output_shape(0, 4, 5)
    return Work(macs=prod(shape) * (shape[-1] + 1))


@register("RoiAlign")
def roi_align(node: NodeView) -> Work:
    """RoiAlign: `sampling_ratio`^2 samples per output element: 8 to interpolate each, 1 to fold it.

    An average divides once more. Where the ratio is adaptive (0) the samples depend on the regions, and
    the work is unknown.
    """
    n = _regions(node)[0] * node.input_shape(0, 4)[1]
    n *= node.int_attribute("output_height", 1) * node.int_attribute("output_width", 1)
    samples = node.positive("sampling_ratio") ** 2
    average = node.text_attribute("mode", "avg") == "avg"
    return Work(elementwise=n * (samples * (2 * 4 + 1) + average))


@register("MaxRoiPool")
def max_roi_pool(node: NodeView) -> Work:
    """MaxRoiPool: at most a comparison per region and element of its image (regions may be smaller)."""
    return Work(elementwise=_regions(node)[0] * prod(node.input_shape(0, 4)[1:]))


def _regions(node: NodeView) -> Shape:
    return node.input_shape(1, 2)


@register("CropAndResize", domain=MICROSOFT)
def crop_and_resize(node: NodeView) -> Work:
    """CropAndResize: 8 per output element (bilinear), 0 if nearest."""
    if node.text_attribute("mode", "bilinear") == "nearest":
        return Work()
    return Work(elementwise=2 * 4 * node.output_size())


# 4 corners of the intersection, its sides (2 differences, 2 clamps) and area (1), the union (2), a division
# and the comparison with the threshold.
_OVERLAP = 13


@register("NonMaxSuppression")
def non_max_suppression(node: NodeView) -> Work:
    """NonMaxSuppression, at most: per batch element and class, n scores are compared and sorted.

    Then each box meets those selected before it: min(n m, n (n - 1) / 2) overlaps of 13 operations, for a
    constant maximum m (0 if it is not given) or without a bound. Boxes around a centre take 4 per box to
    become corners; the area of a box takes 3.
    """
    batch, boxes, _ = node.input_shape(0, 3)
    classes = node.input_shape(1, 3)[1]
    overlaps = boxes * (boxes - 1) // 2
    limit = node.constant_int(2) if node.has_input(2) else 0
    if limit is not None:
        overlaps = min(overlaps, boxes * max(limit, 0))
    corners = 3 + 4 * bool(node.int_attribute("center_point_box", 0))
    per_class = boxes * node.has_input(4) + sort_comparisons(boxes) + _OVERLAP * overlaps
    return Work(elementwise=batch * (boxes * corners + classes * per_class))
