"""The machines and links a model may run on: `tiers.toml`, or objects made in Python.

    machines = Topology(
        tiers=[Tier("edge", gflops=13.5), Tier("cloud", gflops=19500)],
        links=[Link(bandwidth_mbps=50, delay_ms=10)],
    )
    slower = machines.with_link(0, bandwidth_mbps=5)

Tiers stand in a line: tier 0 is where the input data is born, link i joins tier i to tier
i + 1. People write these figures, in a file or in a program, so every way to make or change
them validates field by field and reports a mistake with its place and value.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.json_schema import SkipJsonSchema

from dnnsplit_onnx.errors import TopologyError, close_names
from dnnsplit_onnx.files import read_bounded
from dnnsplit_onnx.graph.kinds import HEAD_NBYTES, TIERS_FILE, is_extensions, is_model, kind_of
from dnnsplit_onnx.machines.mistakes import explained, first_mistake
from dnnsplit_onnx.machines.predictors import Predictor
from dnnsplit_onnx.machines.profiles import Profile
from dnnsplit_onnx.machines.providers import Provider
from dnnsplit_onnx.machines.toml_text import decoded, line_of, syntax_hint

_LARGEST_NBYTES = 1 << 20
_MOST_TIERS = 1024
_MOST_MACHINES = 64
_MOST_DOTS = 1000
_GIVE_TIERS = "the model goes first, the tiers file after --tiers: MODEL.onnx --tiers tiers.toml"

# No machine, link or price is beyond these: so that quotients and sums of them stay numbers.
_SMALLEST, _LARGEST = 1e-15, 1e15
Positive = Annotated[float, Field(gt=0, ge=_SMALLEST, le=_LARGEST, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=_LARGEST, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
#: Options of a provider, by the names that onnxruntime has for them.
ProviderOptions = dict[Annotated[str, Field(min_length=1, max_length=128)], str | bool | int | float]

_SECONDS_PER_HOUR = 3600.0


def _plain(data: Any) -> Any:
    """Data as strict validation wants it: tuples for lists, Python's own numbers, text for paths.

    Text is never taken for a number, nor a number for a truth value.
    """
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return tuple(_plain(value) for value in data)
    if isinstance(data, Path):
        return str(data)
    return data.item() if isinstance(data, np.generic) else data


class _Table(BaseModel):
    """A table of the file: no unknown keys, no changes after reading, no coercion of text.

    Whoever makes or changes one in Python gets the same checks, and the same errors, as
    somebody who writes the file. Lists pass for tuples and whole numbers for reals.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, populate_by_name=True, defer_build=True
    )

    def __init__(self, /, **fields: Any) -> None:
        try:
            self.__pydantic_validator__.validate_python(_plain(fields), self_instance=self)
        except ValidationError as error:
            raise _as_topology_error(error, type(self).__name__, type(self)) from None

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


class Machine(_Table):
    """One of several machines that share the rows of a tier's stage.

    Attributes:
        name: Of the machine; the first of a tier takes the requests.
        gflops: As for a tier.
        memory_gb_per_s: As for a tier.
        overhead_us: As for a tier.
        profile: As for a tier: what was measured or is predicted on this machine.
    """

    name: Name
    gflops: Positive | None = None
    memory_gb_per_s: Positive | None = None
    overhead_us: NotNegative = 0.0
    profile: str | SkipJsonSchema[Profile | Predictor] | None = None


class Lan(_Table):
    """What joins the machines of a tier: each sends and receives at this rate.

    Attributes:
        bandwidth_mbps: 10^6 bit/s, each way.
        delay_ms: One-way delay, paid once for what a machine is sent and once for its answer.
        trusted: Whether private data may travel on it.
    """

    bandwidth_mbps: Positive
    delay_ms: NotNegative = 0.0
    trusted: bool = False


