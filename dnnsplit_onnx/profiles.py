"""A measured profile: how long a model takes on one machine, segment by segment.

A profile is a JSON file made by `dnnsplit-onnx profile` on the machine it describes, and
read wherever plans are made. It holds the seconds of a run up to each of a few cuts, so a
stage's time is a difference of two of them plus the fixed cost of a run; between these cuts
time is shared out by work. It names the model it was measured on, and is refused for
another one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dnnsplit_onnx.errors import ProfileError

SCHEMA_VERSION = 1

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class Segment(_Record):
    """The nodes between two neighbouring measured cuts.

    Attributes:
        start, stop: Positions.
        seconds: Median time of a run of this segment, its fixed cost taken off, scaled so that all
            segments add up to the whole.
        spread_s: Half the distance between the quartiles.
        runs: Measured runs.
    """

    start: Count
    stop: Count
    seconds: Seconds
    spread_s: Seconds
    runs: Count


class Profile(_Record):
    """What one machine was measured to take.

    Attributes:
        tier: The tier it was made for.
        provider: The execution provider that really ran.
        threads: Intra-operator threads, 0 for onnxruntime's choice.
        model_sha256: The ONNX file.
        order: Name of the node order that positions refer to.
        nodes: Number of nodes in that order.
        bindings: Numbers bound to symbolic dimensions.
        segments: From position 0 to `nodes`, without gaps.
        overhead_s: Fixed cost of one run, whatever runs.
        whole_s: Median time of the whole model.
        machine: What was measured: processor, cores, system.
        versions: Of onnxruntime and this package.
        node_seconds: With `--per-node`, the seconds of each node in order.
    """

    schema_version: int
    producer: str
    tier: str
    provider: str
    threads: Count
    model: str
    model_sha256: str
    order: str
    nodes: Count
    bindings: dict[str, int]
    segments: tuple[Segment, ...]
    overhead_s: Seconds
    whole_s: Seconds
    machine: dict[str, str | int | float]
    versions: dict[str, str]
    node_seconds: tuple[Seconds, ...] | None = None

    @model_validator(mode="after")
    def _without_gaps(self) -> Profile:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"schema version {self.schema_version}, this release reads {SCHEMA_VERSION}")
        ends = [0, *(segment.stop for segment in self.segments)]
        starts = [*(segment.start for segment in self.segments), self.nodes]
        if ends != starts or any(s.start >= s.stop for s in self.segments):
            raise ValueError("its segments do not cover the model from the first node to the last")
        if self.node_seconds is not None and len(self.node_seconds) != self.nodes:
            raise ValueError("it has not one time a node")
        return self

    def seconds_below(self, flops: NDArray[np.int64]) -> NDArray[np.float64]:
        """Seconds of each prefix of the order, the fixed cost of a run left out.

        Args:
            flops: Shape (n,): work of each node, by which the time of a segment is shared
                out where there are no times of nodes.

        Returns:
            Shape (n + 1,), ascending from 0.
        """
        shares = np.array(self.node_seconds) if self.node_seconds is not None else flops.astype(np.float64)
        below = np.zeros(self.nodes + 1)
        for segment in self.segments:
            part = shares[segment.start : segment.stop]
            total = part.sum()
            # A segment without counted work still took time: an equal share for each node.
            weights = part / total if total > 0 else np.full(len(part), 1 / len(part))
            below[segment.start + 1 : segment.stop + 1] = segment.seconds * weights
        return np.cumsum(below)

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"


def load_profile(path: str | Path) -> Profile:
    """Reads a profile.

    Raises:
        ProfileError: The file cannot be read or is not a profile.
    """
    path = Path(path)
    try:
        return Profile.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ProfileError(
            f"no such profile: `{path}`",
            hint="measure one on that machine: dnnsplit-onnx profile MODEL --tier NAME -o FILE",
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        raise ProfileError(f"profile `{path}`: {f'`{where}`: ' if where else ''}{what}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ProfileError(f"cannot read profile `{path}`: {error}") from None


def check_profile(
    profile: Profile, source: str, *, sha256: str, provider: str, order: str, bindings: Mapping[str, int]
) -> None:
    """Refuses a profile that was measured on something else.

    Args:
        profile: The profile.
        source: Its file, for errors.
        sha256: The model's.
        provider: The tier's.
        order: The name of the node order in use.
        bindings: Numbers bound to symbolic dimensions.

    Raises:
        ProfileError: It is of another model, provider, order or binding.
    """
    again = "measure again: dnnsplit-onnx profile MODEL --tier NAME -o FILE"
    differences: list[tuple[str, Any, Any]] = [
        ("model", profile.model_sha256[:12], sha256[:12]),
        ("provider", profile.provider, provider),
        ("node order", profile.order, order),
        ("bindings", dict(profile.bindings), dict(bindings)),
    ]
    for what, measured, wanted in differences:
        if measured != wanted:
            raise ProfileError(
                f"profile `{source}` was measured with another {what}: {measured}, not {wanted}", hint=again
            )
