"""What states are before the first step, and after each.

A state is empty before the first, unless it is given or a dimension is settled by something
else. Afterwards it is what the step made of it; see `graph.states`, and `graph.unrenewed` for
what stays as it was.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.runtime.inputs import numpy_dtype
from dnnsplit_onnx.runtime.provider import runtime
from dnnsplit_onnx.runtime.values import Value, to_python, to_value
from dnnsplit_onnx.slicing.manifest import StateRecord


def empty_states(
    states: Collection[Port],
    records: Iterable[StateRecord],
    given: Collection[Port],
    shapes: Mapping[str, Sequence[int]],
) -> dict[str, np.ndarray]:
    """States that hold nothing yet.

    Their open dimensions are 0, but for those that what is given settles by name, those that
    no step changes, and a first one, which is a batch, that is the first of all that is given.

    Args:
        states: The inputs to make up.
        records: What the manifest says of them.
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
    fixed = {record.input: record.fixed for record in records}
    return {
        port.name: np.zeros(_shape(port, fixed.get(port.name, {}) | sizes, first), numpy_dtype(port))
        for port in states
    }


def _shape(port: Port, sizes: Mapping[str, int], first: int) -> tuple[int, ...]:
    if port.shape is None or port.kind != "tensor":
        raise InputError(
            f"nobody can tell what state `{port.name}` is at first", hint="pass it to the first step"
        )
    return tuple(
        dim if isinstance(dim, int) else sizes.get(dim or "", 0 if axis else first)
        for axis, dim in enumerate(port.shape)
    )


def missing_state(name: str) -> InputError:
    """That a sequence cannot begin without what stays for the whole of it."""
    return InputError(
        f"state `{name}` stays for a whole sequence, and its first request has to bring it",
        hint=f"pass `{name}` among the inputs of the first request, and leave it out of the others",
    )


def own_value(data: Any, dtype: str | None) -> Value:
    """A Python object as a value that stays what it is when the object is written over."""
    ort = runtime()
    if isinstance(data, list):
        return to_value(ort, [np.array(item) for item in data], dtype)
    return to_value(ort, None if data is None else np.array(data), dtype)


def next_states(
    states: Iterable[StateRecord],
    before: Mapping[str, Value],
    made: Mapping[str, Value],
    arrived: Mapping[str, Value],
) -> dict[str, Value]:
    """What states are after a step.

    Args:
        states: Those to keep.
        before: What they were, by their inputs.
        made: What the step made.
        arrived: What else it had, such as inputs that become states: these are copied.
    """
    after: dict[str, Value] = {}
    for state in states:
        name, old = state.output, before.get(state.input)
        if name is None:
            after[state.input] = old
        elif name in made:
            keeps = state.kept_if_empty and _is_empty(made[name]) and not _is_empty(old)
            after[state.input] = old if keeps else made[name]
        elif name in before:
            after[state.input] = before[name]
        else:
            after[state.input] = own_value(to_python(runtime(), arrived[name]), None)
    return after


def _is_empty(value: Value) -> bool:
    """Whether a value is a tensor without elements."""
    return value is not None and value.is_tensor() and 0 in value.shape()
