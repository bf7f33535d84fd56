"""The verification that a manifest records, read and checked."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dnnsplit_onnx.slicing.manifest import Manifest


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Output(_Record):
    """An output of the model, compared.

    Attributes:
        name: The output.
        bitwise: Whether it is the same, bit for bit.
        max_abs_diff: The largest difference; None if infinite.
        vacuous: Why its agreement proves little, None if it does.
    """

    name: str
    bitwise: bool
    max_abs_diff: float | None = None
    vacuous: str | None = None


class Boundary(_Record):
    """A value that crosses a cut, compared."""

    bitwise: bool


class Uncompared(_Record):
    """An output that cannot be compared, and why."""

    name: str
    reason: str


class Code(_Record):
    """A coded value, held against its code's bound."""

    value: str
    code: str
    tier: str
    bound: float | None = None
    largest_error: float | None = None
    kept: bool
    ratio: float


class Proof(_Record):
    """What `verify --json` prints, as far as the page says it."""

    passed: bool
    bitwise: bool
    max_abs_diff: float | None = None
    outputs: tuple[Output, ...] = ()
    boundaries: tuple[Boundary, ...] = ()
    not_comparable: tuple[Uncompared, ...] = ()
    assumed: dict[str, int] = Field(default_factory=dict)
    error: str | None = None
    notes: tuple[str, ...] = ()
    codes: tuple[Code, ...] = ()
    output_error: float | None = None
    agreement: float | None = None
    samples: int | None = None
    tolerance: dict[str, float | None] = Field(default_factory=dict)


def recorded_proof(manifest: Manifest, notes: list[str]) -> Proof | None:
    """The verification of a manifest, None if it has none; one that cannot be read is noted."""
    if manifest.verification is None:
        return None
    try:
        return Proof.model_validate(manifest.verification)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        notes.append(f"The manifest records a verification that cannot be read: {where}")
        return None
