"""Decisions over a grid of conditions: what is best as bandwidths, prices or speeds change.

An axis is a key of the tiers file and the values it takes, `link.0.bandwidth_mbps=1,10,100`
or `tier.cloud.gflops=1e3:1e5:log9`. The model is analysed once; each point of the grid only
plans again, on several processes where the grid is large enough to pay for them.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dnnsplit_onnx.errors import InputError, RequestError, TopologyError
from dnnsplit_onnx.machines.tiers_file import parse_topology, topology_of
from dnnsplit_onnx.machines.topology import TEXT_LENGTHS, Topology, Workload
from dnnsplit_onnx.planning.accepting import Accept
from dnnsplit_onnx.planning.choosing import plan_of, problem_of, settled
from dnnsplit_onnx.planning.coding import code_names
from dnnsplit_onnx.planning.costs import Costs
from dnnsplit_onnx.planning.figures import Objective
from dnnsplit_onnx.planning.objective import ObjectiveFunction
from dnnsplit_onnx.planning.planners import Planner
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.planning.problem import Problem
from dnnsplit_onnx.planning.weights import Weights
from dnnsplit_onnx.views import Tabled
from dnnsplit_onnx.work.analysing import Source
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.cuts import Accounting
from dnnsplit_onnx.work.pictured import analysis_for

#: A grid of more points is refused: it is a typing error more often than a wish.
MOST_POINTS = 1_000_000
#: Keys of the tiers file that are whole numbers.
_WHOLE = ("min_prefix", "max_prefix", "replicas", "clients", *TEXT_LENGTHS)
#: A process takes about a second to start: it must have more to do.
_WORTH_A_PROCESS_S = 4.0
#: Points planned here before deciding, and points a process is handed at once.
_TRIED, _CHUNK = 16, 64


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
        data = self.plan.to_dict()
        best = self.plan.best_single_tier
        return row | {
            "feasible": self.plan.feasible,
            "cuts": list(self.plan.cuts),
            "codes": list(self.plan.codes),
            "tiers": list(tiers_at_work(self.plan)),
            "latency_s": data["latency_s"],
            "cost_usd": data["cost_usd"],
            "throughput_per_s": data["throughput_per_s"],
            "energy_j": data["energy_j"],
            "weighted": data["weighted"],
            "best_single_tier": best.tier if best else None,
            "speedup_vs_best_single_tier": data["speedup_vs_best_single_tier"],
        }


@dataclass(frozen=True, slots=True)
class Sweep(Tabled):
    """What is best at every point of a grid; iterates over the points.

    Attributes:
        model: The model's file.
        objective: What was to be best.
        axes: What changed.
        points: One for each combination of values, the last axis changing fastest.
    """

    model: str
    objective: Objective
    axes: tuple[Axis, ...]
    points: tuple[SweepPoint, ...]

    def __iter__(self) -> Iterator[SweepPoint]:
        return iter(self.points)

    def __len__(self) -> int:
        return len(self.points)

    @property
    def unknowns(self) -> tuple[str, ...]:
        """Why nothing of this is proven: those of all plans, each once."""
        return unknowns_of(self.points)

    def records(self) -> list[dict[str, Any]]:
        """A row for each point."""
        return [point.to_dict() for point in self.points]

    def to_dict(self) -> dict[str, Any]:
        """The sweep as JSON-ready data."""
        return {
            "model": self.model,
            "objective": self.objective,
            "axes": [{"key": axis.key, "values": list(axis.values)} for axis in self.axes],
            "unknowns": list(self.unknowns),
            "points": [point.to_dict() for point in self.points],
        }


def unknowns_of(points: Iterable[SweepPoint]) -> tuple[str, ...]:
    """What is not known of any plan of these, each once."""
    plans = (point.plan for point in points)
    return tuple(dict.fromkeys(what for plan in plans if plan is not None for what in plan.unknowns))


def tiers_at_work(plan: Plan) -> tuple[str, ...]:
    """The names of the tiers that a plan gives nodes to."""
    return tuple(stage.tier for stage in plan.figures.stages if stage.stop > stage.start)


def parse_axis(text: str) -> Axis:
    """An axis from `KEY=V1,V2,...`, `KEY=START:STOP:COUNT` or `KEY=START:STOP:logCOUNT`.

    Raises:
        InputError: It has another form, or too many values.
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
            values = tuple(float(value) for value in listed.split(","))
        else:
            start, stop, count = listed.split(":")
            values = _spaced(float(start), float(stop), count)
    except ValueError:
        raise wrong from None
    if not all(math.isfinite(value) for value in values):
        raise wrong
    return Axis(key, values)


