"""The paper's numbers (`presets.toml`), and the topologies that they make.

Where the paper's text has lost a number, the file says what was assumed and why;
`assumed_table` lists those for the page.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.machines.topology import Topology

FILE = Path(__file__).resolve().parents[1] / "presets.toml"
ORIGINS = ("paper: ", "assumed: ")
EdgeDevice = Literal["raspberry_pi", "jetson_nano"]

_HOURS_PER_YEAR = 365 * 24


@dataclass(frozen=True, slots=True)
class Preset:
    """A number of the evaluation, or a list of them.

    Attributes:
        key: Its name, `table.name`; the unit is in the name.
        value: The number or numbers.
        source: `paper: ` and where, or `assumed: ` and why.
    """

    key: str
    value: float | tuple[float, ...]
    source: str

    @property
    def is_assumed(self) -> bool:
        """Whether the paper's text does not give it."""
        return self.source.startswith("assumed: ")


@cache
def presets() -> dict[str, Preset]:
    """All presets, by key.

    Raises:
        ValueError: A value has no source, or is no number.
    """
    return read(tomllib.loads(FILE.read_text(encoding="utf-8")))


def read(tables: dict[str, dict[str, Any]]) -> dict[str, Preset]:
    """Presets from the tables of the file; errors as for `presets`."""
    found = {}
    for table, rows in tables.items():
        for name, row in rows.items():
            key, source = f"{table}.{name}", str(row.get("source", ""))
            if not source.startswith(ORIGINS) or not source.partition(": ")[2].strip():
                raise ValueError(f"preset `{key}` does not say whether it is the paper's or assumed, and why")
            value = row.get("value")
            numbers = value if isinstance(value, list) else [value]
            if not numbers or not all(isinstance(n, int | float) and n >= 0 for n in numbers):
                raise ValueError(
                    f"preset `{key}` = {value!r} is not a number of 0 or more, or a list of them"
                )
            found[key] = Preset(key, tuple(map(float, numbers)) if value is numbers else float(value), source)
    return found


def number(key: str) -> float:
    """The value of a preset that is one number."""
    value = presets()[key].value
    assert isinstance(value, float), f"preset `{key}` is a list"
    return value


def numbers(key: str) -> tuple[float, ...]:
    """The values of a preset that is a list."""
    value = presets()[key].value
    assert isinstance(value, tuple), f"preset `{key}` is one number"
    return value


def edge_gflops(edge: EdgeDevice, pi_gflops: float | None = None) -> float:
    """Speed of an edge device, GFLOP/s: the near edge's over the paper's ratio."""
    return near_edge_gflops(pi_gflops) / number(f"ratio.near_edge_to_{edge}")


def near_edge_gflops(pi_gflops: float | None = None) -> float:
    """Speed of one vGPU, GFLOP/s.

    Args:
        pi_gflops: Speed of the Raspberry Pi to start from, in place of the preset of the
            near edge; the ratios stay.
    """
    if pi_gflops is None:
        return number("near_edge.gflops")
    return pi_gflops * number("ratio.near_edge_to_raspberry_pi")


def edge_usd_per_hour(edge: EdgeDevice) -> float:
    """What an hour of a privately owned device costs: purchase and electricity (III-B)."""
    purchase = number(f"{edge}.usd") / (number("ownership.years") * _HOURS_PER_YEAR)
    return purchase + number(f"{edge}.watts") / 1e3 * number("ownership.usd_per_kwh")


def link_usd_per_hour() -> float:
    """K_BW: what an hour of transfer costs, whatever the bandwidth."""
    return number("link.usd_per_month") / number("link.hours_per_month")


def three_tiers(
    edge_near_edge_mbps: float,
    near_edge_cloud_mbps: float | None = None,
    *,
    edge: EdgeDevice = "raspberry_pi",
    near_edge_vgpus: float | None = None,
    price_factors: tuple[float, float] = (1.0, 1.0),
    pi_gflops: float | None = None,
    limits: dict[str, Any] | None = None,
) -> Topology:
    """The paper's tiers: edge, near-edge, cloud.

    Args:
        edge_near_edge_mbps: Bandwidth of the lower link, 10^6 bit/s.
        near_edge_cloud_mbps: Of the upper link; the same if not given.
        edge: The edge device.
        near_edge_vgpus: How many vGPUs the near edge has, at so many times the price.
        price_factors: `a` and `b` of section VII-D, on the price of either link.
        pi_gflops: See `near_edge_gflops`.
        limits: The `[limits]` table, if any.
    """
    vgpus = number("near_edge.vgpus") if near_edge_vgpus is None else near_edge_vgpus
    cloud = number("cloud.vgpus")
    speed, price = near_edge_gflops(pi_gflops), number("near_edge.usd_per_hour")
    upper = edge_near_edge_mbps if near_edge_cloud_mbps is None else near_edge_cloud_mbps
    rows = [
        {"name": "edge", "gflops": edge_gflops(edge, pi_gflops), "usd_per_hour": edge_usd_per_hour(edge)},
        {"name": "near-edge", "gflops": speed * vgpus, "usd_per_hour": price * vgpus},
        {
            "name": "cloud",
            "gflops": speed * cloud,
            "usd_per_hour": price * cloud / number("ratio.near_edge_to_cloud_price"),
        },
    ]
    lower_price, upper_price = (link_usd_per_hour() * factor for factor in price_factors)
    links = [
        _link(edge_near_edge_mbps, number("link.edge_near_edge_delay_ms"), lower_price),
        _link(upper, number("link.near_edge_cloud_delay_ms"), upper_price),
    ]
    return parse_topology({"tier": rows, "link": links, "limits": limits or {}}, FILE.name)


def edge_and_near_edge(edge_near_edge_mbps: float, **options: Any) -> Topology:
    """The lower two of `three_tiers`, as in figure 2; options as there."""
    whole = three_tiers(edge_near_edge_mbps, **options)
    return whole.changed(tiers=whole.tiers[:2], links=whole.links[:1])


def literature(bandwidth_mbps: float) -> Topology:
    """Section VII-F: a Raspberry Pi 3 and a cloud machine, without prices or delay."""
    rows = [
        {"name": "edge", "gflops": number("literature.raspberry_pi_3_gflops")},
        {"name": "cloud", "gflops": number("literature.cloud_gflops")},
    ]
    link = {"bandwidth_mbps": bandwidth_mbps, "delay_ms": number("literature.delay_ms")}
    return parse_topology({"tier": rows, "link": [link]}, FILE.name)


def assumed_table() -> str:
    """The assumed values as a Markdown table."""
    lines = ["| value | | assumed because |", "|---|---|---|"]
    for preset in presets().values():
        if preset.is_assumed:
            many = preset.value if isinstance(preset.value, tuple) else (preset.value,)
            shown = ", ".join(f"{n:g}" for n in many)
            lines.append(f"| `{preset.key}` | {shown} | {preset.source.removeprefix('assumed: ')} |")
    return "\n".join(lines)


def _link(bandwidth_mbps: float, delay_ms: float, usd_per_hour: float) -> dict[str, float]:
    return {"bandwidth_mbps": bandwidth_mbps, "delay_ms": delay_ms, "usd_per_hour": usd_per_hour}
