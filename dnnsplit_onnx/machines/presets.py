"""Real devices and links to start a tiers file from, before anything has been measured.

The figures lie in `devices.toml`, each with its source; the rules that lead from them to a
tiers file stand at its head. All are estimates, and the file that is written says so.
"""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Any, TypeVar

from dnnsplit_onnx.errors import InputError, close_names

#: The file that a tiers file refers editors to.
SCHEMA_FILE = "tiers.schema.json"

_HOURS_PER_YEAR = 8766.0

Preset = TypeVar("Preset")


@dataclass(frozen=True, slots=True)
class Rules:
    """How figures of a device become figures of a tier.

    Attributes:
        efficiency: Effective FLOP/s over peak FLOP/s.
        bandwidth_share: What a GPU reaches of its memory's peak bandwidth.
        gpu_overhead_us: What a GPU takes for each operator, besides the work, 10^-6 s.
        memory_share: Share of the memory that a model may take.
        lifetime_years: How long a machine that is bought is used.
        usd_per_kwh: Price of its electricity.
    """

    efficiency: float
    memory_share: float
    lifetime_years: float
    usd_per_kwh: float
    bandwidth_share: float = 1.0
    gpu_overhead_us: float = 0.0


@dataclass(frozen=True, slots=True)
class Device:
    """A machine that can be bought or rented.

    Attributes:
        name: What it is asked for by.
        summary: What it is.
        peak_gflops: 10^9 FLOP/s in 32-bit floats, without tensor cores.
        memory_gb: Memory, 10^9 bytes.
        memory_gb_per_s: Peak bandwidth of its memory, 10^9 byte/s.
        watts: Power while it computes.
        source: Where the figures come from, and their dates.
        price_usd: To buy one.
        usd_per_hour: To rent one.
        provider: The onnxruntime execution provider.
        tensor_gflops: 10^9 FLOP/s of its tensor cores on 32-bit floats (TF32), without sparsity; None
            where it has no such format, or no page gives a figure.
        formats: The formats of its tensor cores.
        source_url: Pages that were read for the figures.
        idle_watts: Power while it waits; None if no page gives a figure.
    """

    name: str
    summary: str
    peak_gflops: float
    memory_gb: float
    memory_gb_per_s: float
    watts: float
    source: str
    price_usd: float | None = None
    usd_per_hour: float | None = None
    provider: str = "cpu"
    tensor_gflops: float | None = None
    formats: tuple[str, ...] = ()
    source_url: tuple[str, ...] = ()
    idle_watts: float | None = None

    @property
    def is_gpu(self) -> bool:
        """Whether it is described as a roofline, with an overhead of each operator."""
        return self.provider in ("cuda", "coreml")

    def gflops(self, rules: Rules) -> float:
        """Effective compute, 10^9 FLOP/s."""
        return (self.tensor_gflops or self.peak_gflops) * rules.efficiency

    def hourly(self, rules: Rules) -> float:
        """USD for an hour: the rent, or the purchase written off and the electricity."""
        if self.usd_per_hour is not None:
            return self.usd_per_hour
        bought = (self.price_usd or 0.0) / (rules.lifetime_years * _HOURS_PER_YEAR)
        return bought + self.watts / 1e3 * rules.usd_per_kwh

    def to_dict(self, rules: Rules) -> dict[str, Any]:
        """JSON-ready data, what a tier gets included."""
        tier = {"gflops": _rounded(self.gflops(rules)), "tier_usd_per_hour": _rounded(self.hourly(rules))}
        return asdict(self) | tier


@dataclass(frozen=True, slots=True)
class Connection:
    """A kind of network.

    Attributes:
        name: What it is asked for by.
        summary: What it is.
        bandwidth_mbps: 10^6 bit/s away from the lower tier.
        delay_ms: One way.
        source: Where the figures come from, and their dates.
        down_mbps: 10^6 bit/s back, if that differs.
        watts: Power of the sender while it sends.
        usd_per_gb: Price of 10^9 bytes.
    """

    name: str
    summary: str
    bandwidth_mbps: float
    delay_ms: float
    source: str
    down_mbps: float | None = None
    watts: float | None = None
    usd_per_gb: float | None = None


@dataclass(frozen=True, slots=True)
class Presets:
    """All that `devices.toml` holds, by name."""

    rules: Rules
    devices: Mapping[str, Device]
    connections: Mapping[str, Connection]

    def device(self, name: str) -> Device:
        """A device.

        Raises:
            InputError: There is none of that name.
        """
        return _named(self.devices, name, "device")

    def connection(self, name: str) -> Connection:
        """A link.

        Raises:
            InputError: There is none of that name.
        """
        return _named(self.connections, name, "link")


