"""What every table of a tiers file has: strict reading, and mistakes told with their place.

People write these figures, in a file or in a program, so every way to make or change a table
validates field by field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dnnsplit_onnx.errors import TopologyError
from dnnsplit_onnx.machines.mistakes import explained, first_mistake
from dnnsplit_onnx.machines.toml_text import line_of

# No machine, link or price is beyond these: so that quotients and sums of them stay numbers.
SMALLEST, LARGEST = 1e-15, 1e15
Positive = Annotated[float, Field(gt=0, ge=SMALLEST, le=LARGEST, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
#: Options of a provider, by the names that onnxruntime has for them.
ProviderOptions = dict[Annotated[str, Field(min_length=1, max_length=128)], str | bool | int | float]


def plain(data: Any) -> Any:
    """Data as strict validation wants it: tuples for lists, Python's own numbers, text for paths.

    Text is never taken for a number, nor a number for a truth value.
    """
    if isinstance(data, dict):
        return {key: plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return tuple(plain(value) for value in data)
    if isinstance(data, Path):
        return str(data)
    return data.item() if isinstance(data, np.generic) else data


class Table(BaseModel):
    """A table of the file: no unknown keys, no changes after reading, no coercion of text.

    Whoever makes or changes one in Python gets the same checks, and the same errors, as
    somebody who writes the file. Lists pass for tuples and whole numbers for reals.
    """

    #: What a tiers file calls it; empty for the file itself.
    key: ClassVar[str]

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, populate_by_name=True, defer_build=True
    )

    def __init__(self, /, **fields: Any) -> None:
        try:
            self.__pydantic_validator__.validate_python(plain(fields), self_instance=self)
        except ValidationError as error:
            raise as_topology_error(error, type(self).__name__, type(self)) from None

    # Tables within tables are validated in place, so that an error names the whole path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def model_validate(cls, obj: Any, **_: Any) -> Self:
        """One from a mapping, or itself: with the checks, and the errors, of the constructor."""
        return obj if isinstance(obj, cls) else cls(**obj)

    def changed(self, **fields: Any) -> Self:
        """The same with some fields replaced, checked as a new one is.

        Raises:
            TopologyError: There is no such field, or its value is impossible.
        """
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | fields)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:  # noqa: ARG002
        """As `changed`: pydantic's own copies without looking at the values."""
        return self.changed(**(update or {}))

    def __replace__(self, **fields: Any) -> Self:
        return self.changed(**fields)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """What was given, so that `repr` is short and reads as the call that makes it."""
        for name, field in type(self).model_fields.items():
            if name in self.model_fields_set and getattr(self, name) != field.default:
                yield name, getattr(self, name)


def as_topology_error(
    error: ValidationError, source: str, table: type[Table] | None = None, text: str | None = None
) -> TopologyError:
    """The first mistake as an error of ours.

    Args:
        error: What validation found.
        source: Where, such as the name of the file.
        table: What was validated; a whole topology by default.
        text: Of the file, to find the line in.
    """
    first = first_mistake(error)
    line = line_of(text, first["loc"]) if text is not None else None
    where = source if line is None else f"{source}, line {line}"
    root = table.key if table is not None else ""
    keys = {
        kind.key: [field.alias or key for key, field in kind.model_fields.items()]
        for kind in Table.__subclasses__()
    }
    return explained(first, where, root, keys, SMALLEST)
