"""Decisions over a grid of conditions: what is best as bandwidths, prices or speeds change.

An axis is a key of the tiers file and the values it takes, `link.0.bandwidth_mbps=1,10,100`
or `tier.cloud.gflops=1e3:1e5:log9`. The model is analysed once; each point of the grid only
plans again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dnnsplit_onnx.cuts import Accounting
from dnnsplit_onnx.errors import InfeasibleError, InputError
from dnnsplit_onnx.planning import plan
from dnnsplit_onnx.plans import Objective, Plan
from dnnsplit_onnx.topology import Topology, parse_topology
from dnnsplit_onnx.workload import Workload

#: A grid of more points is refused: it is a typing error more often than a wish.
MOST_POINTS = 1_000_000


@dataclass(frozen=True, slots=True)
class Axis:
    """A key of the tiers file and the values it takes.

    Attributes:
        key: As the user wrote it: `link.0.bandwidth_mbps`, `tier.edge.gflops`,
            `limits.deadline_ms`.
        values: What it takes in turn.
    """

    key: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One point of the grid.

    Attributes:
        settings: The value of each axis, by its key.
        plan: What is best there, None if no plan keeps to the limits.
        reason: Why there is none.
    """

    settings: Mapping[str, float]
    plan: Plan | None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The point as one flat JSON-ready row, without a plan's inner figures."""
        row: dict[str, Any] = dict(self.settings)
        if self.plan is None:
            return row | {"feasible": False, "reason": self.reason}
        figures = self.plan.figures
        energy = figures.energy_j
        speedup = self.plan.speedup_vs_best_single_tier
        best = self.plan.best_single_tier
        return row | {
            "feasible": self.plan.feasible,
            "cuts": list(self.plan.cuts),
            "tiers": [stage.tier for stage in figures.stages if stage.stop > stage.start],
            "latency_s": figures.latency_s,
            "cost_usd": figures.cost_usd,
            "throughput_per_s": figures.throughput_per_s,
            "energy_j": energy,
            "best_single_tier": best.tier if best else None,
            "speedup_vs_best_single_tier": speedup,
        }


def parse_axis(text: str) -> Axis:
    """An axis from `KEY=V1,V2,...`, `KEY=START:STOP:COUNT` or `KEY=START:STOP:logCOUNT`.

    Raises:
        InputError: It has another form.
    """
    key, equals, listed = text.partition("=")
    wrong = InputError(
        f"cannot read `{text}` as an axis",
        hint="write KEY=V1,V2,... or KEY=START:STOP:COUNT or KEY=START:STOP:logCOUNT, "
        "as in link.0.bandwidth_mbps=1:1000:log7",
    )
    if not equals or not key or not listed:
        raise wrong
    try:
        if ":" not in listed:
            return Axis(key, tuple(float(value) for value in listed.split(",")))
        start, stop, count = listed.split(":")
        steps = int(count.removeprefix("log"))
        space = np.geomspace if count.startswith("log") else np.linspace
        if steps < 1 or not (math.isfinite(float(start)) and math.isfinite(float(stop))):
            raise wrong
        return Axis(key, tuple(float(value) for value in space(float(start), float(stop), steps)))
    except ValueError:
        raise wrong from None


def with_setting(topology: Topology, key: str, value: float) -> Topology:
    """A topology in which one key has another value.

    Args:
        topology: The topology.
        key: `tier.NAME.KEY`, `tier.INDEX.KEY`, `link.INDEX.KEY` or `limits.KEY`.
        value: The new value.

    Raises:
        InputError: There is no such tier or link.
        TopologyError: There is no such key, or it cannot have this value.
    """
    data = topology.model_dump(exclude_none=True)
    table, _, rest = key.partition(".")
    if table == "limits" and rest and "." not in rest:
        data["limits"][rest] = value
        return parse_topology(data, key)
    which, _, leaf = rest.partition(".")
    if table not in ("tier", "link") or not leaf:
        raise InputError(
            f"`{key}` is not a key of a tiers file",
            hint="as in link.0.bandwidth_mbps, tier.edge.gflops or limits.deadline_ms",
        )
    rows = list(data[table])
    index = _index(which, topology, len(rows) if table == "link" else None)
    rows[index] = rows[index] | {leaf: value}
    return parse_topology(data | {table: tuple(rows)}, key)


def sweep(
    workload: Workload,
    topology: Topology,
    axes: Sequence[Axis],
    *,
    objective: Objective = "latency",
    planner: str = "exact",
    accounting: Accounting = "live",
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[SweepPoint]:
    """Plans at every point of the grid, the last axis changing fastest.

    Args:
        workload: The model.
        topology: The conditions that stay as they are.
        axes: What changes.
        objective: What is to be best.
        planner: Who chooses.
        accounting: What a cut is charged.
        progress: Called with points done and points in all.

    Raises:
        InputError: The grid is empty or too large, or an axis names nothing.
    """
    total = math.prod(len(axis.values) for axis in axes)
    if not axes or total > MOST_POINTS:
        raise InputError(f"a grid of {total if axes else 0} points", hint=f"1 to {MOST_POINTS} points")
    for done, values in enumerate(itertools.product(*(axis.values for axis in axes)), start=1):
        settings = {axis.key: value for axis, value in zip(axes, values, strict=True)}
        here = topology
        for key, value in settings.items():
            here = with_setting(here, key, value)
        try:
            chosen = plan(
                workload.graph, here, objective=objective, planner=planner, accounting=accounting,
                workload=workload, pareto=False,
            )  # fmt: skip
            yield SweepPoint(settings, chosen)
        except InfeasibleError as error:
            yield SweepPoint(settings, None, error.message)
        if progress:
            progress(done, total)


def _index(which: str, topology: Topology, links: int | None) -> int:
    names = () if links is not None else topology.names
    if which in names:
        return names.index(which)
    count = links if links is not None else len(names)
    if which.isdecimal() and int(which) < count:
        return int(which)
    known = f"link 0 to {count - 1}" if links is not None else f"the tiers {', '.join(names)}"
    what = "link" if links is not None else "tier"
    raise InputError(f"there is no {what} `{which}`", hint=f"the topology has {known}" if count else None)
