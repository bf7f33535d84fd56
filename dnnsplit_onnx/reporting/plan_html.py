"""A plan as a piece of HTML: what a notebook shows of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from dnnsplit_onnx.planning.figures import Figures, SingleTier, Stage, Transfer
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.colours import COLOURS
from dnnsplit_onnx.reporting.verdict import against, basis, verdict

_COMPUTE, _TRANSFER = COLOURS[0], COLOURS[1]
_NUMBER = ' style="text-align:right"'
_TEXT = ' style="text-align:left"'


def plan_html(plan: Plan) -> str:
    """A plan as HTML that stands on its own: its stages and links, rivals, and the verdict.

    Names are escaped; there is no script and nothing is loaded.
    """
    first, *rest = map(_safe, verdict(plan))
    parts = [f"<p>{' '.join((f'<strong>{first}</strong>', *rest))}</p>"]
    parts += [f"<p><strong>This plan breaks a limit: {_safe(v)}.</strong></p>" for v in plan.violations]
    parts += [_stages(plan), _rivals(plan)]
    parts.append(f"<p>{'<br>'.join(_safe(line) for line in basis(plan))}</p>")
    return f'<div class="dnnsplit-onnx-plan">{"".join(parts)}</div>'


def _stages(plan: Plan) -> str:
    """Tiers and links in the order that a request passes them."""
    figures = plan.figures
    total = math.fsum(
        (*(stage.seconds for stage in figures.stages), *(link.seconds for link in figures.links))
    )
    rows = []
    for at, stage in enumerate(figures.stages):
        rows.append(_stage(stage, total))
        if at < len(figures.links):
            rows.append(_link(figures.links[at], total))
    caption = f"Best {plan.objective}" if plan.planner != "at" else "Cuts as given"
    return _table(caption, ("", ">nodes", ">work", ">sends", ">time", ">cost", ""), rows)


def _stage(stage: Stage, total: float) -> str:
    works = stage.stop > stage.start
    cells = [
        f"{stage.stop - stage.start:,}",
        units.flops(stage.flops) if stage.flops else "",
        "",
        units.seconds(stage.seconds) if works else "",
        units.usd(stage.cost_usd) if works else "",
    ]
    return _row(stage.tier, cells, _bar(stage.seconds, total, _COMPUTE))


def _link(link: Transfer, total: float) -> str:
    used = link.seconds != 0
    sent = [units.nbytes(link.nbytes), f"{units.nbytes(link.down_nbytes)} back" if link.down_nbytes else ""]
    cells = [
        f"cut at {link.position}",
        "",
        " + ".join(filter(None, sent)) if used else "nothing",
        units.seconds(link.seconds) if used else "",
        units.usd(link.cost_usd) if used else "",
    ]
    name = f"{link.source} \N{RIGHTWARDS ARROW} {link.target}"
    return _row(name, cells, _bar(link.seconds, total, _TRANSFER))


def _rivals(plan: Plan) -> str:
    """The plan against everything on each single tier."""
    energy = plan.figures.energy_j is not None or plan.objective == "energy"
    rows = [_row("this plan", list(_figures(plan.figures, energy)), "", strong=True)]
    for single in plan.single_tier:
        note = [against(plan, single), "" if single.feasible else "breaks a limit"]
        end = _safe(", ".join(filter(None, note)))
        rows.append(_row(f"all on {single.tier}", list(_figures(single, energy)), end))
    tokens = (">first token", ">each after") if plan.figures.ttft_s is not None else ()
    headings = ("", *tokens, ">latency", ">cost", ">throughput", *([">energy"] if energy else []), "")
    return _table("Against single tiers", headings, rows)


def _figures(figures: Figures | SingleTier, energy: bool) -> Iterator[str]:
    if figures.ttft_s is not None:
        yield units.seconds(figures.ttft_s)
        yield units.seconds(figures.tpot_s)
    yield units.seconds(figures.latency_s)
    yield units.usd(figures.cost_usd)
    yield units.per_second(figures.throughput_per_s)
    if energy:
        yield units.joules(figures.energy_j)


def _table(caption: str, headings: tuple[str, ...], rows: list[str]) -> str:
    head = "".join(
        f'<th scope="col"{_NUMBER if heading.startswith(">") else _TEXT}>{heading.removeprefix(">")}</th>'
        if heading
        else "<td></td>"
        for heading in headings
    )
    caption = f"<caption{_TEXT}>{caption}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _row(name: str, cells: list[str], end: str, *, strong: bool = False) -> str:
    """A row of a table; `end` is HTML already."""
    numbers = "".join(f"<td{_NUMBER}>{_safe(cell)}</td>" for cell in cells)
    text = f"<strong>{_safe(name)}</strong>" if strong else _safe(name)
    return f'<tr><th scope="row"{_TEXT}>{text}</th>{numbers}<td{_TEXT}>{end}</td></tr>'


def _bar(seconds: float, total: float, colour: str) -> str:
    """A bar as long as its share of the request, empty if that is nothing or unknown."""
    if not (math.isfinite(total) and total > 0 and seconds > 0):
        return ""
    width = 12 * seconds / total
    style = f"width:{width:.2f}em;min-width:1px;height:0.8em;background:{colour}"
    return f'<div style="{style}" title="{units.percent(seconds, total)} of the time"></div>'


def _safe(text: str) -> str:
    return escape(units.clean(text))
