"""Devices and links to start from, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.console import grid

if TYPE_CHECKING:
    from rich.console import Console

    from dnnsplit_onnx.machines.presets import Device, Presets, Rules


def print_presets(console: Console, known: Presets) -> None:
    """Prints devices as the tiers they make, and links."""
    rules = known.rules
    table = grid("=device", ">GFLOP/s", ">memory", ">watts", ">USD/h", "?what")
    devices = [_device(device, rules) for device in known.devices.values()]
    for row in devices:
        table.add_row(*row)
    console.print(table)
    console.print()
    links = grid("=link", ">Mbit/s", ">back", ">delay", "?what")
    for link in known.connections.values():
        back = "" if link.down_mbps is None else f"{link.down_mbps:g}"
        links.add_row(link.name, f"{link.bandwidth_mbps:g}", back, f"{link.delay_ms:g} ms", link.summary)
    console.print(links)
    console.print()
    console.print(
        f"Estimates: GFLOP/s are {rules.efficiency:.0%} of the peak in 32-bit floats (TF32 where tensor "
        f"cores have it), memory is {rules.memory_share:.0%} of what there is. --json has the sources.",
        style="dim",
    )
    console.print(
        "next: dnnsplit-onnx tiers new --edge raspberry-pi-4 --cloud a100 -o tiers.toml",
        style="dim",
        soft_wrap=True,
    )


def _device(device: Device, rules: Rules) -> tuple[str, ...]:
    return (
        device.name,
        units.three_digits(device.gflops(rules)),
        f"{device.memory_gb * rules.memory_share:.3g} GB",
        f"{device.watts:g}",
        f"{device.hourly(rules):.3g}",
        device.summary,
    )
