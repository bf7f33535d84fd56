"""A plan on one screen: bars, links, what it is compared with, and what that means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from dnnsplit_onnx.planning.figures import Figures, ParetoPoint, SingleTier
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.reporting import units
from dnnsplit_onnx.reporting.bars import waterfall
from dnnsplit_onnx.reporting.console import NARROW, glyphs, grid, with_note
from dnnsplit_onnx.reporting.machines_view import machines
from dnnsplit_onnx.reporting.verdict import against, basis, million, verdict
from dnnsplit_onnx.work.codes import RAW

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from dnnsplit_onnx.graph.graph import Graph

_PARETO_ROWS = 4
_LIMIT_UNITS = {
    "deadline_ms": ("deadline", "ms"),
    "budget_usd": ("budget", "USD"),
    "energy_j": ("energy", "J"),
    "ttft_ms": ("first token within", "ms"),
    "tpot_ms": ("each token within", "ms"),
}


def print_plan(console: Console, plan: Plan, graph: Graph, uncounted: Mapping[str, int]) -> None:
    """Prints a plan.

    Args:
        console: Where to.
        plan: The plan.
        graph: The model it is for.
        uncounted: Operators that have no count, and how many nodes of each there are.
    """
    console.print(_title(plan, graph, glyphs(console).dot), style="bold")
    console.print()
    for part in plan_renderables(console, plan, graph, uncounted):
        console.print(part)
    if len(plan.pareto) > 1:
        console.print()
        console.print(_pareto(plan))


def plan_renderables(
    console: Console, plan: Plan, graph: Graph | None = None, uncounted: Mapping[str, int] | None = None
) -> Iterator[RenderableType]:
    """The parts of a plan's screen that need no model, one after the other, for rich to print.

    Args:
        console: Where they will be printed.
        plan: The plan.
        graph: The model it is for; without it, what crosses the links is left out.
        uncounted: As for `print_plan`.
    """
    from rich.text import Text

    yield _tiers(console, plan)
    yield ""
    shared = machines(plan)
    if shared is not None:
        yield shared
        yield ""
    if plan.figures.links and graph is not None:
        yield _links(console, plan, graph)
        yield ""
    yield _comparison(console, plan)
    yield ""
    for at, line in enumerate(verdict(plan)):
        yield Text(line, style="bold" if at == 0 else "")
    for sentence in plan.violations:
        yield Text(f"This plan breaks a limit: {units.clean(sentence)}.", style="bold red")
    if (said := million(plan)) is not None:
        yield Text(said, style="dim")
    for line in basis(plan, uncounted):
        yield Text(line, style="dim")


def _title(plan: Plan, graph: Graph, dot: str) -> str:
    parts = [
        units.clean(graph.file.path.name),
        units.count(len(graph.nodes), "node"),
        units.flops(sum(stage.flops for stage in plan.figures.stages)),
        f"best {plan.objective}" if plan.planner != "at" else "cuts as given",
    ]
    workload = dict((plan.topology or {}).get("workload", {}))
    if (prompt := workload.get("prompt_tokens")) is not None:
        parts.append(f"{prompt:,} tokens and {workload.get('new_tokens', 1):,} new")
    for key, (name, unit) in _LIMIT_UNITS.items():
        if plan.limits.get(key) is not None:
            parts.append(f"{name} {plan.limits[key]:g} {unit}")
    return f" {dot} ".join(parts)


def _tiers(console: Console, plan: Plan) -> RenderableType:
    """A row a tier: a bar of its compute and of the transfer that follows, and figures."""
    wide = console.width >= NARROW
    figures = plan.figures
    headings = ["tier", ">nodes", ">work"] if wide else ["tier", ">nodes"]
    table = grid(*headings, "?", ">compute", ">transfer")
    used = 62 if wide else 42
    bars = waterfall(figures, max(8, min(48, console.width - used)), glyphs(console))
    for at, stage in enumerate(figures.stages):
        link = figures.links[at] if at < len(figures.links) else None
        row = [units.clean(stage.tier), f"{stage.stop - stage.start:,}"]
        if wide:
            row.append(units.flops(stage.flops) if stage.flops else "")
        sent = units.seconds(link.seconds) if link is not None and link.seconds != 0 else ""
        busy = stage.stop > stage.start or stage.seconds != 0
        table.add_row(*row, bars[at], units.seconds(stage.seconds) if busy else "", sent)
    return table


def _links(console: Console, plan: Plan, graph: Graph) -> RenderableType:
    """A row a link: what crosses it and after which node."""
    arrow = glyphs(console).arrow
    coded = any(link.written != RAW for link in plan.figures.links)
    table = grid("link", ">cut at", ">sends", *(["as"] if coded else []), "after node", "?values")
    for link in plan.figures.links:
        name = f"{units.clean(link.source)} {arrow} {units.clean(link.target)}"
        node = units.clean(graph.nodes[link.position - 1].name) if link.position else "(the input)"
        row = [name, str(link.position), units.sent(link, len(graph.nodes))]
        row += [units.code(link), node] if coded else [node]
        table.add_row(*row, units.listed(link.values, 1))
    return table


def _comparison(console: Console, plan: Plan) -> RenderableType:
    """The plan's figures against everything on each single tier."""
    energy = plan.figures.energy_j is not None or plan.objective == "energy"
    energy = energy and console.width >= NARROW
    is_text = plan.figures.ttft_s is not None
    headings = [*([">first token", ">each after"] if is_text else []), ">latency", ">cost", ">throughput"]
    table = grid("", *headings, *([">energy"] if energy else []), "=")
    figures = plan.figures
    row = _row(figures, is_text=is_text)
    table.add_row("this plan", *row, *([units.joules(figures.energy_j)] if energy else []), "", style="bold")
    for single in plan.single_tier:
        row = _row(single, is_text=is_text)
        note = against(plan, single)
        if not single.feasible:
            note = f"{note}, breaks a limit".removeprefix(", ")
        table.add_row(
            f"all on {units.clean(single.tier)}",
            *row,
            *([units.joules(single.energy_j)] if energy else []),
            note,
        )
    return table


