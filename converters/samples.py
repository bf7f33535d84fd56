"""Seeded inputs: to trace a model with, and to compare framework and onnxruntime on."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from dnnsplit_onnx.converters.adapter import BATCH, Array, InputSpec

# Sizes to try open dimensions with. Two samples, since torch's exporter takes sizes of one
# for constants and since equal samples would show a model that ignores its input.
SAMPLES = 2
OPEN_SIZE = 6


def sample_inputs(specs: Sequence[InputSpec], seed: int = 0) -> dict[str, Array]:
    """Inputs to compare with: seeded, and different in every sample of the batch.

    Floats are drawn from a normal distribution, samples with slowly growing spread and offset,
    since networks that average over an image see little else of noise. Integers and
    booleans are the author's example, moved by one position from sample to sample, or
    drawn below the input's bound.
    """
    return {spec.name: _sample(spec, seed) for spec in specs}


def _sample(spec: InputSpec, seed: int) -> Array:
    shape = tuple(_size(spec, at) for at in range(len(spec.shape)))
    # A draw for each name: adding an input leaves the others as they are.
    generator = np.random.default_rng([seed, zlib.crc32(spec.name.encode())])
    if spec.dtype.kind == "f":
        drawn = generator.standard_normal(shape)
        if shape:
            step = np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
            drawn = drawn * (1 + 0.1 * step) + 0.1 * step
        return (drawn * spec.scale).astype(spec.dtype)
    if spec.example is not None:
        return _tiled(spec.example, shape)
    return generator.integers(0, max(spec.below, 1), shape).astype(spec.dtype)


def _size(spec: InputSpec, at: int) -> int:
    dim = spec.shape[at]
    if isinstance(dim, int):
        return dim
    if dim == BATCH:
        return SAMPLES
    return spec.example.shape[at] if spec.example is not None else OPEN_SIZE


def _tiled(example: Array, shape: tuple[int, ...]) -> Array:
    """The example repeated to fill the shape, each sample moved on by one position."""
    if example.shape == shape or not shape:
        return example
    filled = np.resize(example, shape)
    return np.stack([np.roll(row, at, axis=-1) if row.ndim else row for at, row in enumerate(filled)])
