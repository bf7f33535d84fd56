"""Keras's `same` padding on the torch backend, for images whose size stays open.

Keras's own code asks whether the two sides of an axis need equal padding: the answer that
holds for the size that is traced would be wrong at odd sizes if that is even. Padding with
zeros (convolutions) or edges (maxima, which do not see them) does the same at all sizes.
Averages leave padding out where the sides are equal and count edges where they are not:
both are computed, and the size of the image says which is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock


@contextmanager
def open_padding() -> Iterator[None]:
    """Replaces the padding of `same` layers wherever a size is a symbol."""
    from keras.src.backend.torch import nn as keras_nn

    own_padding, own_average = keras_nn._apply_same_padding, keras_nn.average_pool

    def same_padding(
        inputs: Any, kernel: Any, strides: Any, data_format: Any, kind: str, dilation_rate: Any = 1
    ) -> Any:
        sizes = inputs.shape[2:]
        if _are_numbers(sizes):
            return own_padding(inputs, kernel, strides, data_format, kind, dilation_rate)
        rates = [1] * len(sizes) if kind == "pooling" else _each(dilation_rate, sizes)
        widths = _widths(sizes, kernel, strides, rates)
        return _padded(inputs, widths, "replicate" if kind == "pooling" else "constant"), 0

    def average_pool(
        inputs: Any, pool_size: Any, strides: Any = None, padding: str = "valid", data_format: Any = None
    ) -> Any:
        import keras

        last = (data_format or keras.config.image_data_format()) == "channels_last"
        first = inputs.movedim(-1, 1) if last else inputs
        sizes = first.shape[2:]
        if padding != "same" or _are_numbers(sizes):
            return own_average(inputs, pool_size, strides, padding, data_format)
        kernel = _each(pool_size, sizes)
        steps = _each(strides or pool_size, sizes)

        def pooled(value: Any) -> Any:
            return own_average(value, kernel, steps, "valid", "channels_first")

        result = _average(first, _widths(sizes, kernel, steps, [1] * len(sizes)), pooled)
        return result.movedim(1, -1) if last else result

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(keras_nn, "_apply_same_padding", same_padding))
        stack.enter_context(mock.patch.object(keras_nn, "average_pool", average_pool))
        yield


def _average(inputs: Any, widths: Sequence[tuple[Any, Any]], pooled: Any) -> Any:
    """The average as Keras takes it: without padding where it is even on all axes, else with edges."""
    import torch

    without = pooled(_padded(inputs, widths, "constant")) / pooled(
        _padded(torch.ones_like(inputs), widths, "constant")
    )
    edges = pooled(_padded(inputs, widths, "replicate"))
    uneven = torch.scalar_tensor(sum(right - left for left, right in widths), dtype=inputs.dtype)
    return torch.where(uneven > 0, edges, without)


def _padded(inputs: Any, widths: Sequence[tuple[Any, Any]], mode: str) -> Any:
    import torch

    flat = [width for pair in reversed(widths) for width in pair]
    return torch.nn.functional.pad(inputs, flat, mode)


def _widths(
    sizes: Sequence[Any], kernel: Sequence[int], strides: Sequence[int], rates: Sequence[int]
) -> list[tuple[Any, Any]]:
    """What `same` adds on both sides of each axis."""
    import torch

    widths = []
    for size, length, stride, rate in zip(sizes, kernel, strides, rates, strict=True):
        reach = (length - 1) * rate + 1
        # Nothing negative is divided: ONNX rounds towards zero, and Python down.
        steps = (size + stride - 1) // stride
        total = reach - 1 if stride == 1 else torch.sym_max(0, (steps - 1) * stride + reach - size)
        widths.append((total // 2, total - total // 2))
    return widths


def _each(value: Any, sizes: Sequence[Any]) -> tuple[int, ...]:
    return (value,) * len(sizes) if isinstance(value, int) else tuple(value)


def _are_numbers(sizes: Sequence[Any]) -> bool:
    return all(isinstance(size, int) for size in sizes)
