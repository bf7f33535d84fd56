"""A plan as plain text, for `print`: narrow, and of nothing but what the plan holds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dnnsplit_onnx.planning.plans import Plan

_PROVEN = {
    "dag": "no set of nodes does better",
    "order": "no cut along the order does better",
    "none": "nothing is proven of it",
}


def plan_line(plan: Plan) -> str:
    """A plan in a line: what it is best in, and who runs which nodes."""
    stages = ", ".join(f"{stage.tier} {stage.start}:{stage.stop}" for stage in plan.figures.stages)
    return f"<Plan {plan.objective}, {stages}, {_ms(plan.figures.latency_s)} ms>"


def plan_text(plan: Plan) -> str:
    """A plan as a table of its tiers and links, and what single tiers take."""
    asked = f"cuts as given, {plan.objective}" if plan.planner == "at" else f"best {plan.objective}"
    known = ", as far as is known" if plan.unknowns and plan.optimality != "none" else ""
    lines = [f"{asked} by `{plan.planner}`: {_PROVEN[plan.optimality]}{known}"]
    lines += [f"not known: {what}" for what in plan.unknowns]
    lines += [f"breaks a limit: {sentence}" for sentence in plan.violations]
    return "\n".join([*lines, "", *_steps(plan), "", *_totals(plan)])


def _steps(plan: Plan) -> list[str]:
    figures = plan.figures
    rows = [("", "nodes", "GFLOP", "kB", "ms", "USD")]
    for at, stage in enumerate(figures.stages):
        count = str(stage.stop - stage.start)
        rows.append(
            (stage.tier, count, _short(stage.flops / 1e9), "", _ms(stage.seconds), _short(stage.cost_usd))
        )
        if at < len(figures.links):
            link = figures.links[at]
            sent = _short(None if link.nbytes is None else link.nbytes / 1e3)
            name = f"  cut at {link.position}"
            rows.append((name, "", "", sent, _ms(link.seconds), _short(link.cost_usd)))
    return _table(rows)


def _totals(plan: Plan) -> list[str]:
    is_text = plan.figures.ttft_s is not None
    tokens = ("first token ms", "each after ms") if is_text else ()
    rows: list[tuple[str, ...]] = [("", *tokens, "latency ms", "USD", "per second")]
    named = [("this plan", plan.figures), *((f"all on {one.tier}", one) for one in plan.single_tier)]
    for name, one in named:
        phases = (_ms(one.ttft_s), _ms(one.tpot_s)) if is_text else ()
        figures = (_ms(one.latency_s), _short(one.cost_usd), _short(one.throughput_per_s))
        rows.append((name, *phases, *figures))
    return _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    ]


def _ms(seconds: float | None) -> str:
    return _short(None if seconds is None else seconds * 1e3)


def _short(value: float | None) -> str:
    return "?" if value is None or math.isnan(value) else f"{value:.4g}"
