"""A split beside its rivals, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnnsplit_onnx.planning.figures import Objective
from dnnsplit_onnx.planning.rivals import Rival, Rivals
from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.comparison import figure, gap_text
from dnnsplit_onnx.reporting.console import NARROW, grid
from dnnsplit_onnx.reporting.verdict import BETTER

if TYPE_CHECKING:
    from rich.console import Console

# Figures that stand beside the one that is to be best.
_SHOWN: tuple[Objective, ...] = ("latency", "cost", "throughput")
# Two figures this close are the same one.
_SAME = 1e-6


def print_rivals(console: Console, rivals: Rivals) -> None:
    """Prints the rivals, the verdict, and what each takes for granted."""
    wide = console.width >= NARROW
    aim = rivals.objective
    others = [one for one in _SHOWN if one != aim] if wide else []
    worth = [
        one for one in ("accuracy", "agreement") if any(getattr(row, one) is not None for row in rivals.rows)
    ]
    table = grid(
        "rival", f">{aim}", ">gap", *(f">{one}" for one in others), "=answers", *(f">{one}" for one in worth)
    )
    for row in rivals.rows:
        if row.reason is not None:
            table.add_row(row.name, "none", style="dim")
            continue
        cells = [
            row.name,
            figure(aim, row.value(aim)),
            gap(row),
            *(figure(one, row.value(one)) for one in others),
        ]
        table.add_row(*cells, row.answers, *(share(getattr(row, one)) for one in worth))
    console.print(table)
    console.print()
    for line in (*verdict(rivals), *remarks(rivals)):
        console.print(line, style="dim")


def gap(row: Rival) -> str:
    """How far a rival is from the best, in a word."""
    return gap_text(row.gap, feasible=row.feasible, broken=bool(row.violations))


def share(value: float | None) -> str:
    """A share of requests or samples."""
    return "" if value is None else units.percent(value, 1)


def verdict(rivals: Rivals) -> tuple[str, ...]:
    """Whether a split beats its rivals, each a sentence."""
    lines = [f"Too little is known for a verdict: {units.clean(what)}." for what in rivals.unknowns]
    lines += _verdict(rivals, rivals.best(split=False), "")
    best = rivals.best(split=False)
    if best is not None and best.answers == "other":
        lines += _verdict(
            rivals, rivals.best(split=False, answers=("same", "close")), "Of what answers as the model does: "
        )
    return tuple(lines)


def _verdict(rivals: Rivals, other: Rival | None, first: str) -> list[str]:
    split = rivals.best(split=True)
    if split is None:
        return [] if other is None else [f"{first}No split keeps to the limits; {other.name} is best."]
    if other is None:
        return [f"{first}Only a split keeps to the limits: {split.name}."]
    mine, theirs = split.value(rivals.objective), other.value(rivals.objective)
    if rivals.objective == "throughput":
        mine, theirs = theirs, mine
    if not mine > 0 or not theirs > 0:
        return []
    better, names = BETTER[rivals.objective], (units.clean(split.name), units.clean(other.name))
    if theirs / mine > 1 + _SAME:
        return [f"{first}Splitting pays: {names[0]} is {units.times(theirs / mine)} {better} {names[1]}."]
    if mine / theirs > 1 + _SAME:
        return [
            f"{first}Splitting does not pay: {names[1]} is {units.times(mine / theirs)} {better} {names[0]}."
        ]
    return [f"{first}Splitting does not pay: {names[1]} is as good as {names[0]}."]


def remarks(rivals: Rivals) -> list[str]:
    """What each row takes for granted, and why there are no figures where there are none."""
    of: dict[str, list[str]] = {}
    for row in rivals.rows:
        said = [row.reason] if row.reason else [*_where(row), *row.violations, *row.assumes]
        for sentence in said:
            of.setdefault(sentence, []).append(row.name)
    return [f"{units.clean('; '.join(names))}: {units.clean(sentence)}." for sentence, names in of.items()]


def _where(row: Rival) -> tuple[str, ...]:
    """Where a split cuts."""
    if not row.is_split and not any(code != "raw" for code in row.codes):
        return ()
    if row.cuts is None:
        return ()
    ways = [
        f"{cut}{'' if code == 'raw' else f' as {code}'}"
        for cut, code in zip(row.cuts, row.codes, strict=True)
    ]
    return (f"cut at {', '.join(ways)}, over {', '.join(row.tiers)}",)
