"""A verification and a benchmark as tables, from the dictionaries that `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.console import NARROW, grid

if TYPE_CHECKING:
    from rich.console import Console

_MOST_NAMED = 5


def print_verification(console: Console, found: Mapping[str, Any]) -> None:
    """Prints what `verify` found: one line if all is well, a table of differences if not."""
    console.print(headline(found), style="bold green" if found["passed"] else "bold red")
    differing = [o for o in found["outputs"] if not (o["bitwise"] and o["within_tolerance"])]
    differing += [b for b in found["boundaries"] if not b["bitwise"]]
    if differing:
        table = grid("value", "bitwise", ">largest difference")
        for row in differing:
            where = f" (made on {units.clean(row['tier'])})" if "tier" in row else ""
            table.add_row(
                f"{units.clean(row['name'])}{where}", _yes(row["bitwise"]), _number(row["max_abs_diff"])
            )
        console.print(table)
    _print_codes(console, found)
    console.print(_optimized(found), style="dim")
    console.print(_inputs(found), style="dim")
    for note in (*caveats(found), *_left_on_cpu(found)):
        console.print(note)


def _optimized(found: Mapping[str, Any]) -> str:
    """How far the optimised chain is from the whole model, and how far it might be."""
    near, shift = (_number(found.get(key)) for key in ("optimized_max_abs_diff", "whole_optimization_shift"))
    provider = found.get("provider", "cpu")
    if provider == "cpu":
        near_what, besides = "the whole model", ""
    else:
        near_what = "the whole model on the CPU"
        besides = f"; allowed is {_number(found['tolerance']['rtol'])} of the largest element besides"
    where = "" if provider == "cpu" else f" on {provider}"
    return (
        f"With optimisations on, the chain{where} is within {near} of {near_what}, "
        f"which itself moves by {shift}{besides}."
    )


def headline(found: Mapping[str, Any]) -> str:
    """The result of a verification in one sentence."""
    if found.get("error"):
        return f"FAILED: the chain does not run: {units.clean(found['error'])}"
    if found["bitwise"] and not found["passed"] and (broken := _broken_codes(found)):
        return f"FAILED: {broken}."
    if found["passed"] and found["bitwise"]:
        count = units.count(len(found["outputs"]), "output")
        if found.get("codes"):
            return (
                f"Verified: without its codes the chain equals the whole model bit for bit ({count}); with "
                f"them it errs by {_number(found['output_error'])} of the largest output."
            )
        rounded = ", half precision rounded at the cuts" if found.get("forced_rounding") else ""
        return f"Verified: the chain equals the whole model bit for bit{rounded} ({count})."
    if found["passed"]:
        return "Passed, and nothing was compared bit for bit: every output depends on random numbers."
    if not found["bitwise"]:
        return f"FAILED: the chain differs from the whole model by {_number(found['max_abs_diff'])}."
    return "FAILED: bit for bit without optimisations, and beyond the tolerance with them."


def _broken_codes(found: Mapping[str, Any]) -> str | None:
    """What codes break, None if nothing."""
    for check in found.get("codes", ()):
        if not check["kept"]:
            return (
                f"value `{units.clean(check['value'])}` as {check['code']} errs by "
                f"{_number(check['largest_error'])}, beyond its bound"
            )
    allowed, error = found["tolerance"].get("output_error"), found.get("output_error")
    if allowed is not None and (error is None or error > allowed):
        return f"with codes, outputs err by {_number(error)} of the largest; allowed is {_number(allowed)}"
    least, agreement = found["tolerance"].get("agreement"), found.get("agreement")
    if least is not None and agreement is not None and agreement < least:
        return f"with codes, {agreement:.1%} of the samples agree; at least {least:.1%} must"
    return None


def _print_codes(console: Console, found: Mapping[str, Any]) -> None:
    """Prints what each code does to its value."""
    if not found.get("codes"):
        return
    table = grid("coded value", "code", "from", ">smaller by", ">largest error", ">bound", "kept")
    for check in found["codes"]:
        table.add_row(
            units.clean(check["value"]),
            check["code"],
            units.clean(check["tier"]),
            f"{check['ratio']:.2f}",
            _number(check["largest_error"]),
            _number(check["bound"]),
            _yes(check["kept"]),
        )
    console.print(table)


def print_bench(console: Console, report: Mapping[str, Any]) -> None:
    """Prints the latencies of the slices, the chain and the whole model."""
    wide = console.width >= NARROW
    more = [">p99"] if wide else []
    table = grid("", "provider", ">median", ">spread", ">p95", *more, ">throughput", ">runs")
    rows = [(f"slice {units.clean(row['tier'])}", row, "") for row in report["slices"]]
    rows += [
        (name, report[key], "bold")
        for name, key in (("chain", "chain"), ("whole model", "whole"))
        if report[key]
    ]
    for stage in report.get("side_by_side", ()):
        tiles = [row for row in report["tiles"] if row["tier"] == stage["tier"]]
        rows += [(_tile(row), row, "dim") for row in tiles]
        rows.append((f"{units.clean(stage['tier'])} side by side", stage, ""))
    percentiles = ("p50_ms", "spread_ms", "p95_ms", *(["p99_ms"] if wide else []))
    for name, row, style in rows:
        table.add_row(
            name,
            row.get("provider", ""),
            *(units.milliseconds(row.get(key)) for key in percentiles),
            units.per_second(row.get("throughput_per_s")),
            str(row["runs"]),
            style=style,
        )
    console.print(table)
    _print_codes(console, report)
    if report.get("output_error") is not None:
        console.print(
            f"Verified when they were made: with codes, outputs err by {_number(report['output_error'])} of "
            f"the largest, and {report['agreement']:.0%} of {units.count(report['samples'], 'sample')} agree."
        )
    console.print()
    if report.get("chain_vs_whole") is not None:
        console.print(cutting_costs(report["chain"], report["whole"]))
    for note in (*report.get("notes", ()), *_side_by_side(report), *_copies(report), *_left_on_cpu(report)):
        console.print(units.clean(note))
    machine = ", ".join(f"{key} {value}" for key, value in report.get("machine", {}).items())
    console.print(f"Measured here, without links: {machine}.", style="dim")


def _tile(row: Mapping[str, Any]) -> str:
    what = "alone" if row["rows"] is None else "rows {}-{}".format(*row["rows"])
    return f"  {units.clean(row['machine'])}: nodes {row['start']}-{row['stop']}, {what}"


def _side_by_side(report: Mapping[str, Any]) -> list[str]:
    """What sharing rows gains before anything is sent."""
    alone = {row["tier"]: row["p50_ms"] for row in report["slices"]}
    return [
        f"Tiles of `{units.clean(tier)}` take {units.milliseconds(stage['p50_ms'])} side by side, "
        f"{units.milliseconds(stage['assembly_p50_ms'])} of it for cutting out and joining rows, where its "
        f"slice takes {units.milliseconds(alone[tier])}; what the LAN takes is not in it."
        for stage in report.get("side_by_side", ())
        if (tier := stage["tier"]) in alone
    ]


def cutting_costs(chain: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """What the chain takes beside the whole model; a verdict only where it exceeds what runs vary by."""
    ratio = chain["p50_ms"] / whole["p50_ms"]
    spread = max(chain.get("spread_ms", 0.0), whole.get("spread_ms", 0.0))
    if abs(chain["p50_ms"] - whole["p50_ms"]) > spread:
        return f"Cutting costs {100 * (ratio - 1):+.1f}%: the chain on one machine against the whole model."
    apart, vary = f"{100 * (ratio - 1):+.1f}%", f"{100 * spread / whole['p50_ms']:.1f}%"
    return (
        f"What cutting costs cannot be told: the medians are {apart} apart, and runs of the same vary by "
        f"{vary}. Measure on a quieter machine, or with more --runs."
    )


def _left_on_cpu(report: Mapping[str, Any]) -> list[str]:
    """Slices whose provider did not take all nodes, and the first of these."""
    return [
        f"{units.count(len(nodes), 'node')} of {units.clean(row['tier'])} ran on the CPU instead: "
        f"{_named(nodes)}."
        for row in report.get("slices", ())
        if (nodes := row.get("cpu_nodes"))
    ]


def _named(nodes: Sequence[str]) -> str:
    shown = ", ".join(units.clean(node) for node in nodes[:_MOST_NAMED])
    return shown if len(nodes) <= _MOST_NAMED else f"{shown}, ..."


def _copies(report: Mapping[str, Any]) -> list[str]:
    """What crosses between host and device, where there is a device."""
    chain = report["chain"]
    if chain is None or chain["provider"] == "cpu":
        return []
    up, down = (units.count(chain[key], "value") for key in ("copied_to_device", "copied_to_host"))
    return [f"Each run of the chain copies {up} to the device, and {down} back."]


def _inputs(found: Mapping[str, Any]) -> str:
    sets = units.count(found["runs"], "set")
    if found["inputs"] == "generated":
        return f"Compared on {sets} of generated inputs, seed {found['seed']}."
    return f"Compared on {sets} of inputs from {units.clean(found['inputs'])}."


def caveats(found: Mapping[str, Any]) -> list[str]:
    """What a verification leaves open, each a sentence: its notes, which tell all of it."""
    texts = [units.clean(note) for note in found["notes"]]
    return [f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" for text in texts]


def _number(value: float | None) -> str:
    if value is None:
        return "infinity"
    return "0" if value == 0 else f"{value:.2g}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