def _row(one: Figures | SingleTier, *, is_text: bool) -> list[str]:
    """The figures of a plan or a single tier; of texts, with those of their tokens."""
    tokens = [units.seconds(one.ttft_s), units.seconds(one.tpot_s)] if is_text else []
    return [
        *tokens,
        units.seconds(one.latency_s),
        units.usd(one.cost_usd),
        units.per_second(one.throughput_per_s),
    ]


def _pareto(plan: Plan) -> RenderableType:
    """A few plans that no other beats in everything, from the fastest to the cheapest."""
    total = max(plan.pareto_count, len(plan.pareto))
    some = "" if plan.pareto_complete else " found"
    table = grid(f"={total} unbeaten plans{some}", ">latency", ">cost", ">throughput")
    for point in _spread(plan.pareto):
        cuts = "cuts at " + ", ".join(map(str, point.cuts))
        table.add_row(
            cuts,
            units.seconds(point.latency_s),
            units.usd(point.cost_usd),
            units.per_second(point.throughput_per_s),
        )
    note = ""
    if len(plan.pareto) > _PARETO_ROWS:
        more = f"--json --pareto {total}" if total > len(plan.pareto) else "--json"
        note = f"... ({total - _PARETO_ROWS} more with {more})"
    return with_note(table, note)


def _spread(points: tuple[ParetoPoint, ...]) -> list[ParetoPoint]:
    ordered = sorted(points, key=lambda p: (p.latency_s, p.cost_usd))
    if len(ordered) <= _PARETO_ROWS:
        return ordered
    last = len(ordered) - 1
    return [ordered[round(i * last / (_PARETO_ROWS - 1))] for i in range(_PARETO_ROWS)]