class Tier(_Table):
    """A kind of machine.

    Attributes:
        name: Also the name of its folder of slices.
        gflops: Effective compute, 10^9 FLOP/s.
        memory_gb_per_s: Memory bandwidth, 10^9 byte/s; with `gflops` it makes a roofline.
        overhead_us: Fixed time of each node, on top of the roofline.
        profile: A measured profile in place of these, or a predictor that was fitted on other
            models: its file, named relative to the tiers file, or the object itself.
        usd_per_hour: What a second of its compute costs, times 3600.
        memory_gb: Limit on weights plus peak live values, 10^9 bytes.
        watts: Power while it computes.
        idle_watts: Power while it waits for other tiers and links of the same request.
        provider: The onnxruntime execution provider.
        provider_options: Its options, by the names that onnxruntime has for them.
        pin: Nodes, or values by the node that makes them, that must run on this tier.
        min_prefix: At least so many of the model's first nodes run on this tier or below.
        max_prefix: At most so many do.
        private: Whether data must stay here until `limits.private_until` has run. Tiers
            below a private one are private too, since the data comes from them.
        machines: Machines that share the stage, each computing some rows; the lowest tier
            alone can have them. They have the speeds, and the tier has none of its own.
        lan: What joins them.
        private_inputs: The same for some of the model's inputs, by their names.
        replicas: Equal machines behind one address: capacity and price times as many.
        usd_per_request: What a request that runs anything here costs besides.
        custom_ops: Libraries of operators that its slice needs: `onnxruntime-extensions`, or
            files, named relative to the tiers file.
    """

    name: Name
    gflops: Positive | None = None
    memory_gb_per_s: Positive | None = None
    overhead_us: NotNegative = 0.0
    profile: str | SkipJsonSchema[Profile | Predictor] | None = None
    usd_per_hour: NotNegative = 0.0
    memory_gb: Positive | None = None
    watts: NotNegative | None = None
    idle_watts: NotNegative = 0.0
    provider: Provider = "cpu"
    provider_options: ProviderOptions = Field(default_factory=dict)
    pin: tuple[str, ...] = ()
    min_prefix: Annotated[int, Field(ge=0)] | None = None
    max_prefix: Annotated[int, Field(ge=0)] | None = None
    private: bool = False
    machines: Annotated[tuple[Machine, ...], Field(alias="machine", max_length=_MOST_MACHINES)] = ()
    lan: Lan | None = None
    private_inputs: tuple[str, ...] = ()
    replicas: Annotated[int, Field(ge=1, le=10_000)] = 1
    usd_per_request: NotNegative = 0.0
    custom_ops: tuple[str, ...] = ()

    def __init__(self, /, name: str | None = None, **fields: Any) -> None:
        super().__init__(**({} if name is None else {"name": name}), **fields)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @model_validator(mode="after")
    def _one_speed(self) -> Tier:
        if self.machines:
            self._check_machines()
            return self
        if self.lan is not None:
            raise ValueError("a `lan` joins machines, and the tier names none: add [[tier.machine]]")
        if (self.gflops is None) == (self.profile is None):
            raise ValueError("give `gflops` (with a roofline, if you like) or `profile`, one of the two")
        if self.profile is not None and (self.memory_gb_per_s is not None or self.overhead_us):
            raise ValueError("a measured `profile` leaves no room for `memory_gb_per_s` and `overhead_us`")
        return self

    def _check_machines(self) -> None:
        if self.gflops is not None or self.profile is not None or self.memory_gb_per_s is not None:
            raise ValueError("its machines have the speeds: take the tier's own away")
        for name, count in Counter(machine.name.lower() for machine in self.machines).items():
            if count > 1:
                raise ValueError(f"two of its machines are named `{name}`")
        for machine in self.machines:
            if (machine.gflops is None) == (machine.profile is None):
                raise ValueError(f"machine `{machine.name}`: give `gflops` or `profile`, one of the two")
        if len(self.machines) > 1 and self.lan is None:
            raise ValueError("several machines need a [tier.lan] between them")
        if _keeps_data(self) and _hands_out(self):
            raise ValueError(
                "a private tier's data may not travel to its other machines: "
                "say `trusted = true` in [tier.lan], or name one machine"
            )

    @property
    def singles(self) -> tuple[Tier, ...]:
        """Each of its machines as a tier of one machine; itself where it names none."""
        if not self.machines:
            return (self,)
        return tuple(
            Tier(
                machine.name,
                gflops=machine.gflops,
                memory_gb_per_s=machine.memory_gb_per_s,
                overhead_us=machine.overhead_us,
                profile=machine.profile,
                provider=self.provider,
                provider_options=self.provider_options,
            )
            for machine in self.machines
        )

    @property
    def cost_model(self) -> str:
        """Where its seconds come from: `gflops`, `roofline` or `profile`."""
        if self.machines:
            return self.singles[0].cost_model
        if self.profile is not None:
            return "profile"
        return "roofline" if self.memory_gb_per_s is not None or self.overhead_us else "gflops"

    @property
    def usd_per_s(self) -> float:
        """Price of a second of compute: all replicas are paid for."""
        return self.usd_per_hour / _SECONDS_PER_HOUR * self.replicas

    @property
    def memory_nbytes(self) -> float:
        """The limit on memory in whole bytes, infinite if there is none."""
        if self.memory_gb is None:
            return math.inf
        nbytes = math.floor(self.memory_gb * 1e9) + 1
        while nbytes / 1e9 > self.memory_gb:  # so that a limit copied from a report is met exactly
            nbytes -= 1
        return nbytes


