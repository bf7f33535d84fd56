"""What came of requests through a chain, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.console import grid

if TYPE_CHECKING:
    from rich.console import Console


def print_report(console: Console, report: Mapping[str, Any]) -> None:
    """Prints the outputs, where the time went, and what failed.

    Args:
        console: Where to.
        report: As `Report.to_dict` gives it.
    """
    outputs = grid("output", "type", "shape")
    for output in report["outputs"]:
        shape = "absent" if output["shape"] is None else "x".join(map(str, output["shape"])) or "scalar"
        outputs.add_row(units.clean(output["name"]), output["dtype"] or "", shape)
    if report["outputs"]:
        console.print(outputs)
        console.print()
    times = grid("tier", ">queue", ">compute", ">link above")
    for tier in report["tiers"]:
        link = "" if tier["link_ms"] is None else units.milliseconds(tier["link_ms"])
        times.add_row(
            units.clean(tier["tier"]),
            units.milliseconds(tier["queue_ms"]),
            units.milliseconds(tier["compute_ms"]),
            link,
        )
    if report["tiers"]:
        console.print(times)
        console.print()
    console.print(_summary(report), style="bold red" if report["failed"] else "bold")
    if len(report["cuts"]) > 1 or report["retried"]:
        cuts = ", ".join(f"[{cut}] {count}" for cut, count in report["cuts"].items())
        console.print(f"cuts: {cuts}; {units.count(report['retried'], 'answer')} after a second attempt")
    for error in report["errors"]:
        console.print(units.clean(error))


def _summary(report: Mapping[str, Any]) -> str:
    answered = report["requests"] - report["failed"]
    text = f"{answered} of {units.count(report['requests'], 'request')} answered"
    latency = report["latency"]
    if latency is None:
        return text
    text += f"; latency {units.milliseconds(latency['p50_ms'])}"
    if answered > 1:
        text += (
            f" (p95 {units.milliseconds(latency['p95_ms'])}), {units.per_second(report['throughput_per_s'])}"
        )
    return text
