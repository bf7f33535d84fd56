"""What codes lose: each coded value against its bound, and the outputs against the whole model's.

1. A coded value is compared where it is coded: what the slice above reads of it against what the
   slice below wrote, in the chain with all its codes. Each element keeps the code's bound.
2. The outputs of that chain are held against the whole model's: the largest error over the largest
   output element, and the share of samples whose largest element stands in the same place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from pydantic import BaseModel, ValidationError

from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.graph.shapes import ValueType
from dnnsplit_onnx.runtime.provider import runtime
from dnnsplit_onnx.runtime.sessions import SessionOptions, open_session
from dnnsplit_onnx.runtime.values import Value, to_python
from dnnsplit_onnx.slicing.coding import NO_CODE, Coded, bound, faults
from dnnsplit_onnx.slicing.manifest import Manifest


@dataclass(frozen=True, slots=True)
class CodeCheck:
    """One coded value of one link.

    Attributes:
        value: The value.
        code: Its code.
        tier: The tier that writes it.
        bound: The largest error that some element may have.
        largest_error: The largest that was seen.
        kept: Whether every element kept its own bound.
        ratio: Bytes of the value over those that cross.
    """

    value: str
    code: str
    tier: str
    bound: float
    largest_error: float
    kept: bool
    ratio: float


@dataclass(frozen=True, slots=True)
class OutputError:
    """How far a chain with codes is from the whole model.

    Attributes:
        relative: The largest error of an output over that output's largest element.
        agreement: The share of samples whose largest elements stand in the same places.
        samples: How many there were.
    """

    relative: float
    agreement: float
    samples: int


class _Recorded(BaseModel):
    """What a manifest records of codes, as `verify --json` prints it."""

    codes: tuple[CodeCheck, ...] = ()
    output_error: float | None = None
    agreement: float | None = None
    samples: int | None = None


def recorded_codes(manifest: Manifest) -> tuple[tuple[CodeCheck, ...], OutputError | None]:
    """What was verified of codes when slices were made; nothing if that is not recorded, or unreadable."""
    try:
        found = _Recorded.model_validate(manifest.verification or {})
    except ValidationError:
        return (), None
    if found.output_error is None or found.agreement is None or found.samples is None:
        return found.codes, None
    return found.codes, OutputError(found.output_error, found.agreement, found.samples)


def check_codes(folder: Path, manifest: Manifest, sets: Sequence[Mapping[str, Value]]) -> list[CodeCheck]:
    """Runs the slices of a manifest and holds each coded value against its bound.

    Args:
        folder: The folder of the manifest.
        manifest: What it holds.
        sets: Inputs of the model.

    Raises:
        ModelError: A slice fails, or writes what its code cannot hold.
    """
    ort = runtime()
    lives: list[dict[str, Value]] = [dict(values) for values in sets]
    found: dict[tuple[str, str], CodeCheck] = {}
    # By tensor: who wrote it, and the value before it was.
    sources: list[dict[str, tuple[str, np.ndarray]]] = [{} for _ in sets]
    for record in manifest.slices:
        if record.file is None:
            continue
        reads, writes = _by_value(record.inputs), _by_value(record.outputs)
        inner = [value for value in dict.fromkeys((*reads, *writes)) if not _enters(value, record.inputs)]
        inner = [value for value in inner if all(port.name != value for port in record.outputs)]
        session = open_session(
            folder / record.file,
            SessionOptions(optimize=False),
            label=f"slice `{record.tier}`",
            expose=inner,
        )
        for live, source in zip(lives, sources, strict=True):
            made = session.run(live)
            arrays = {name: to_python(ort, value) for name, value in made.items()}
            for fault in faults(record.coded_outputs, arrays):
                raise ModelError(f"slice `{record.tier}`: {fault}", hint=NO_CODE)
            for value, tensors in reads.items():
                tier, raw = source[tensors[0]]
                code = next(port.code for port in record.inputs if port.name == tensors[0]) or ""
                sent = sum(np.asarray(to_python(ort, live[name])).nbytes for name in tensors)
                check = _check(value, code, tier, raw, arrays[value], sent)
                before = found.get((value, tier))
                found[value, tier] = check if before is None else _worse(before, check)
            for value, tensors in writes.items():
                raw = arrays[value] if value in arrays else to_python(ort, live[value])
                source[tensors[0]] = (record.tier, np.asarray(raw))
            live.update((name, value) for name, value in made.items() if name not in inner)
    return list(found.values())


def output_error(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> OutputError:
    """How far outputs are from those that they should be; of tensors of numbers alone.

    Args:
        ours: The outputs of each sample, by name.
        theirs: What they should be.
    """
    relative, agreeing = 0.0, 0
    largest: dict[str, float] = {}
    errors: dict[str, float] = {}
    for mine, whole in zip(ours, theirs, strict=True):
        agrees = True
        for name, want in whole.items():
            got = mine[name]
            if not isinstance(want, np.ndarray) or want.dtype.kind not in "fiub" or not want.size:
                continue
            if got.shape != want.shape:
                errors[name], agrees = np.inf, False
                continue
            a, b = np.asarray(got, np.float64), np.asarray(want, np.float64)
            errors[name] = max(errors.get(name, 0.0), _largest(a - b) if not np.array_equal(a, b) else 0.0)
            largest[name] = max(largest.get(name, 0.0), _largest(b))
            agrees &= int(a.argmax()) == int(b.argmax())
        agreeing += agrees
    for name, error in errors.items():
        if error:
            scale = largest.get(name, 0.0)
            relative = max(relative, error / scale if scale else np.inf)
    return OutputError(relative, agreeing / len(theirs), len(theirs))


def _largest(array: np.ndarray) -> float:
    """The largest magnitude; infinite where there is a NaN."""
    return float(np.nan_to_num(np.abs(array), nan=np.inf).max(initial=0.0))


def _by_value(ports: Sequence[Any]) -> dict[str, list[str]]:
    """The tensors of each coded value."""
    found: dict[str, list[str]] = {}
    for port in ports:
        if port.stands_for is not None:
            found.setdefault(port.stands_for, []).append(port.name)
    return found


def _enters(value: str, inputs: Sequence[Any]) -> bool:
    return any(port.name == value for port in inputs)


def _check(value: str, code: str, tier: str, raw: np.ndarray, arrived: np.ndarray, sent: int) -> CodeCheck:
    if not raw.size:
        return CodeCheck(value, code, tier, 0.0, 0.0, True, 1.0)
    dtype = helper.np_dtype_to_tensor_dtype(raw.dtype)
    coded = Coded(value, code, ValueType("tensor", dtype or TensorProto.FLOAT, raw.shape), value)
    limit = bound(coded, raw)
    error = np.abs(arrived.astype(np.float64) - raw.astype(np.float64))
    kept = bool((error <= limit).all())
    return CodeCheck(
        value, code, tier, float(limit.max()), float(error.max()), kept, raw.nbytes / max(sent, 1)
    )


def _worse(one: CodeCheck, other: CodeCheck) -> CodeCheck:
    return CodeCheck(
        one.value,
        one.code,
        one.tier,
        max(one.bound, other.bound),
        max(one.largest_error, other.largest_error),
        one.kept and other.kept,
        min(one.ratio, other.ratio),
    )
