"""A measured profile: how long a model takes on one machine, segment by segment.

A profile is a JSON file made by `dnnsplit-onnx profile` on the machine it describes, and
read wherever plans are made. It names the model it was measured on, and is refused for
another one. Two things were timed:

- the segments between a few cuts, scaled to add up to the whole;
- at each of these cuts, the two parts it makes, each run by itself.

What a cut itself takes, fusions lost and layouts converted twice, is in the parts alone. So
they are what the bottom tier takes, which runs everything up to a cut, and the top tier, which
runs everything from one: predictions for two tiers are measurements. A tier between the two
runs segments. Between the cuts that were measured, time is shared out by work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dnnsplit_onnx.errors import ProfileError, first_fault
from dnnsplit_onnx.files import read_bounded, written_whole

SCHEMA_VERSION = 1

MEASURE_AGAIN = "measure again: dnnsplit-onnx profile MODEL --tier NAME -o FILE"

#: Where a tier stands in the line.
Place = Literal["bottom", "between", "top"]

# Thirty years, and more nodes than any model has: so that sums of them stay numbers.
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
_CodeSeconds = Annotated[float, Field(ge=0, le=1e4, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=1 << 32)]
# A prompt's passes, a last one that is shorter, and a step.
_MOST_PHASES = 8


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=(), defer_build=True)


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


class Parts(_Record):
    """The two parts that one cut makes, each run by itself, the fixed cost of a run included.

    They are brought to the speed that the machine had when the whole was measured.

    Attributes:
        position: The cut.
        below_s, above_s: Median seconds of a run.
        spread_s: Half the distance between the quartiles, of the part that spreads more.
        runs: Measured runs.
    """

    position: Count
    below_s: Seconds
    above_s: Seconds
    spread_s: Seconds
    runs: Count


class CodeTimes(_Record):
    """One value written in one code.

    Attributes:
        value: Its name.
        code: The code, `raw` among them.
        nbytes: Bytes of its tensors.
        packed_nbytes: Median of their bytes once they are packed; None if that was not measured.
        spread: Half the distance between the quartiles of these, over their median.
        encode_s, decode_s: Median seconds to write and to read it.
        pack_s, unpack_s: Median seconds to pack and to unpack its tensors.
        error: Largest error of an element that was written and read, over the value's largest; None
            if that was not measured, or is not finite.
    """

    value: str
    code: str
    nbytes: Count
    packed_nbytes: Count | None = None
    spread: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    encode_s: _CodeSeconds = 0.0
    decode_s: _CodeSeconds = 0.0
    pack_s: _CodeSeconds = 0.0
    unpack_s: _CodeSeconds = 0.0
    error: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class TwoSpeeds(_Record):
    """What the whole model took at each of a machine's two speeds.

    Attributes:
        fast_s, slow_s: Median seconds of the runs at each.
        slow_share: The share of runs at the slower one. All seconds of the profile are means of both by it.
    """

    fast_s: Seconds
    slow_s: Seconds
    slow_share: Annotated[float, Field(ge=0, le=1)]


class Measurement(_Record):
    """What one machine was measured to take for one pass of a model.

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
        parts: The parts of each cut between segments; none in profiles of old.
        node_order: The places of the nodes in the model's file, in the order that positions
            count, so that times can be told to the nodes of any other order; None in
            profiles of earlier releases.
        assumed: Those of the bindings that nobody gave: sizes at which the model runs.
        codes: With `--codes`, the values of the cuts in every code.
        speeds: The machine's two speeds; None if there was but one.
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
    parts: tuple[Parts, ...] = ()
    node_order: tuple[Count, ...] | None = None
    assumed: dict[str, int] = Field(default_factory=dict)
    codes: tuple[CodeTimes, ...] = ()
    speeds: TwoSpeeds | None = None

    @model_validator(mode="after")
    def _without_gaps(self) -> Self:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"schema version {self.schema_version}, this release reads {SCHEMA_VERSION}")
        ends = [0, *(segment.stop for segment in self.segments)]
        starts = [*(segment.start for segment in self.segments), self.nodes]
        if ends != starts or any(s.start >= s.stop for s in self.segments):
            raise ValueError("its segments do not cover the model from the first node to the last")
        if self.node_seconds is not None and len(self.node_seconds) != self.nodes:
            raise ValueError("it has not one time a node")
        if self.node_order is not None and len(set(self.node_order)) != self.nodes:
            raise ValueError("its order is not one of all its nodes")
        cuts = [part.position for part in self.parts]
        if cuts != sorted(set(cuts)) or not set(cuts) <= {s.stop for s in self.segments[:-1]}:
            raise ValueError("its parts are not of the cuts between its segments")
        return self

    def seconds_below(
        self, flops: NDArray[np.int64], place: Place = "between", order: Sequence[int] | None = None
    ) -> NDArray[np.float64]:
        """Seconds of each prefix of an order, on a tier at some place of the line.

        A stage takes the difference of two of them. The fixed cost of a run is in it where
        the stage begins with the first node; on the top tier, where it ends with the last.

        Args:
            flops: Shape (n,): work of each node of the profile's order, by which the time of a
                segment is shared out where there are no times of nodes.
            place: Where the tier stands: what the `bottom` and the `top` tier run is what
                was measured at each cut.
            order: The positions of the profile's order, in another order: each node takes
                there what it takes here.

        Returns:
            Shape (n + 1,), ascending from 0.
        """
        net = self._segments_below(flops)
        # What all takes, less the fixed cost of a run.
        most = max(self.whole_s - self.overhead_s, 0.0) if self.parts else net[-1]
        if self.parts and place != "between":
            taken = {
                part.position: (part.below_s if place == "bottom" else self.whole_s - part.above_s)
                - (self.overhead_s if place == "bottom" else 0.0)
                for part in self.parts
            }
            net = _through(net, taken | {0: 0.0, self.nodes: most})
        if order is not None:
            net = np.concatenate(([0.0], np.cumsum(np.diff(net)[list(order)])))
        if self.parts:
            net[self.nodes if place == "top" else 1 :] += self.overhead_s
        return net

    def _segments_below(self, flops: NDArray[np.int64]) -> NDArray[np.float64]:
        """Seconds of each prefix by the segments alone, shape (n + 1,)."""
        shares = np.array(self.node_seconds) if self.node_seconds is not None else flops.astype(np.float64)
        below = np.zeros(self.nodes + 1)
        for segment in self.segments:
            part = shares[segment.start : segment.stop]
            total = part.sum()
            # A segment without counted work still took time: an equal share for each node.
            weights = part / total if total > 0 else np.full(len(part), 1 / len(part))
            below[segment.start + 1 : segment.stop + 1] = segment.seconds * weights
        summed: NDArray[np.float64] = np.cumsum(below)
        return summed


