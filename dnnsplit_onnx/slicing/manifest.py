"""The manifest beside the slices: what was cut, what crosses, and digests of every file.

Whoever runs slices reads the manifest and never the plan's reasons. A manifest may come
from anywhere, so it is validated in full, and its paths may not leave its folder.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dnnsplit_onnx.errors import ManifestError, first_fault
from dnnsplit_onnx.files import read_bounded
from dnnsplit_onnx.graph.digests import Algorithm, identity
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.machines.providers import Provider
from dnnsplit_onnx.views import Tabled

SCHEMA_VERSION = 2
FILE_NAME = "manifest.json"

Digest = Annotated[str, Field(pattern=r"^([0-9a-f]{8}|[0-9a-f]{32}|[0-9a-f]{64})$")]
Position = Annotated[int, Field(ge=0, le=1 << 32)]
# It is the name of a folder, and of a model in a URL.
TierName = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x20\x7f/\\]+$")]


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class _Digested(_Record):
    """What lies in a file.

    Attributes:
        digests: What the file is held against, by algorithm (`graph.digests`).
    """

    digests: dict[Algorithm, Digest] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _of_version_1(cls, data: Any) -> Any:
        """In schema version 1 each file has one digest, the algorithm its key."""
        if not isinstance(data, dict) or "digests" in data:
            return data
        named = {key: data[key] for key in ("sha256", "crc32") if data.get(key) is not None}
        return data | {"digests": named}


class DataFile(_Digested):
    """A file of weights that belongs to a slice.

    Attributes:
        file: Relative to the manifest.
        nbytes: Its size.
    """

    file: str
    nbytes: Annotated[int, Field(ge=0)]

    @field_validator("file")
    @classmethod
    def _inside(cls, value: str) -> str:
        return _safe(value)


class TilePort(Port):
    """A value of a tile: some rows of a value of the model, or all of it.

    Attributes:
        axis: The axis of the rows; None for a value that is whole.
        rows: First row and one past the last, counted in the whole value.
    """

    axis: Annotated[int, Field(ge=0, le=64)] | None = None
    rows: tuple[Position, Position] | None = None


class TileRecord(_Digested):
    """What one machine of a tier computes of one region of the tier's slice.

    Attributes:
        machine: The machine that the plan gives it to; any machine of the tier can run it.
        file: Its ONNX file, relative to the manifest.
        nbytes: Size of that file.
        start, stop: The region's positions. Regions follow one another, and those of one slice
            are its positions.
        rows: First row of the value that the region makes last, and one past the last row;
            None where the machine computes the region alone.
        inputs: What it reads, each under the name of the value whose rows they are.
        assemble: What it makes, and where its rows belong.
        data: Files of weights beside the ONNX file.
    """

    machine: TierName
    file: str
    nbytes: int
    start: Position
    stop: Position
    rows: tuple[Position, Position] | None
    inputs: tuple[TilePort, ...]
    assemble: tuple[TilePort, ...]
    data: tuple[DataFile, ...] = ()

    @field_validator("file")
    @classmethod
    def _inside(cls, value: str) -> str:
        return _safe(value)


class SliceRecord(_Digested):
    """One tier's part.

    Attributes:
        tier: The tier's name.
        file: Its ONNX file, relative to the manifest; None for a tier without work.
        nbytes: Size of that file.
        start, stop: The positions it runs.
        inputs: Values it reads: model inputs and values from lower tiers.
        outputs: Values it makes for higher tiers, and model outputs made here.
        forward: Values that pass through this tier untouched, on their way up.
        data: Files of weights beside the ONNX file.
        provider: What the tier runs it on, such as `cpu` or `cuda`; None in manifests of earlier
            releases, which is the CPU.
        provider_options: Options of that provider.
        memory_nbytes: The tier's limit on memory; None if it has none.
        custom_ops: Libraries of operators that the tier names; each is loaded only if somebody
            allows it (`runtime.custom_ops`).
        tiles: The same in parts, where the tier's machines share its rows: region after region,
            tiles of one region in the order of their rows.
    """

    tier: TierName
    file: str | None
    nbytes: int | None = None
    start: Position
    stop: Position
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    forward: tuple[str, ...] = ()
    data: tuple[DataFile, ...] = ()
    provider: Provider | None = None
    provider_options: dict[str, str | bool | int | float] = Field(default_factory=dict)
    memory_nbytes: Annotated[int, Field(gt=0)] | None = None
    custom_ops: tuple[str, ...] = ()
    tiles: tuple[TileRecord, ...] = ()

    @property
    def regions(self) -> tuple[tuple[TileRecord, ...], ...]:
        """The tiles of each region."""
        grouped: dict[tuple[int, int], list[TileRecord]] = {}
        for tile in self.tiles:
            grouped.setdefault((tile.start, tile.stop), []).append(tile)
        return tuple(map(tuple, grouped.values()))

    def of_tile(self, tile: TileRecord) -> SliceRecord:
        """A tile as a slice that its tier can run."""
        return self.model_copy(
            update={
                "file": tile.file,
                "digests": tile.digests,
                "nbytes": tile.nbytes,
                "start": tile.start,
                "stop": tile.stop,
                "inputs": tile.inputs,
                "outputs": tile.assemble,
                "forward": (),
                "data": tile.data,
                "tiles": (),
            }
        )

    @field_validator("file")
    @classmethod
    def _inside(cls, value: str | None) -> str | None:
        return None if value is None else _safe(value)

    @property
    def coded_outputs(self) -> tuple[Port, ...]:
        """Those outputs that are tensors of coded values."""
        return tuple(port for port in self.outputs if port.code is not None)


class ModelRecord(_Digested):
    """The model that was cut.

    Attributes:
        path: Where it lay, relative to the manifest's folder where that is possible.
        inputs, outputs: What the whole model reads and makes.

    Files of external weights are not part of its digests.
    """

    path: str
    digests: dict[Algorithm, Digest] = Field(min_length=1)
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()

    @property
    def sha256(self) -> str:
        """What tells it from other models; see `digests.identity`."""
        return identity(self.digests)


class StateRecord(_Record):
    """What one run hands to the next; the tiers whose slices read it keep it.

    Attributes:
        input: The model input that reads it.
        output: The model output that makes it; None if it stays for a whole sequence.
        kept_if_empty: Whether an output without elements says that it stays as it was.
        fixed: Sizes of named dimensions that no step changes, such as the width of a head; the
            others of a state that nobody gives are 0 at first.
        grows: The axis along which each step appends to it and changes nothing else, so that its
            last positions can be cut off again; None if the graph promises no such thing.
    """

    input: str
    output: str | None
    kept_if_empty: bool = Field(default=False, exclude_if=lambda kept: not kept)
    fixed: dict[str, int] = Field(default_factory=dict, exclude_if=lambda fixed: not fixed)
    grows: Annotated[int, Field(ge=0, le=64)] | None = Field(
        default=None, exclude_if=lambda axis: axis is None
    )

    @property
    def pair(self) -> str:
        """As `load_graph` takes it."""
        return f"{self.input}={self.output or ''}"


class HeadRecord(_Record):
    """What the top slice leaves of a decoder's logits.

    Attributes:
        kind: `argmax` is the likeliest token of each position, `topk` the likeliest ones and their
            logits, `last` the logits of the last position.
        count: How many tokens `topk` has.
        of: The model's output that holds the logits.
        outputs: What takes its place: tokens, and for `topk` their logits.
        words: How many tokens the model knows; None where its file does not say.
    """

    kind: Literal["argmax", "topk", "last"]
    count: Annotated[int, Field(gt=0, le=1 << 20)] | None = Field(
        default=None, exclude_if=lambda count: count is None
    )
    of: str
    outputs: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)]
    words: Annotated[int, Field(gt=0)] | None = Field(default=None, exclude_if=lambda words: words is None)


class Manifest(_Record, Tabled):
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
        states: Values that stay on their tier from one run to the next.
        node_order: Where the plan's order has no name that makes it again (`custom`): the
            places of the nodes in the model's file, in the order that positions count.
        head: What the top slice leaves of the logits; None if all of them.
        verification: What `verify` found of these slices when they were made, as its `--json`
            prints it; None if they were not verified then.
    """

    schema_version: int
    producer: str
    model: ModelRecord
    plan: dict[str, Any]
    slices: Annotated[tuple[SliceRecord, ...], Field(min_length=1)]
    candidates: tuple[SliceRecord, ...] = ()
    random: tuple[str, ...] = ()
    states: tuple[StateRecord, ...] = ()
    node_order: tuple[int, ...] | None = None
    head: HeadRecord | None = Field(default=None, exclude_if=lambda head: head is None)
    verification: dict[str, Any] | None = None

    @field_validator("schema_version")
    @classmethod
    def _known_version(cls, value: int) -> int:
        if value not in range(1, SCHEMA_VERSION + 1):
            raise ValueError(f"schema version {value}, this release reads 1 to {SCHEMA_VERSION}")
        return value

    def records(self) -> list[dict[str, Any]]:
        """A row for each tier."""
        return [
            {
                "tier": one.tier,
                "file": one.file,
                "start": one.start,
                "stop": one.stop,
                "nbytes": one.nbytes,
                "provider": one.provider,
                "inputs": [port.name for port in one.inputs],
                "outputs": [port.name for port in one.outputs],
            }
            for one in self.slices
        ]

    def to_dict(self) -> dict[str, Any]:
        """The manifest as its file has it."""
        return self.model_dump(mode="json")

    @property
    def fresh_inputs(self) -> tuple[Port, ...]:
        """The model's inputs that a request brings: all but states."""
        kept = {state.input for state in self.states}
        return tuple(port for port in self.model.inputs if port.name not in kept)

    @property
    def results(self) -> tuple[Port, ...]:
        """The model's outputs that a request is about: all but states."""
        kept = {state.output for state in self.states}
        return tuple(port for port in self.model.outputs if port.name not in kept)

    @property
    def staying_inputs(self) -> tuple[Port, ...]:
        """The model's inputs that stay for a whole sequence, whose first request brings them."""
        staying = {state.input for state in self.states if state.output is None}
        return tuple(port for port in self.model.inputs if port.name in staying)

    @property
    def state_pairs(self) -> list[str]:
        """The states as `load_graph` takes them."""
        return [state.pair for state in self.states] or ["none"]

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
        text = read_bounded(path)
    except FileNotFoundError:
        raise ManifestError(
            f"no manifest: `{path}`",
            hint="make slices with `dnnsplit-onnx split MODEL --tiers tiers.toml -o DIR`",
        ) from None
    except (OSError, ValueError) as error:
        raise ManifestError(f"cannot read `{path}`: {error}") from None
    return parse_manifest(text, str(path))


def parse_manifest(text: bytes, source: str) -> Manifest:
    """A manifest from the text of its file.

    Args:
        text: The file's content.
        source: Its name, for errors.

    Raises:
        ManifestError: It is not a valid manifest.
    """
    try:
        return Manifest.model_validate(json.loads(text.decode()))
    except ValidationError as error:
        raise ManifestError(f"`{source}`: {first_fault(error)}") from None
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"cannot read `{source}`: {error}") from None


def record_verification(folder: Path, found: dict[str, Any]) -> Manifest:
    """Puts what `verify` found into the manifest of a folder.

    Returns:
        The manifest, as it is now.

    Raises:
        ManifestError: There is none, or it is not valid.
        OSError: It cannot be written.
    """
    proven = load_manifest(folder).model_copy(update={"verification": found})
    (folder / FILE_NAME).write_text(proven.to_json(), encoding="utf-8")
    return proven


def _safe(value: str) -> str:
    path = PurePosixPath(value)
    if not value or path.is_absolute() or ".." in path.parts or "\\" in value or "\0" in value:
        raise ValueError(f"`{value}` leaves the folder of the manifest")
    return value
