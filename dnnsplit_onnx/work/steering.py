"""Made-up inputs of few numbers that steer the amount of work, such as a `speed` of speech.

Where inference proves no sizes they are those of one run, and a number that was made up may have
set them. So the model is run once more with other numbers for all such inputs, and where sizes
change, once for each: that tells which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dnnsplit_onnx.errors import DnnsplitError
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.graph.shapes import Types
from dnnsplit_onnx.graph.usual import ports_of
from dnnsplit_onnx.work.analysis import measure

# A vector of fixed length of so many numbers may be settings: scales of noise and length.
_MOST_NUMBERS = 4
_MOST_INPUTS = 8
# Between runs of a model that draws random numbers sizes vary; a number that steers moves them more
# than so many times that, and than this share of them.
_BEYOND_CHANCE, _BEYOND_SHARE = 2.0, 0.1


def steering(types: Types, seen: Types, trips: Mapping[str, int] | None = None) -> tuple[str, ...]:
    """What to say of made-up inputs that change sizes; nothing if none does.

    Args:
        types: What inference found.
        seen: The same with the sizes that a run on made-up inputs has.
        trips: How often loops run, where the user gave it.
    """
    from dnnsplit_onnx.runtime.inputs import generate

    ports = ports_of(types.graph)
    states = {state.input for state in types.graph.states}
    numbers = [port for port in ports if port.name not in states and _are_settings(port)]
    if not numbers or len(numbers) > _MOST_INPUTS:
        return ()
    try:
        given = generate(ports, types.bindings).values
        found = _steering(types, seen, given, numbers)
    except DnnsplitError:  # it does not run at other numbers, or cannot be given any
        return ()
    if not found:
        return ()
    now, other = (_flops(one, trips) for one in (seen, next(iter(found.values()))))
    names = ", ".join(f"`{name}`" for name in found)
    who = f"inputs {names} steer" if len(found) > 1 else f"input {names} steers"
    which = f" of `{next(iter(found))}`" if len(found) > 1 else ""
    return (
        f"made-up {who} sizes and work: at twice the number{which} it is {other / now:.2g} times as much; "
        "give real ones: --sample-input X.npz",
    )


def _are_settings(port: Port) -> bool:
    """Whether an input is a number, or a few."""
    if port.kind != "tensor" or port.shape is None or len(port.shape) > 1 or port.dtype is None:
        return False
    is_numeric = port.dtype.startswith(("float", "double", "int", "uint", "bfloat"))
    length = port.shape[0] if port.shape else 1
    return is_numeric and isinstance(length, int) and 0 < length <= _MOST_NUMBERS


def _steering(
    types: Types, seen: Types, given: Mapping[str, Any], numbers: Sequence[Port]
) -> dict[str, Types]:
    """The inputs whose numbers change sizes, and the sizes at twice the numbers."""
    from dnnsplit_onnx.runtime.observing import observe

    def at_twice(names: Sequence[str]) -> Types:
        return observe(types, {**given, **{name: _twice(given[name]) for name in names}})

    names = [port.name for port in numbers]
    least = 0.0
    if any(node.random for node in types.graph.nodes):
        total = sum(seen.nbytes(name) or 0 for name in seen.observed)
        least = max(_BEYOND_CHANCE * _apart(seen, observe(types, given)), _BEYOND_SHARE * total)
    together = at_twice(names)
    if _apart(seen, together) <= least:
        return {}
    alone = {name: together if len(names) == 1 else at_twice([name]) for name in names}
    return {name: one for name, one in alone.items() if _apart(seen, one) > least}


def _twice(numbers: np.ndarray) -> np.ndarray:
    """Twice the numbers; 1 in place of a 0."""
    doubled = np.where(numbers == 0, np.ones_like(numbers), numbers * 2)
    return np.asarray(doubled, dtype=numbers.dtype).reshape(numbers.shape)


def _apart(one: Types, other: Types) -> int:
    """Bytes by which the values that were seen differ in two runs."""
    sizes = ((one.nbytes(name) or 0, other.nbytes(name) or 0) for name in one.observed)
    return sum(abs(a - b) for a, b in sizes)


def _flops(types: Types, trips: Mapping[str, int] | None) -> int:
    return max(1, int(measure(types.graph, types, trips).flops.sum()))