def _spaced(start: float, stop: float, count: str) -> tuple[float, ...]:
    """Values from start to stop, to twelve digits: 10 and not 9.999999999999998."""
    steps = int(count.removeprefix("log"))
    if not 1 <= steps <= MOST_POINTS:
        raise InputError(f"an axis of {steps} values", hint=f"1 to {MOST_POINTS:,}")
    if not (math.isfinite(start) and math.isfinite(stop)):
        raise ValueError
    if count.startswith("log"):
        if start <= 0 or stop <= 0:
            raise InputError(f"{start:g} to {stop:g} has no logarithmic steps", hint="start and stop above 0")
        space = np.geomspace(start, stop, steps)
    else:
        space = np.linspace(start, stop, steps)
    return tuple(float(f"{value:.12g}") for value in space)


def with_setting(topology: Topology, key: str, value: float) -> Topology:
    """A topology in which one key has another value.

    Args:
        topology: The topology.
        key: `tier.NAME.KEY`, `tier.INDEX.KEY`, `link.INDEX.KEY`, `limits.KEY` or `workload.KEY`.
        value: The new value.

    Raises:
        InputError: There is no such tier or link.
        TopologyError: There is no such key, or it cannot have this value.
    """
    data = topology.model_dump(by_alias=True, exclude_none=True)
    table, _, rest = key.partition(".")
    if table in ("limits", "workload") and rest and "." not in rest:
        whole = int(value) if rest in _WHOLE and value.is_integer() else value
        data[table] = data[table] | {rest: whole}
        return parse_topology(data, key)
    which, _, leaf = rest.rpartition(".")
    if table not in ("tier", "link") or not which or not leaf:
        raise InputError(
            f"`{key}` is not a key of a tiers file",
            hint="as in link.0.bandwidth_mbps, tier.edge.gflops or limits.deadline_ms",
        )
    index = _index(table, which, topology)
    rows = list(data[table])
    rows[index] = rows[index] | {leaf: int(value) if leaf in _WHOLE and value.is_integer() else value}
    return parse_topology(data | {table: tuple(rows)}, key)


def _index(table: str, which: str, topology: Topology) -> int:
    """The place of a tier or link that is named by a key."""
    if table == "tier" and which in topology.names:
        return topology.names.index(which)
    count = len(topology.links if table == "link" else topology.tiers)
    if which.isdecimal() and int(which) < count:
        return int(which)
    known = f"the tiers {', '.join(topology.names)}"
    if table == "link":
        known = "no links" if count == 0 else "link 0" if count == 1 else f"the links 0 to {count - 1}"
    raise InputError(f"there is no {table} `{which}`", hint=f"the topology has {known}")


