"""The machines and links a model may run on: `tiers.toml`.

Tiers stand in a line: tier 0 is where the input data is born, link i joins tier i to tier
i + 1. The file is written by people, so it is validated key by key and every mistake is
reported with its place and value.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dnnsplit_onnx.errors import TopologyError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
Provider = Literal["cpu", "cuda"]

_SECONDS_PER_HOUR = 3600.0


class _Table(BaseModel):
    """A table of the file: no unknown keys, no changes after reading, no coercion of text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Tier(_Table):
    """A kind of machine.

    Attributes:
        name: Also the name of its folder of slices.
        gflops: Effective compute, 10^9 FLOP/s.
        usd_per_hour: What a second of its compute costs, times 3600.
        memory_gb: Limit on weights plus peak live values, 10^9 bytes.
        watts: Power while it computes.
        provider: The onnxruntime execution provider.
    """

    name: Name
    gflops: Positive
    usd_per_hour: NotNegative = 0.0
    memory_gb: Positive | None = None
    watts: NotNegative | None = None
    provider: Provider = "cpu"

    @property
    def usd_per_s(self) -> float:
        """Price of a second of compute."""
        return self.usd_per_hour / _SECONDS_PER_HOUR


class Link(_Table):
    """What joins a tier to the next.

    Attributes:
        bandwidth_mbps: 10^6 bit/s away from tier 0.
        down_mbps: 10^6 bit/s towards tier 0, if it differs.
        delay_ms: One-way delay, paid once per request and direction if anything crosses.
        usd_per_hour: Price of a second of transfer, times 3600.
        usd_per_gb: Price of 10^9 bytes, in place of `usd_per_hour`.
        watts: Power while it transfers.
    """

    bandwidth_mbps: Positive
    down_mbps: Positive | None = None
    delay_ms: NotNegative = 0.0
    usd_per_hour: NotNegative | None = None
    usd_per_gb: NotNegative | None = None
    watts: NotNegative | None = None

    @model_validator(mode="after")
    def _one_price(self) -> Link:
        if self.usd_per_hour is not None and self.usd_per_gb is not None:
            raise ValueError("give `usd_per_hour` or `usd_per_gb`, not both")
        return self


class Limits(_Table):
    """What a plan must keep to.

    Attributes:
        deadline_ms: Latency may not exceed it.
        budget_usd: Cost of a request may not exceed it.
        energy_j: Energy of a request may not exceed it.
        return_output: Whether model outputs must come back to tier 0.
    """

    deadline_ms: Positive | None = None
    budget_usd: NotNegative | None = None
    energy_j: Positive | None = None
    return_output: bool = False


class Topology(_Table):
    """Tiers in a line, the links between them, and the limits."""

    tier: Annotated[tuple[Tier, ...], Field(min_length=1)]
    link: tuple[Link, ...] = ()
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _fits_together(self) -> Topology:
        names = [tier.name.lower() for tier in self.tier]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two tiers are named `{name}`")
        if len(self.link) != len(self.tier) - 1:
            raise ValueError(
                f"{len(self.tier)} tiers need {len(self.tier) - 1} links, one between each and the next; "
                f"there are {len(self.link)}"
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tiers."""
        return tuple(tier.name for tier in self.tier)

    def with_limits(self, **changes: Any) -> Topology:
        """The same topology with some limits replaced; None leaves a limit as it is.

        Raises:
            TopologyError: A limit is not a positive number.
        """
        given = {key: value for key, value in changes.items() if value is not None}
        if not given:
            return self
        try:
            limits = Limits.model_validate(self.limits.model_dump() | given)
        except ValidationError as error:
            raise _as_topology_error(error, "limits") from None
        return self.model_copy(update={"limits": limits})


def load_topology(path: str | Path) -> Topology:
    """Reads a tiers file.

    Args:
        path: A TOML file, as section 7 of the design describes.

    Raises:
        TopologyError: The file cannot be read, or says something impossible; the message
            names the key and the value.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode()
        data = tomllib.loads(text)
    except FileNotFoundError:
        raise TopologyError(f"no such file: `{path}`") from None
    except OSError as error:
        raise TopologyError(f"cannot read `{path}`: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TopologyError(f"`{path}` is not TOML: {error}") from None
    return parse_topology(data, str(path))


def parse_topology(data: dict[str, Any], source: str) -> Topology:
    """A topology from the tables of a tiers file.

    Args:
        data: The file as `tomllib` reads it.
        source: Its name, for errors.

    Raises:
        TopologyError: As for `load_topology`.
    """
    try:
        # JSON's validation mode takes lists for tuples and whole numbers for reals, and
        # still refuses text for a number.
        return Topology.model_validate(_tuples(data))
    except ValidationError as error:
        raise _as_topology_error(error, source) from None


def _tuples(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _tuples(value) for key, value in data.items()}
    if isinstance(data, list):
        return tuple(_tuples(value) for value in data)
    return data


_FIX = {
    "extra_forbidden": "unknown key; is it misspelt?",
    "missing": "this key is required",
    "greater_than": "give a number above 0",
    "greater_than_equal": "give 0 or more",
    "finite_number": "give a finite number",
    "string_pattern_mismatch": "use letters, digits, `-`, `_` and `.`",
}


def _as_topology_error(error: ValidationError, source: str) -> TopologyError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    what = first["msg"].removeprefix("Value error, ")
    what = what[0].lower() + what[1:]
    if not key:
        return TopologyError(f"{source}: {what}")
    value = f" = {first['input']!r}" if not isinstance(first["input"], dict | tuple) else ""
    kind = first["type"]
    reason = "unknown key" if kind == "extra_forbidden" else what
    hint = _FIX.get(kind)
    if kind == "extra_forbidden":
        hint = _known_keys(first["loc"])
    return TopologyError(f"{source}: `{key}`{value}: {reason}", hint=hint)


def _known_keys(loc: tuple[int | str, ...]) -> str:
    table = {"tier": Tier, "link": Link, "limits": Limits}.get(str(loc[0]), Topology)
    if len(loc) == 1:
        table = Topology
    return f"known keys here: {', '.join(table.model_fields)}"