def _keeps_data(tier: Tier) -> bool:
    """Whether some data must stay on a tier and those below."""
    return tier.private or bool(tier.private_inputs)


def _hands_out(tier: Tier) -> bool:
    """Whether rows travel between its machines on a LAN that private data may not use."""
    return len(tier.machines) > 1 and tier.lan is not None and not tier.lan.trusted


class Link(_Table):
    """What joins a tier to the next.

    Attributes:
        bandwidth_mbps: 10^6 bit/s away from tier 0.
        down_mbps: 10^6 bit/s towards tier 0, if it differs.
        delay_ms: One-way delay, paid once per request and direction if anything crosses.
        usd_per_hour: Price of a second of transfer, times 3600.
        usd_per_gb: Price of 10^9 bytes, in place of `usd_per_hour`.
        watts: Power while it transfers.
        max_mb: Most that a request may send, each way, 10^6 bytes.
        codes: How values may be written for it, besides `raw`: `fp16`, `uint8-channel`, `uint8`,
            and `packed` on top of any of them.
    """

    bandwidth_mbps: Positive
    down_mbps: Positive | None = None
    delay_ms: NotNegative = 0.0
    usd_per_hour: NotNegative | None = None
    usd_per_gb: NotNegative | None = None
    watts: NotNegative | None = None
    max_mb: NotNegative | None = None
    codes: tuple[Literal["raw", "packed", "fp16", "uint8-channel", "uint8"], ...] | None = None

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
        throughput_per_s: So many requests per second, at least, must be sustained.
        return_output: Whether model outputs must come back to tier 0.
        private_until: A node, or a value by the node that makes it: what leaves the private
            tiers may depend on the model's inputs through it alone. Without it, nothing
            may leave them.
    """

    deadline_ms: Positive | None = None
    budget_usd: NotNegative | None = None
    energy_j: Positive | None = None
    throughput_per_s: Positive | None = None
    return_output: bool = False
    private_until: str | None = None


class Workload(_Table):
    """What is asked of the machines.

    Attributes:
        requests_per_s: Requests that all clients together offer; waiting is then part of
            latency (`planning.waiting`), and a plan must sustain the rate.
        clients: Equal machines of tier 0, each with a link 0 of its own, that share the tiers
            above.
    """

    requests_per_s: Positive | None = None
    clients: Annotated[int, Field(ge=1, le=1_000_000)] = 1


class Topology(_Table):
    """Tiers in a line, the links between them, the limits and the workload.

    Attributes:
        input_nbytes: Bytes that a model input takes on a link, by its name, in place of its
            tensor's: those of a JPEG, say, or of uint8 samples that a model reads as floats.
            Whatever runs the plan must encode and decode it; the runtime of this package
            sends tensors as they are, so the figures are then what an encoded input would
            take. Memory holds the tensor in any case.
    """

    tiers: Annotated[tuple[Tier, ...], Field(min_length=1, max_length=_MOST_TIERS, alias="tier")]
    links: Annotated[tuple[Link, ...], Field(alias="link")] = ()
    limits: Limits = Limits()
    workload: Workload = Workload()
    input_nbytes: dict[str, Annotated[int, Field(gt=0, le=_LARGEST)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self) -> Topology:
        for name, count in Counter(tier.name.lower() for tier in self.tiers).items():
            if count > 1:
                raise ValueError(f"two tiers are named `{name}`")
        for tier in self.tiers[1:]:
            if len(tier.machines) > 1:
                raise ValueError(
                    f"tier `{tier.name}` has {len(tier.machines)} machines: "
                    "the lowest tier alone can divide rows among several"
                )
            if _keeps_data(tier) and _hands_out(self.tiers[0]):
                raise ValueError(
                    f"tier `{tier.name}` is private, and so are those below it: data may not travel to the "
                    f"other machines of `{self.tiers[0].name}`: say `trusted = true` in [tier.lan], or "
                    "name one machine"
                )
        if len(self.links) != len(self.tiers) - 1:
            need = len(self.tiers) - 1
            tiers = f"{len(self.tiers)} tier{'s' if need else ''}"
            links = f"{need} link{'s' if need != 1 else ''}" if need else "no link"
            raise ValueError(
                f"{tiers} need{'' if need else 's'} {links} between them; there are {len(self.links)}"
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tiers."""
        return tuple(tier.name for tier in self.tiers)

    @property
    def tier_watts(self) -> tuple[float | None, ...]:
        """What all tiers draw while each computes: its watts, and the idle watts of the others."""
        idle = sum(Fraction(tier.idle_watts) for tier in self.tiers)
        return tuple(_together(tier.watts, idle - Fraction(tier.idle_watts)) for tier in self.tiers)

    @property
    def link_watts(self) -> tuple[float | None, ...]:
        """What is drawn while each link transfers: its watts, and the idle watts of all tiers."""
        idle = sum(Fraction(tier.idle_watts) for tier in self.tiers)
        return tuple(_together(link.watts, idle) for link in self.links)

    def with_tier(self, tier: str | int, **fields: Any) -> Topology:
        """The same topology with some fields of a tier replaced.

        Args:
            tier: Its name, or its place from 0.
            fields: As `Tier` takes them.

        Raises:
            TopologyError: There is no such tier or field, or its value is impossible.
        """
        at = self._place_of(tier)
        row = _changed(self.tiers[at], f"tier.{at}", fields)
        return self.changed(tiers=(*self.tiers[:at], row, *self.tiers[at + 1 :]))

    def with_link(self, link: int, **fields: Any) -> Topology:
        """The same topology with some fields of a link replaced.

        Args:
            link: Its place: link i joins tier i to tier i + 1.
            fields: As `Link` takes them.

        Raises:
            TopologyError: There is no such link or field, or its value is impossible.
        """
        if not _is_place(link, len(self.links)):
            raise TopologyError(f"no link {link!r}: there are {len(self.links)}", hint="links count from 0")
        row = _changed(self.links[link], f"link.{link}", fields)
        return self.changed(links=(*self.links[:link], row, *self.links[link + 1 :]))

    def with_limits(self, **fields: Any) -> Topology:
        """The same topology with some limits replaced; None takes a limit away.

        Raises:
            TopologyError: There is no such limit, or its value is impossible.
        """
        return self.changed(limits=_changed(self.limits, "limits", fields))

    def with_workload(self, **fields: Any) -> Topology:
        """The same topology with another workload; None takes a rate away.

        Raises:
            TopologyError: There is no such field, or its value is impossible.
        """
        return self.changed(workload=_changed(self.workload, "workload", fields))

    def with_codes(self, codes: Iterable[str]) -> Topology:
        """The same topology, these codes allowed on every link that says nothing of codes.

        Raises:
            TopologyError: One is no code.
        """
        allowed = tuple(codes)
        links = tuple(
            _changed(link, f"link.{at}", {"codes": allowed}) if link.codes is None else link
            for at, link in enumerate(self.links)
        )
        return self.changed(links=links)

    def _place_of(self, tier: str | int) -> int:
        if isinstance(tier, str) and tier in self.names:
            return self.names.index(tier)
        if not isinstance(tier, str) and _is_place(tier, len(self.tiers)):
            return tier
        close = close_names(tier, self.names, n=1) if isinstance(tier, str) else ()
        hint = f"did you mean `{close[0]}`?" if close else f"the tiers are {', '.join(self.names)}"
        raise TopologyError(f"no tier {tier!r}", hint=hint)

    def __repr__(self) -> str:
        parts = [self.names[0]]
        for link, name in zip(self.links, self.names[1:], strict=True):
            parts += [f"{link.bandwidth_mbps:g} Mbit/s", name]
        return f"<Topology {' - '.join(parts)}>"

    __str__ = __repr__


