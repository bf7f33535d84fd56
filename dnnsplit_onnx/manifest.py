"""The manifest beside the slices: what was cut, what crosses, and hashes of every file.

Whoever runs slices reads the manifest and never the plan's reasons. A manifest may come
from anywhere, so it is validated in full, and its paths may not leave its folder.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from dnnsplit_onnx.errors import ManifestError

SCHEMA_VERSION = 1
FILE_NAME = "manifest.json"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class Port(_Record):
    """A value that enters or leaves a slice.

    Attributes:
        name: The value's name, the same in every slice.
        dtype: Element type as onnx spells it in lower case (`float`, `int64`), None if unknown.
        shape: A number, a symbolic name or None for each dimension; None if the rank is
            unknown.
        kind: "tensor", or "sequence", "optional", "map".
    """

    name: str
    dtype: str | None = None
    shape: tuple[int | str | None, ...] | None = None
    kind: str = "tensor"


class DataFile(_Record):
    """A file of weights that belongs to a slice, relative to the manifest."""

    file: str
    sha256: Sha256
    nbytes: Annotated[int, Field(ge=0)]

    @field_validator("file")
    @classmethod
    def _inside(cls, value: str) -> str:
        return _safe(value)


class SliceRecord(_Record):
    """One tier's part.

    Attributes:
        tier: The tier's name.
        file: Its ONNX file, relative to the manifest; None for a tier without work.
        sha256: SHA-256 of that file.
        nbytes: Size of that file.
        start, stop: The positions it runs.
        inputs: Values it reads: model inputs and values from lower tiers.
        outputs: Values it makes for higher tiers, and model outputs made here.
        forward: Values that pass through this tier untouched, on their way up.
        data: Files of weights beside the ONNX file.
    """

    tier: str
    file: str | None
    sha256: Sha256 | None = None
    nbytes: int | None = None
    start: int
    stop: int
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    forward: tuple[str, ...] = ()
    data: tuple[DataFile, ...] = ()

    @field_validator("file")
    @classmethod
    def _inside(cls, value: str | None) -> str | None:
        return None if value is None else _safe(value)


class ModelRecord(_Record):
    """The model that was cut.

    Attributes:
        path: Where it lay, relative to the manifest's folder where that is possible.
        sha256: SHA-256 of the ONNX file (files of external weights are not part of it).
        inputs, outputs: What the whole model reads and makes.
    """

    path: str
    sha256: Sha256
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()


class Manifest(_Record):
    """A folder of slices.

    Attributes:
        schema_version: Of this file.
        producer: The tool and its version.
        model: What was cut.
        plan: The plan, as `Plan.to_dict` gives it.
        slices: One a tier, from tier 0 up.
        candidates: Slices of other ranges, one for each tier and range that a plan over the
            candidate cuts may use; those of one tier share one file of weights.
        random: Names of nodes that draw random numbers; their values differ from run to run.
    """

    schema_version: int
    producer: str
    model: ModelRecord
    plan: dict[str, Any]
    slices: tuple[SliceRecord, ...]
    candidates: tuple[SliceRecord, ...] = ()
    random: tuple[str, ...] = ()

    @field_validator("schema_version")
    @classmethod
    def _known_version(cls, value: int) -> int:
        if value != SCHEMA_VERSION:
            raise ValueError(f"schema version {value}, this release reads {SCHEMA_VERSION}")
        return value

    def to_json(self) -> str:
        """The file's text: the same for the same content, always."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def load_manifest(folder: str | Path) -> Manifest:
    """Reads the manifest of a folder of slices.

    Args:
        folder: The folder, or the manifest file itself.

    Raises:
        ManifestError: There is none, or it is not a valid manifest.
    """
    path = Path(folder)
    if path.is_dir():
        path = path / FILE_NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Manifest.model_validate(data)
    except FileNotFoundError:
        raise ManifestError(
            f"no manifest: `{path}`",
            hint="make slices with `dnnsplit-onnx split MODEL --tiers tiers.toml -o DIR`",
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ManifestError(f"`{path}`: `{where}`: {first['msg']}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestError(f"cannot read `{path}`: {error}") from None


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(folder: Path, record: SliceRecord) -> None:
    """Holds a slice's files against the hashes of the manifest.

    Raises:
        ManifestError: A file is missing or is not the one that was written.
    """
    if record.file is None or record.sha256 is None:
        return
    for name, expected in [(record.file, record.sha256), *((d.file, d.sha256) for d in record.data)]:
        try:
            actual = file_sha256(folder / name)
        except OSError as error:
            raise ManifestError(
                f"cannot read slice file `{folder / name}`: {error.strerror}", hint="run `split` again"
            ) from None
        if actual != expected:
            raise ManifestError(
                f"`{folder / name}` is not the file that was written: its checksum differs",
                hint="copy it again, or run `split` again",
            )


def _safe(value: str) -> str:
    path = PurePosixPath(value)
    if not value or path.is_absolute() or ".." in path.parts or "\\" in value or "\0" in value:
        raise ValueError(f"`{value}` leaves the folder of the manifest")
    return value
