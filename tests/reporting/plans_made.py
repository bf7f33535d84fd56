"""Plans put together by hand, for what is said of them."""

from __future__ import annotations

import math
from typing import Any

from dnnsplit_onnx.planning.figures import Figures, SingleTier, Stage, Transfer
from dnnsplit_onnx.planning.plans import Plan

SIZE = 10


def made(
    cuts: tuple[int, ...],
    stage_s: tuple[float, ...],
    link_s: tuple[float, ...],
    singles: tuple[float, ...],
    **changes: Any,
) -> Plan:
    """A plan over tiers a, b, c ... with these cuts, seconds, and latencies of single tiers."""
    names = "abcdef"
    bounds = (0, *cuts, SIZE)
    stages = tuple(
        Stage(names[t], bounds[t], bounds[t + 1], 1000, stage_s[t], 1e-6, None) for t in range(len(stage_s))
    )
    links = tuple(
        Transfer(names[t], names[t + 1], cuts[t], 4000, 0, link_s[t], 0.0, None, ("value",))
        for t in range(len(link_s))
    )
    total = math.fsum((*stage_s, *link_s))
    figures = Figures(stages, links, total, 1e-6 * len(stages), 1 / max((*stage_s, *link_s, 1e-9)), None)
    rows = tuple(
        SingleTier(names[t], seconds, 1e-6, 1 / seconds if seconds else math.inf, None, feasible=True)
        for t, seconds in enumerate(singles)
    )
    settings: dict[str, Any] = {
        "objective": "latency",
        "planner": "exact",
        "optimality": "order",
        "feasible": True,
        "violations": (),
        "single_tier": rows,
    }
    return Plan(figures=figures, **(settings | changes))
