"""What a state is before the first step: empty, unless a dimension is settled by something else."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.runtime.inputs import numpy_dtype


def empty_states(
    states: Collection[Port], given: Collection[Port], shapes: Mapping[str, Sequence[int]]
) -> dict[str, np.ndarray]:
    """States that hold nothing yet.

    Their open dimensions are 0, but for those that what is given settles by name, and a first
    one, which is a batch, that is the first of all that is given.

    Args:
        states: The inputs to make up.
        given: The other inputs.
        shapes: Shapes of what is given, by name.

    Raises:
        InputError: A state has no known rank.
    """
    sizes = {
        dim: size
        for port in given
        for dim, size in zip(port.shape or (), shapes.get(port.name, ()), strict=False)
        if isinstance(dim, str)
    }
    firsts = {shapes[port.name][0] for port in given if shapes.get(port.name)}
    first = firsts.pop() if len(firsts) == 1 else 0
    return {port.name: np.zeros(_shape(port, sizes, first), numpy_dtype(port)) for port in states}


def _shape(port: Port, sizes: Mapping[str, int], first: int) -> tuple[int, ...]:
    if port.shape is None or port.kind != "tensor":
        raise InputError(
            f"nobody can tell what state `{port.name}` is at first", hint="pass it to the first step"
        )
    return tuple(
        dim if isinstance(dim, int) else sizes.get(dim or "", 0 if axis else first)
        for axis, dim in enumerate(port.shape)
    )