class Profile(Measurement):
    """What one machine was measured to take.

    Attributes:
        phases: Of a text, what was measured of its other passes: this is of those over the prompt.
    """

    # Left out where there are none, so that the profile of one run is written as it always was.
    phases: tuple[Measurement, ...] = Field(
        default=(), max_length=_MOST_PHASES, exclude_if=lambda phases: not phases
    )

    def at(self, bindings: Mapping[str, int]) -> Measurement:
        """What was measured at some sizes, of the passes of a text; this where nothing was."""
        return next((one for one in (self, *self.phases) if one.bindings == dict(bindings)), self)

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Writes the profile to a file, whole or not at all.

        Raises:
            OutputError: The file exists, and `force` is not given, or it cannot be written.
        """
        with written_whole(Path(path), force=force) as file:
            file.write(self.to_json().encode())

    def __repr__(self) -> str:
        return f"<Profile of tier {self.tier}, {self.model}, {self.whole_s * 1e3:.4g} ms on {self.provider}>"

    __str__ = __repr__

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"


def _through(shape: NDArray[np.float64], taken: Mapping[int, float]) -> NDArray[np.float64]:
    """An ascending curve through given points, between them of the shape of another.

    Args:
        shape: Shape (n + 1,), ascending from 0.
        taken: Values at some positions, 0 and n among them; one that noise has put below
            that of an earlier position, or above the last one, is taken to equal it.
    """
    positions = sorted(taken)
    values = np.clip(np.maximum.accumulate([taken[at] for at in positions]), 0.0, taken[positions[-1]])
    curve = np.zeros_like(shape)
    for (start, low), (stop, high) in pairwise(zip(positions, values.tolist(), strict=True)):
        part = shape[start : stop + 1] - shape[start]
        share = part / part[-1] if part[-1] > 0 else np.linspace(0.0, 1.0, stop - start + 1)
        curve[start : stop + 1] = low + (high - low) * share
    return curve


def load_profile(path: str | Path) -> Profile:
    """Reads a profile.

    Raises:
        ProfileError: The file cannot be read or is not a profile.
    """
    return parse_profile(profile_text(path), str(path))


def profile_text(path: str | Path) -> bytes:
    """The text of a file that should be a profile.

    Raises:
        ProfileError: The file cannot be read.
    """
    try:
        return read_bounded(Path(path))
    except FileNotFoundError:
        raise ProfileError(
            f"no such profile: `{path}`",
            hint="measure one on that machine: dnnsplit-onnx profile MODEL --tier NAME -o FILE",
        ) from None
    except (OSError, ValueError) as error:
        raise ProfileError(f"cannot read profile `{path}`: {error}") from None


def parse_profile(text: bytes, source: str) -> Profile:
    """A profile from the text of its file.

    Args:
        text: The file's content.
        source: Its name, for errors.

    Raises:
        ProfileError: It is not a profile.
    """
    try:
        return Profile.model_validate(json.loads(text.decode()))
    except ValidationError as error:
        raise ProfileError(f"profile `{source}`: {first_fault(error)}") from None
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"cannot read profile `{source}`: {error}") from None


def check_profile(
    profile: Measurement, source: str, *, sha256: str, provider: str, bindings: Mapping[str, int]
) -> None:
    """Refuses a profile that was measured on something else.

    Args:
        profile: The profile.
        source: Its file, for errors.
        sha256: The model's.
        provider: The tier's.
        bindings: Numbers bound to symbolic dimensions.

    Raises:
        ProfileError: It is of another model, provider or binding.
    """
    differences: list[tuple[str, Any, Any]] = [
        ("model", profile.model_sha256[:12], sha256[:12]),
        ("provider", profile.provider, provider),
        ("bindings", dict(profile.bindings), dict(bindings)),
    ]
    for what, measured, wanted in differences:
        if measured != wanted:
            fix = f'if the tier runs on it, write provider = "{measured}" there; else {MEASURE_AGAIN}'
            raise ProfileError(
                f"profile `{source}` was measured with another {what}: {measured}, not {wanted}",
                hint=fix if what == "provider" else MEASURE_AGAIN,
            )
