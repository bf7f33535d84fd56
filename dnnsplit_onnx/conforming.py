"""Whether records read from a file hold what their fields are annotated to hold.

A dataclass built from JSON takes whatever the file says: a list for a number, a number of a
thousand digits for a position. This finds the first field that does not keep to its
annotation, whatever its depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_LARGEST_INT = 1 << 63


def misfit(record: Any) -> str | None:
    """The name of the first field of a dataclass that is not what it should be, None if all are.

    Whole numbers fit where a real one is expected, and none fits that takes more than 64 bits.
    Literals, unions, tuples of any length, mappings and dataclasses are looked into.
    """
    hints = get_type_hints(type(record))
    for field in fields(record):
        value = getattr(record, field.name)
        nested = is_dataclass(value) and not isinstance(value, type)
        if nested and (inner := misfit(value)) is not None:
            return f"{field.name}.{inner}"
        if not _fits(value, hints[field.name]):
            return field.name
    return None


def _fits(value: Any, wanted: Any) -> bool:
    origin, arguments = get_origin(wanted), get_args(wanted)
    if wanted is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(one, arguments[0]) for one in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(_fits(one, arguments[1]) for one in value.values())
    if is_dataclass(wanted):
        return type(value) is wanted and misfit(value) is None
    if wanted in (int, float):
        numbers = (int, float) if wanted is float else (int,)
        whole = isinstance(value, int) and abs(value) >= _LARGEST_INT
        return isinstance(value, numbers) and not isinstance(value, bool) and not whole
    return value is None if wanted in (None, NoneType) else isinstance(value, wanted)