def sweep(
    model: Source,
    topology: Topology | str | os.PathLike[str],
    axes: Sequence[Axis | str],
    *,
    objective: Objective | ObjectiveFunction = "latency",
    planner: str | Planner = "exact",
    costs: Costs | None = None,
    accounting: Accounting = "live",
    weights: Weights | Mapping[str, float] | None = None,
    bindings: Mapping[str, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
    processes: int | None = 1,
    codes: Sequence[str] = (),
    accept: Accept | None = None,
) -> Sweep:
    """Plans at every point of the grid, the last axis changing fastest.

    Args:
        model: An analysis, or what `analyse` takes.
        topology: The conditions that stay as they are, or the file that has them.
        axes: What changes, each as an `Axis` or as `parse_axis` reads it.
        objective: What is to be best.
        planner: Who chooses: a name, or a function.
        costs: Seconds of each node on each tier in place of the tiers' own; see `costs.cost_table`.
        accounting: What a cut is charged.
        weights: What the objective `weighted` is.
        bindings: Numbers for symbolic dimensions.
        progress: Called with points done and points in all.
        processes: How many to plan on; None takes as many as there are processors, if the
            grid is large enough to pay. New processes import the main module: a script
            that asks for more than one needs `if __name__ == "__main__":`.
        codes: As for `plan`.
        accept: As for `plan`; it is asked in this process, which then plans alone.

    Raises:
        InputError: The grid is empty or too large, or an axis, the objective, the planner or
            the accounting names nothing.
    """
    varied = tuple(parse_axis(axis) if isinstance(axis, str) else axis for axis in axes)
    total = _check(varied)
    topology = topology_of(topology)
    analysis = analysis_for(model, topology, bindings)
    keys = tuple(axis.key for axis in varied)
    if codes:
        topology = topology.with_codes(code_names(codes))
    grid = _Grid(analysis, topology, keys, objective, planner, accounting, weights, costs, accept)
    processes = processes if accept is None else 1
    planned = _planned(grid, itertools.product(*(axis.values for axis in varied)), total, processes)
    points = []
    for point in planned:
        points.append(point)
        if progress:
            progress(len(points), total)
    name: Objective = "custom" if callable(objective) else objective
    return Sweep(str(analysis.graph.file.path), name, varied, tuple(points))


def _check(axes: Sequence[Axis]) -> int:
    """The number of points of a grid.

    Raises:
        InputError: There are none or too many, or a key is swept twice.
    """
    total = math.prod(len(axis.values) for axis in axes)
    if not axes or not 1 <= total <= MOST_POINTS:
        raise InputError(f"a grid of {total if axes else 0:,} points", hint=f"1 to {MOST_POINTS:,} points")
    keys = [axis.key for axis in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(f"two axes are `{key}`", hint="give all its values to one")
    return total


@dataclass
class _Grid:
    """A model and what varies around it; plans one point at a time.

    What a point shares with the one before it is not worked out again: costs as long as no
    tier's speed changes, and rules on nodes as long as those do not.
    """

    analysis: Analysis
    topology: Topology
    keys: tuple[str, ...]
    objective: Objective | ObjectiveFunction
    planner: str | Planner
    accounting: Accounting
    weights: Weights | Mapping[str, float] | None
    costs: Costs | None = None
    accept: Accept | None = field(default=None, repr=False)
    last: tuple[Topology, Problem] | None = field(default=None, repr=False)

    def plan(self, values: tuple[float, ...]) -> SweepPoint:
        settings = dict(zip(self.keys, values, strict=True))
        here = self.topology
        for key, value in settings.items():
            here = with_setting(here, key, value)
        # Names were looked at before: what fails now is this point's own.
        try:
            problem = self._problem(here)
            made = plan_of(problem, self.planner, pareto=False, bound=False, accept=self.accept)
            return SweepPoint(settings, made)
        except (RequestError, TopologyError) as error:
            return SweepPoint(settings, None, error.message)

    def _problem(self, here: Topology) -> Problem:
        # A function of the caller's own may ask the topology for anything.
        if self.last is not None and not callable(self.costs) and _is_same_work(self.last[0], here):
            return replace(self.last[1], topology=settled(here, self.analysis))
        problem = problem_of(self.analysis, here, self.objective, self.accounting, self.weights, self.costs)
        self.last = here, problem
        return problem


def _is_same_work(one: Topology, other: Topology) -> bool:
    """Whether tiers differ in nothing but what neither costs in seconds nor rules depend on."""
    free = {"usd_per_hour": 0.0, "watts": None, "idle_watts": 0.0, "memory_gb": None}
    mine, theirs = (
        [tier.model_copy(update=free) for tier in topology.tiers] for topology in (one, other)
    )  # fmt: skip
    texts, others = (_text(topology.workload) for topology in (one, other))
    return mine == theirs and texts == others and one.limits.private_until == other.limits.private_until


def _text(workload: Workload) -> Workload:
    """What a workload says of texts alone."""
    return workload.changed(requests_per_s=None, clients=1)


def _planned(
    grid: _Grid, points: Iterable[tuple[float, ...]], total: int, processes: int | None
) -> Iterator[SweepPoint]:
    """The points planned, in their order."""
    points = iter(points)
    if processes is None:
        start = time.perf_counter()
        tried = list(itertools.islice(points, _TRIED))
        for values in tried:
            yield grid.plan(values)
        each = (time.perf_counter() - start) / max(len(tried), 1)
        processes = _worthwhile(each * (total - len(tried)))
    if processes <= 1:
        for values in points:
            yield grid.plan(values)
        return
    # Not forked: the parent has threads, its progress bar's for one.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_start, initargs=(grid,))
    try:
        yield from pool.map(_plan, points, chunksize=_CHUNK)
    finally:
        pool.shutdown(cancel_futures=True)


def _worthwhile(seconds: float) -> int:
    """How many processes to share so much work."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(available, int(seconds / _WORTH_A_PROCESS_S)))


#: In a process that plans: what it plans.
_ready: list[_Grid] = []


def _start(grid: _Grid) -> None:
    """Makes a new process ready."""
    _ready[:] = [grid]


def _plan(values: tuple[float, ...]) -> SweepPoint:
    return _ready[0].plan(values)
