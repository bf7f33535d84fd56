"""Fourier transforms, windows and filter banks.

A transform of n complex numbers counts 5 n ceil(log2 n) operations, the convention of FFT benchmarks (as
in FFTW's), whatever n; half of that where one side is real. They are element-wise and not MACs.
"""

from __future__ import annotations

from math import prod

from dnnsplit_onnx.work.flops.elementwise import per_result
from dnnsplit_onnx.work.flops.registry import MICROSOFT, register
from dnnsplit_onnx.work.flops.view import NodeView, UnknownWork, axis_of, log2_ceil
from dnnsplit_onnx.work.flops.work import Work

register("HannWindow", "HammingWindow")(per_result(4))  # a0 - a1 * cos(c * i)
register("BlackmanWindow")(per_result(8))  # a0 - a1 * cos(c * i) + a2 * cos(d * i)
register("MelWeightMatrix")(per_result(2))  # (frequency - edge) / width of the triangle


def transform(n: int, *, real: bool) -> int:
    """Operations of one fast Fourier transform of length n."""
    return 5 * n * log2_ceil(n) // (2 if real else 1)


@register("DFT")
def dft(node: NodeView) -> Work:
    """DFT: 5 n ceil(log2 n) per signal, half if it is real or one-sided; an inverse divides (1 each).

    The axis is an input since opset 20 (-2 by default), an attribute (1 by default) before.
    """
    shape = node.input_shape(0)
    result = node.output_shape(0, len(shape))
    if node.opset >= 20:
        axis = node.constant_int(2) if node.has_input(2) else -2
        if axis is None:
            raise UnknownWork
    else:
        axis = node.int_attribute("axis", 1)
    axis = axis_of(shape, axis)
    one_sided, inverse = node.int_attribute("onesided", 0), node.int_attribute("inverse", 0)
    signal = result if one_sided and inverse else shape
    n = _length(node, signal[axis], one_sided, result[axis])
    signals = prod(shape[:axis]) * prod(shape[axis + 1 : -1])
    real = shape[-1] == 1 or bool(one_sided)
    scaling = prod(result) if inverse else 0
    return Work(elementwise=signals * transform(n, real=real) + scaling)


def _length(node: NodeView, default: int, one_sided: int, written: int) -> int:
    """The transform's length: given, or that of the signal; a two-sided result has it too."""
    if not node.has_input(1):
        return default
    given = node.constant_int(1)
    if given is not None:
        return given
    if one_sided:
        raise UnknownWork
    return written


@register("STFT")
def stft(node: NodeView) -> Work:
    """STFT: per frame the window (1 per sample and part), and a transform, half if real."""
    shape = node.input_shape(0)
    if len(shape) not in (2, 3):
        raise UnknownWork
    parts = shape[2] if len(shape) == 3 else 1
    batch, frames = node.output_shape(0, 4)[:2]
    if node.has_input(2):
        length = node.input_size(2)
    elif node.has_input(3):
        given = node.constant_int(3)
        if given is None:
            raise UnknownWork
        length = given
    else:
        length = shape[1]
    windowing = length * parts * node.has_input(2)
    return Work(elementwise=batch * frames * (windowing + transform(length, real=parts == 1)))


@register("Rfft", domain=MICROSOFT)
def rfft(node: NodeView) -> Work:
    """Rfft over the last axis (all of the last `signal_ndim`): half of 5 n ceil(log2 n)."""
    shape, dims = node.input_shape(0), node.int_attribute("signal_ndim", 1)
    return _real_transform(shape, dims)


@register("Irfft", domain=MICROSOFT)
def irfft(node: NodeView) -> Work:
    """Irfft: as Rfft of its result."""
    return _real_transform(node.output_shape(), node.int_attribute("signal_ndim", 1))


def _real_transform(shape: tuple[int, ...], dims: int) -> Work:
    if not 0 < dims <= len(shape):
        raise UnknownWork
    signal = prod(shape[-dims:])
    return Work(elementwise=prod(shape[:-dims]) * transform(signal, real=True))
