"""What `bench --json` printed, read and checked."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dnnsplit_onnx.errors import InputError, first_fault

_Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Timing(_Record):
    """The latency of one thing.

    Attributes:
        provider: What it ran on.
        p50_ms, p95_ms, p99_ms: Percentiles.
        runs: How many there were.
    """

    provider: str
    p50_ms: _Milliseconds
    p95_ms: _Milliseconds
    p99_ms: _Milliseconds
    runs: Annotated[int, Field(ge=1)]


class SliceTiming(Timing):
    """The latency of a tier's slice."""

    tier: str


class Bench(_Record):
    """What `bench` measured on one machine, without links.

    Attributes:
        slices: A tier's slice each.
        chain: All of them, one after another.
        whole: The model uncut.
        machine: What they ran on.
        notes: What was left out.
    """

    slices: tuple[SliceTiming, ...]
    chain: Timing | None = None
    whole: Timing | None = None
    machine: dict[str, Any] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


def load_bench(path: Path, tiers: Collection[str]) -> Bench:
    """Reads what `bench --json` printed.

    Args:
        path: The file.
        tiers: Names of the tiers that it may speak of.

    Raises:
        InputError: It cannot be read, is something else, or is of other slices.
    """
    hint = "write one with `dnnsplit-onnx bench DIR --json > bench.json`"
    try:
        found = Bench.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"cannot read `{path}`: {error.strerror}", hint=hint) from None
    except ValidationError as error:
        raise InputError(f"`{path}` is not what `bench` printed: {first_fault(error)}", hint=hint) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"`{path}` is not JSON: {error}", hint=hint) from None
    strange = next((timing.tier for timing in found.slices if timing.tier not in tiers), None)
    if strange is not None:
        raise InputError(
            f"`{path}` is of other slices: they have no tier `{strange}`",
            hint=f"their tiers: {', '.join(tiers)}",
        )
    return found