@cache
def presets() -> Presets:
    """The devices and links that come with the package."""
    data = tomllib.loads((files(__package__) / "devices.toml").read_text(encoding="utf-8"))
    return Presets(
        Rules(**data["rules"]),
        {name: _device(name, fields) for name, fields in data["device"].items()},
        {name: Connection(name, **fields) for name, fields in data["link"].items()},
    )


def _device(name: str, fields: Mapping[str, Any]) -> Device:
    lists = {key: tuple(fields.get(key, ())) for key in ("formats", "source_url")}
    return Device(name, **{**fields, **lists})


def tiers_text(
    tiers: Sequence[tuple[str, Device]], links: Sequence[Connection], rules: Rules, *, schema: bool = True
) -> str:
    """A tiers file over these devices, ready to be edited.

    Args:
        tiers: Name and device of each tier, from where the data is born up.
        links: One less than there are tiers.
        rules: How figures of devices become figures of tiers.
        schema: Whether editors are referred to `SCHEMA_FILE` beside the file.
    """
    head = [
        "# Estimates to start from: replace them by what `dnnsplit-onnx profile` measures.",
        f"# gflops: {rules.efficiency:.0%} of the peak in 32-bit floats (TF32 on tensor cores): assumed. "
        f"memory_gb: {rules.memory_share:.0%} of the memory.",
        "# usd_per_hour: the rent; of a machine that is bought, its price over "
        f"{rules.lifetime_years:g} years and {rules.usd_per_kwh:g} USD/kWh.",
    ]
    blocks = [[f"#:schema ./{SCHEMA_FILE}"] if schema else [], head]
    blocks += [_tier_lines(name, device, rules) for name, device in tiers]
    pairs = pairwise(name for name, _ in tiers)
    blocks += [_link_lines(*pair, link) for pair, link in zip(pairs, links, strict=True)]
    return "\n\n".join("\n".join(lines) for lines in blocks if lines) + "\n"


def _tier_lines(name: str, device: Device, rules: Rules) -> list[str]:
    return [
        "[[tier]]",
        *_comment(f"{device.summary}."),
        *_comment(f"From: {device.source}."),
        f'name = "{name}"',
        *_speed(device, rules),
        f"usd_per_hour = {_number(device.hourly(rules))}",
        f"memory_gb = {_number(device.memory_gb * rules.memory_share)}",
        f"watts = {_number(device.watts)}",
        *_waiting(device),
        *([f'provider = "{device.provider}"'] if device.provider != "cpu" else []),
    ]


def _waiting(device: Device) -> list[str]:
    """What it draws while it waits, as a comment: whether these requests are to pay for it is not known."""
    if device.idle_watts is None:
        return []
    said = "while it waits; for a machine that is on for these requests alone"
    return [f"# idle_watts = {_number(device.idle_watts)}  # {said}"]


def _speed(device: Device, rules: Rules) -> list[str]:
    """Its speed: of a GPU a roofline, since small operators take it no less than large ones."""
    peak = device.tensor_gflops or device.peak_gflops
    how = " on tensor cores, in TF32" if device.tensor_gflops else ""
    gflops = f"gflops = {_number(device.gflops(rules))}  # {peak:.12g} at its peak{how}"
    if not device.is_gpu:
        said = "peak; makes a roofline, with a higher gflops"
        return [gflops, f"# memory_gb_per_s = {device.memory_gb_per_s:.12g}  # {said}"]
    reached = device.memory_gb_per_s * rules.bandwidth_share
    return [
        gflops,
        f"memory_gb_per_s = {_number(reached)}  # {device.memory_gb_per_s:.12g} at its peak",
        f"overhead_us = {_number(rules.gpu_overhead_us)}  # of each operator, assumed",
    ]


def _link_lines(lower: str, upper: str, link: Connection) -> list[str]:
    return [
        "[[link]]",
        *_comment(f"{lower} to {upper}: {link.summary}."),
        *_comment(f"From: {link.source}."),
        f"bandwidth_mbps = {link.bandwidth_mbps:.12g}",
        *([f"down_mbps = {link.down_mbps:.12g}"] if link.down_mbps is not None else []),
        f"delay_ms = {link.delay_ms:.12g}",
        *([f"watts = {link.watts:.12g}"] if link.watts is not None else []),
        *([f"usd_per_gb = {link.usd_per_gb:.12g}"] if link.usd_per_gb is not None else []),
    ]


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False)


def _rounded(value: float) -> float:
    """Three significant digits: the figures are no better than that."""
    return float(f"{value:.3g}")


def _number(value: float) -> str:
    return f"{_rounded(value):.12g}"


def _named(known: Mapping[str, Preset], name: str, kind: str) -> Preset:
    if name in known:
        return known[name]
    near = close_names(name.lower().replace("_", "-"), known, n=1)
    hint = f"did you mean `{near[0]}`? " if near else ""
    raise InputError(f"no {kind} is named `{name}`", hint=f"{hint}known: {', '.join(known)}")
