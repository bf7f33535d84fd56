"""Why no plan keeps the limits: which of them fails, by how much, and what would be met."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from decimal import ROUND_CEILING, Context
from typing import Any

from dnnsplit_onnx.errors import DnnsplitError, InfeasibleError, TopologyError
from dnnsplit_onnx.planning.figures import Measure
from dnnsplit_onnx.planning.objective import LIMITED, keeps
from dnnsplit_onnx.planning.planners.chain import Chain, chain_of, least
from dnnsplit_onnx.planning.planners.throughput import fastest
from dnnsplit_onnx.planning.problem import Problem, Solution
from dnnsplit_onnx.planning.waiting import link_station, tier_station

Within = Callable[[Problem, Measure, Chain | None], Solution | None]

_BEST: dict[Measure, str] = {
    "latency": "the fastest takes",
    "cost": "the cheapest costs",
    "energy": "the thriftiest takes",
    "ttft": "the fastest takes",
    "tpot": "the fastest takes",
}


def infeasible(problem: Problem, within: Within) -> DnnsplitError:
    """The error for a problem that no plan solves.

    Args:
        problem: The problem.
        within: Finds the best plan of a chain under the limits on sums.
    """
    if chain_of(problem, ()) is None:
        slow = _too_slow(problem)
        return _no_plan_at_all(problem) if slow is None else slow
    measures = (
        *problem.limits,
        *(() if problem.objective in ("throughput", "custom") else (problem.objective,)),
    )
    if problem.needs_energy(measures) and chain_of(problem, ("energy",)) is None:
        return _unknown_energy(problem)
    alone = [measure for measure in problem.limits if not _can_be_kept(problem, measure)]
    if alone:
        return _each_alone(problem, alone)
    return _together(problem, within)


def _no_plan_at_all(problem: Problem) -> InfeasibleError:
    """Not one plan, whatever it takes: a rule, a link's cap or a tier's memory is too tight."""
    if problem.rules is not None and problem.rules.contradiction is not None:
        return InfeasibleError(
            f"no plan keeps to the rules of the tiers: {problem.rules.contradiction}",
            hint="take one of the rules out of the tiers file",
        )
    topology = problem.topology
    no_caps = tuple(link.changed(max_mb=None) for link in topology.links)
    no_memory = tuple(tier.changed(memory_gb=None) for tier in topology.tiers)
    if _is_possible(problem, tiers=no_memory):
        return _too_little_memory(problem)
    if _is_possible(problem, links=no_caps):
        caps = ", ".join(f"{link.max_mb:g}" for link in topology.links if link.max_mb is not None)
        return InfeasibleError(
            f"no plan sends as little as the links' max_mb = {caps}", hint="raise `max_mb`"
        )
    if _is_possible(replace(problem, allowed=None, rules=None)):
        return InfeasibleError(
            "no plan keeps to the pinned, prefix and private rules of the tiers",
            hint="is a node pinned above one that depends on it, or to two tiers?",
        )
    return InfeasibleError("no plan keeps to memory, caps and rules together", hint="loosen one of them")


def _too_slow(problem: Problem) -> InfeasibleError | None:
    """Which rate no plan sustains, and which stage of the best saturates; None if none is asked."""
    if not problem.has_rates:
        return None
    topology = problem.topology.with_limits(throughput_per_s=None).with_workload(requests_per_s=None)
    free = replace(problem, topology=topology)
    # The fastest pace, by halving: the sweep over positions knows memory, caps and rules.
    cuts = fastest(free)
    if cuts is None:
        return None
    figures = free.figures(cuts)
    parts = [(tier_station(topology, t), f"tier `{x.tier}`", x.seconds) for t, x in enumerate(figures.stages)]
    parts += [(link_station(topology, t), f"link {t}", x.seconds) for t, x in enumerate(figures.links)]
    _, name, _ = max(parts, key=lambda part: part[0].step(part[2]))
    asked = max(problem.topology.workload.requests_per_s or 0, problem.topology.limits.throughput_per_s or 0)
    best = figures.throughput_per_s
    return InfeasibleError(
        f"no plan sustains {asked:.6g} requests per second: at the best pace, {best:.6g} per second, {name} "
        f"is busy all the time; it saturates at {asked / best:.3g} times that",
        hint="offer fewer requests, or add `replicas`, a faster tier or a faster link",
    )


def _is_possible(problem: Problem, **changes: Any) -> bool:
    topology = problem.topology.changed(**changes)
    return chain_of(replace(problem, topology=topology), ()) is not None


def _too_little_memory(problem: Problem) -> InfeasibleError:
    """Says how much memory would do on each tier whose limit alone could be raised."""
    topology = problem.topology
    limits = ", ".join(f"{t.name}: {t.memory_gb:g} GB" for t in topology.tiers if t.memory_gb is not None)
    fixes = []
    for t, tier in enumerate(topology.tiers):
        need = None if tier.memory_gb is None else _memory_that_does(problem, t)
        if need is not None:
            more = need / 1e9 - (tier.memory_gb or 0.0)
            fixes.append(f"memory_gb = {_at_least(need / 1e9)} on tier `{tier.name}` ({more:.3g} GB more)")
    hint = (
        f"the nearest that can be met: {'; or '.join(fixes)}" if fixes else "raise more than one `memory_gb`"
    )
    return InfeasibleError(f"no plan fits the memory of the tiers ({limits})", hint=hint)


def _memory_that_does(problem: Problem, t: int) -> int | None:
    """The least memory of one tier, in bytes, with which there is a plan."""

    def is_enough(nbytes: int) -> bool:
        return _is_possible(problem, tiers=problem.topology.with_tier(t, memory_gb=nbytes / 1e9).tiers)

    assert problem.costs.memory is not None
    low = int(problem.topology.tiers[t].memory_nbytes)
    high = problem.costs.memory.nbytes(0, problem.costs.size)
    if high is None or not is_enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _can_be_kept(problem: Problem, measure: Measure) -> bool:
    return keeps(problem.figures(_best_alone(problem, measure)), problem.topology.limits, measure)


def _best_alone(problem: Problem, measure: Measure) -> tuple[int, ...]:
    chain = chain_of(problem, (measure,))
    assert chain is not None, "there is a plan whose figure is known"
    return least(chain, problem.additive(measure))


def _unknown_energy(problem: Problem) -> TopologyError:
    topology = problem.topology
    tier = next((tier.name for tier in topology.tiers if tier.watts is None), None)
    link = next((t for t, link in enumerate(topology.links) if link.watts is None), None)
    who = f"tier `{tier}`" if tier is not None else f"link {link}"
    return TopologyError(
        f"the energy of every plan is unknown: {who} has no `watts`",
        hint="add `watts` to each tier and link that a plan may use",
    )


def _each_alone(problem: Problem, measures: list[Measure]) -> InfeasibleError:
    reasons, fixes = [], []
    for measure in measures:
        limited = LIMITED[measure]
        best = limited.figure(measure, problem.figures(_best_alone(problem, measure)))
        limit = limited.limit(problem.topology.limits) or 0.0
        more = f"{best:.6g} {limited.unit} ({best - limit:.3g} {limited.unit} more)"
        reasons.append(f"no plan meets {limited.key} = {limit:g}: {_BEST[measure]} {more}")
        fixes.append(f"{limited.key} = {_at_least(best)}")
    return InfeasibleError("; ".join(reasons), hint=f"the nearest that can be met: {' and '.join(fixes)}")


def _together(problem: Problem, within: Within) -> InfeasibleError:
    """Each limit can be met alone: what is best in one under all the others."""
    options = []
    for measure in problem.limits:
        limited = LIMITED[measure]
        rest = replace(problem, topology=problem.topology.with_limits(**{limited.key: None}))
        best = within(rest, measure, chain_of(rest, (measure, *rest.limits)))
        if best is not None:
            value = limited.figure(measure, problem.figures(best.cuts))
            options.append(f"with {_listed(problem, rest.limits)}, {limited.key} = {_at_least(value)}")
    wish = _listed(problem, problem.limits)
    hint = f"the nearest that can be met: {'; or '.join(options)}" if options else "loosen two limits or more"
    return InfeasibleError(f"no plan meets {wish} together, though each can be met alone", hint=hint)


def _listed(problem: Problem, measures: Iterable[Measure]) -> str:
    limits = problem.topology.limits
    return " and ".join(f"{LIMITED[m].key} = {LIMITED[m].limit(limits):g}" for m in measures)


def _at_least(value: float) -> str:
    """A short number that is not below a value, so that as a limit it is kept."""
    nearest = f"{value:.6g}"
    if float(nearest) >= value:
        return nearest
    return f"{float(Context(prec=6, rounding=ROUND_CEILING).create_decimal(value)):.6g}"
