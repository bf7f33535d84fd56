"""A predictor: how long one machine takes for a node, by its kind, fitted on other models.

A predictor is a JSON file made by `dnnsplit-onnx profile --predict` on the machine it
describes. It stands in a tiers file where a profile does, and holds for every model: a node of
a known kind takes

    seconds = fixed + sum over amounts of coefficient x amount,    all from 0 up

as in Neurosurgeon (Kang et al., ASPLOS 2017), which fits a regression per layer type. The file
keeps what it was off by on each model that it was fitted on, when fitted on the others alone.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dnnsplit_onnx.errors import ProfileError, first_fault
from dnnsplit_onnx.files import written_whole
from dnnsplit_onnx.machines.profiles import Place, Profile, Seconds, parse_profile, profile_text

FIT_AGAIN = "fit one: dnnsplit-onnx profile --predict A.onnx --predict B.onnx --tier NAME -o FILE"

_Coefficient = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Kind(_Record):
    """How long nodes of one kind take.

    Attributes:
        fixed_s: Seconds of a node that has nothing to do.
        per: Seconds for each unit of `amounts`, in that order.
        nodes: How many nodes it was fitted on.
    """

    fixed_s: Seconds
    per: tuple[_Coefficient, ...]
    nodes: Annotated[int, Field(ge=0)]


class Trial(_Record):
    """A model that was left out, and predicted from the others.

    Attributes:
        model: Its file.
        measured_s, predicted_s: Seconds of the whole model.
    """

    model: str
    measured_s: Seconds
    predicted_s: Seconds

    @property
    def error(self) -> float:
        """How far the prediction is off, 0.1 being ten percent too long."""
        return self.predicted_s / self.measured_s - 1 if self.measured_s else 0.0


class Predictor(_Record):
    """What one machine takes for a node.

    Attributes:
        schema_version: Of this form of the file.
        what: What tells it from a profile.
        producer: Who wrote it.
        tier: The tier it was made for.
        provider: The execution provider that ran.
        threads: Intra-operator threads, 0 for onnxruntime's choice.
        amounts: What is counted of a node, by name.
        kinds: How long nodes take, by kind.
        other: The same for kinds that none of the models had.
        overhead_s: Fixed cost of one run, whatever runs.
        trials: Each model, left out.
        machine: What was measured: processor, cores, system.
        versions: Of onnxruntime and this package.
    """

    schema_version: Literal[1]
    what: Literal["predictor"]
    producer: str
    tier: str
    provider: str
    threads: int
    amounts: tuple[str, ...]
    kinds: dict[str, Kind]
    other: Kind
    overhead_s: Seconds
    trials: tuple[Trial, ...]
    machine: dict[str, str | int | float]
    versions: dict[str, str]

    @property
    def median_error(self) -> float | None:
        """Median of the errors on models left out, signs dropped; None if none was left out."""
        return statistics.median(abs(trial.error) for trial in self.trials) if self.trials else None

    @property
    def within_tenth(self) -> float | None:
        """The share of models left out that were predicted within 10%."""
        close = [abs(trial.error) <= 0.1 for trial in self.trials]
        return sum(close) / len(close) if close else None

    def node_seconds(self, kinds: Sequence[str], amounts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Seconds of nodes.

        Args:
            kinds: One a node.
            amounts: Shape (n, a): of each node, as `amounts` names them.
        """
        rows = [self.kinds.get(kind, self.other) for kind in kinds]
        if not rows:
            return np.zeros(0)
        fixed, per = np.array([row.fixed_s for row in rows]), np.array([row.per for row in rows])
        seconds: NDArray[np.float64] = fixed + (per * amounts).sum(axis=1)
        return seconds

    def seconds_below(
        self, kinds: Sequence[str], amounts: NDArray[np.float64], place: Place = "between"
    ) -> NDArray[np.float64]:
        """Seconds of each prefix, shape (n + 1,); the fixed cost of a run as in a profile."""
        below = np.concatenate(([0.0], np.cumsum(self.node_seconds(kinds, amounts))))
        below[-1 if place == "top" else 1 :] += self.overhead_s if len(below) > 1 else 0.0
        return below

    def unknown(self, kinds: Sequence[str]) -> tuple[str, ...]:
        """Kinds that none of the models had."""
        return tuple(sorted({kind for kind in kinds if kind not in self.kinds}))

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Writes the predictor to a file, whole or not at all.

        Raises:
            OutputError: The file exists, and `force` is not given, or it cannot be written.
        """
        with written_whole(Path(path), force=force) as file:
            file.write(self.to_json().encode())

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """The predictor as JSON-ready data, with its errors summed up."""
        data = self.model_dump(mode="json")
        return {**data, "median_error": self.median_error, "within_tenth": self.within_tenth}

    def records(self) -> list[dict[str, Any]]:
        """A row for each model left out."""
        return [{**trial.model_dump(), "error": trial.error} for trial in self.trials]

    def __repr__(self) -> str:
        return f"<Predictor of tier {self.tier}, {len(self.kinds)} kinds of nodes on {self.provider}>"

    __str__ = __repr__


#: What a tier's `profile` may be: measured on the model itself, or predicted from others.
Timings = Profile | Predictor


def load_timings(path: str | Path) -> Timings:
    """Reads a profile or a predictor, whichever the file is.

    Raises:
        ProfileError: The file cannot be read or is neither.
    """
    return parse_timings(profile_text(path), str(path))


def parse_timings(text: bytes, source: str) -> Timings:
    """A profile or a predictor from the text of its file.

    Raises:
        ProfileError: It is neither.
    """
    try:
        data = json.loads(text.decode())
    except (ValueError, RecursionError):
        return parse_profile(text, source)  # says what is wrong
    if not isinstance(data, dict) or data.get("what") != "predictor":
        return parse_profile(text, source)
    try:
        predictor = Predictor.model_validate(data)
    except ValidationError as error:
        raise ProfileError(f"predictor `{source}`: {first_fault(error)}", hint=FIT_AGAIN) from None
    widths = {len(kind.per) for kind in (*predictor.kinds.values(), predictor.other)}
    if widths != {len(predictor.amounts)}:
        raise ProfileError(
            f"predictor `{source}`: its kinds have not one coefficient for each of its amounts",
            hint=FIT_AGAIN,
        )
    return predictor