def _together(watts: float | None, idle: Fraction | int) -> float | None:
    """Both powers, correctly rounded; unknown where the first is."""
    return None if watts is None else float(Fraction(watts) + idle)


def _is_place(at: object, count: int) -> bool:
    return isinstance(at, int) and not isinstance(at, bool) and 0 <= at < count


_T = TypeVar("_T", bound=_Table)


def _changed(table: _T, source: str, fields: Mapping[str, Any]) -> _T:
    try:
        return table.changed(**fields)
    except TopologyError as error:
        error.args = (message := f"{source}: {error.message.partition(': ')[2]}",)
        error.message = message
        raise


def topology_of(machines: Topology | str | os.PathLike[str] | Mapping[str, Any]) -> Topology:
    """A topology, whichever way it is given: itself, its file, or the tables of one.

    Raises:
        TopologyError: It is none of these, or says something impossible.
    """
    if isinstance(machines, Topology):
        return machines
    if isinstance(machines, str | os.PathLike):
        return load_topology(Path(machines))
    if isinstance(machines, Mapping):
        return parse_topology(dict(machines), "topology")
    raise TopologyError(
        f"an object of type `{type(machines).__name__}` is no topology",
        hint="pass a Topology, the path of a tiers file, or its tables as a dict",
    )


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
        text = read_bounded(path, most_nbytes=_LARGEST_NBYTES, regular=False)
    except FileNotFoundError:
        raise TopologyError(
            f"no such file: `{path}`",
            hint="start one with `dnnsplit-onnx tiers new --edge raspberry-pi-4 --cloud a100`",
        ) from None
    except (OSError, ValueError) as error:
        raise TopologyError(f"cannot read `{path}`: {getattr(error, 'strerror', error)}") from None
    return read_topology(text, path)


