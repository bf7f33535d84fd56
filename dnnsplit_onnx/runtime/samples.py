"""Samples: several sets of inputs in one `.npz` file.

An input of the model has one shape; the file's array of that name holds several of them along its
first axis. It either has one dimension more than the input, or the input's first dimension, its
batch, times the number of samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.runtime.inputs import Inputs, check_inputs, load_arrays
from dnnsplit_onnx.runtime.pictures import decoded, is_of_pictures, load_pictures

#: More are not read: each is a run of the model.
MOST = 4096


def sample_sets(ports: Sequence[Port], path: str | Path, bindings: Mapping[str, int]) -> list[Inputs]:
    """The samples of a file, each a set of inputs.

    Args:
        ports: What the model reads.
        path: The `.npz` file, or a folder of pictures.
        bindings: Sizes of symbolic dimensions; a batch that is not bound is 1.

    Raises:
        InputError: The file cannot be read, or its arrays do not fit the model or one another.
    """
    if is_of_pictures(path):
        return [Inputs(decoded(values), name) for values, name in load_pictures(path, ports)]
    arrays = load_arrays(path)
    parts = {port.name: _parts(port, arrays[port.name], bindings) for port in ports if port.name in arrays}
    counts = {name: len(values) for name, values in parts.items()}
    if not counts:
        raise InputError(
            f"`{path}` has no array for an input of the model",
            hint=f"name arrays as its inputs: {', '.join(port.name for port in ports)}",
        )
    count = max(counts.values())
    if count > MOST:
        raise InputError(f"`{path}` holds {count:,} samples; at most {MOST:,} are read")
    for name, has in counts.items():
        if has not in (1, count):
            raise InputError(f"`{path}` holds {has} samples of `{name}`, and {count} of others")
    return [
        Inputs(
            check_inputs({name: values[at % len(values)] for name, values in parts.items()}, ports), str(path)
        )
        for at in range(count)
    ]


def _parts(port: Port, array: np.ndarray, bindings: Mapping[str, int]) -> list[np.ndarray]:
    """The samples of one input."""
    if port.shape is not None and array.ndim == len(port.shape) + 1:
        return list(array)
    if not array.ndim or not port.shape:
        return [array]
    first = port.shape[0]
    batch = first if isinstance(first, int) else bindings.get(first or "", 1)
    if batch < 1 or array.shape[0] % batch or not array.shape[0]:
        raise InputError(
            f"input `{port.name}` has a batch of {batch}, and its samples {array.shape[0]} in all",
            hint="stack samples along a new first axis",
        )
    return [array[at : at + batch] for at in range(0, array.shape[0], batch)]
