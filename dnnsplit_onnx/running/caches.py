"""Caches of a text: how large they become, and how they are cut back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.runtime.inputs import numpy_dtype
from dnnsplit_onnx.runtime.provider import runtime
from dnnsplit_onnx.runtime.values import Value, to_python, to_value
from dnnsplit_onnx.slicing.manifest import StateRecord


def cannot_drop(states: Iterable[StateRecord]) -> str | None:
    """The first state whose last positions cannot be cut off; None if all can."""
    return next((s.input for s in states if s.output is not None and s.grows is None), None)


def dropped(states: Iterable[StateRecord], kept: Mapping[str, Value], count: int) -> dict[str, Value]:
    """States without their last positions.

    Args:
        states: What is kept.
        kept: What they are, by their inputs.
        count: How many positions to cut off.

    Raises:
        InputError: A state holds fewer, or is not one that only grows.
    """
    after = dict(kept)
    for state in states:
        if state.output is None or not count:
            continue
        if state.grows is None:
            raise not_growing(state.input)
        after[state.input] = _without_last(state, kept[state.input], count)
    return after


def not_growing(name: str) -> InputError:
    """That a state cannot be cut back."""
    return InputError(
        f"state `{name}` cannot be cut back: the model does not only append to it",
        hint="begin again, with the text up to where it is to go on",
    )


def _without_last(state: StateRecord, value: Value, count: int) -> Value:
    shape, axis = value.shape(), state.grows or 0
    size = shape[axis] - count
    if size < 0:
        raise InputError(f"state `{state.input}` holds {shape[axis]} positions, {count} are to be cut off")
    ort = runtime()
    places = (slice(None),) * axis + (slice(size),)
    return to_value(ort, to_python(ort, value)[places])


def grown(
    states: Iterable[StateRecord], before: Mapping[str, Value], after: Mapping[str, Value]
) -> int | None:
    """By how many positions states have grown in a step, all of them by as many.

    Returns:
        The number, so that cutting so many off `after` gives `before`; None if it does not.
    """
    counts = set()
    for state in states:
        if state.output is None:
            if before[state.input] is not after[state.input]:
                return None
        elif state.grows is None:
            return None
        else:
            old, new = before[state.input].shape(), after[state.input].shape()
            counts.add(new[state.grows] - old[state.grows])
    return counts.pop() if len(counts) == 1 and min(counts) >= 0 else None


def caches_nbytes(ports: Iterable[Port], states: Iterable[StateRecord], positions: int) -> int | None:
    """Memory of the caches of a text.

    Args:
        ports: The states as the model reads them.
        states: What is known of them.
        positions: How long the text becomes.

    Returns:
        Bytes; None where a size is not known.
    """
    records, total = {record.input: record for record in states}, 0
    for port in ports:
        record, nbytes = records[port.name], numpy_dtype(port).itemsize
        for axis, dim in enumerate(port.shape or ()):
            size = positions if axis == record.grows else dim
            if isinstance(size, str):
                size = record.fixed.get(size, 1 if axis == 0 else None)
            if size is None:
                return None
            nbytes *= size
        total += nbytes
    return total