def read_topology(text: bytes, path: Path) -> Topology:
    """A topology from the text of a tiers file.

    Args:
        text: The file's content.
        path: Where it lies, for errors; profiles are named relative to its folder.

    Raises:
        TopologyError: As for `load_topology`.
    """
    # A key of n parts takes tomllib n * n steps and bytes.
    if any(line.count(b".") > _MOST_DOTS for line in text.splitlines()):
        raise TopologyError(f"`{path}`: a line has more than {_MOST_DOTS} dots", hint="break long lists")
    try:
        decoded_text = decoded(text)
        data = tomllib.loads(decoded_text)
        return _parsed(_with_profile_paths(data, path.parent), str(path), decoded_text)
    except ValueError as error:  # broken TOML, and numbers of more digits than Python reads
        kind = kind_of(text[:HEAD_NBYTES])
        if kind not in (None, TIERS_FILE) or is_model(text):
            what = "an ONNX model, and no tiers file" if kind is None else kind.what
            raise TopologyError(f"`{path}` is {what}", hint=_GIVE_TIERS) from None
        hint = syntax_hint(error, text.decode(errors="replace").splitlines())
        raise TopologyError(f"`{path}` is not TOML: {error}", hint=hint) from None
    except RecursionError:
        raise TopologyError(f"`{path}` is not TOML for tiers: it is nested too deep") from None


def parse_topology(data: dict[str, Any], source: str) -> Topology:
    """A topology from the tables of a tiers file.

    Args:
        data: The file as `tomllib` reads it.
        source: Its name, for errors.

    Raises:
        TopologyError: As for `load_topology`.
    """
    return _parsed(data, source)


def _parsed(data: dict[str, Any], source: str, text: str | None = None) -> Topology:
    try:
        topology: Topology = Topology.__pydantic_validator__.validate_python(_plain(data))
        return topology
    except ValidationError as error:
        raise _as_topology_error(error, source, text=text) from None


def _with_profile_paths(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Profiles are named relative to the file that names them."""
    key = "tier" if "tier" in data else "tiers"  # in a file either is read
    tiers = data.get(key)
    if not isinstance(tiers, list):
        return data
    return data | {key: [_with_profile_path(row, folder) for row in tiers]}


def _library(name: Any, folder: Path) -> Any:
    return str((folder / name).absolute()) if isinstance(name, str) and not is_extensions(name) else name


def _with_profile_path(row: Any, folder: Path) -> Any:
    if not isinstance(row, dict):
        return row
    changed = dict(row)
    if isinstance(row.get("profile"), str):
        changed["profile"] = str(folder / row["profile"])
    if isinstance(libraries := row.get("custom_ops"), list):
        changed["custom_ops"] = [_library(name, folder) for name in libraries]
    if isinstance(row.get("machine"), list):
        changed["machine"] = [_with_profile_path(machine, folder) for machine in row["machine"]]
    return changed


def _as_topology_error(
    error: ValidationError, source: str, table: type[BaseModel] | None = None, text: str | None = None
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
    root = next((name for name, kind in _TABLES.items() if kind is table), "")
    keys = {
        name: [field.alias or key for key, field in kind.model_fields.items()]
        for name, kind in _TABLES.items()
    }
    return explained(first, where, root, keys, _SMALLEST)


_TABLES: dict[str, type[BaseModel]] = {
    "": Topology,
    "tier": Tier,
    "link": Link,
    "limits": Limits,
    "workload": Workload,
    "machine": Machine,
    "lan": Lan,
}
