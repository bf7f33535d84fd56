"""A smaller model on the lowest tier, alone and in front of the large one.

In a cascade the small model answers every request, and hands those of which it is not sure to the
large one, on the best tier above. With p the share that it hands on, a request takes on average

    latency = small + p * large,    cost and energy alike,

the slowest small + large, and each tier and link is busy for what it does of both: the throughput is
one over the longest of these. Both models are priced by `evaluate`, the large one at p times the
offered rate. What the small model's answers are worth is the user's to give, or is measured
(`measuring.escalation`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dnnsplit_onnx.errors import DnnsplitError, InputError
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.choosing import problem_of
from dnnsplit_onnx.planning.encodings import TENSOR, Encoding
from dnnsplit_onnx.planning.figures import Figures
from dnnsplit_onnx.planning.objective import LIMITED, violations, weigh
from dnnsplit_onnx.planning.problem import Problem
from dnnsplit_onnx.planning.rivals import Rival, priced
from dnnsplit_onnx.planning.waiting import link_station, tier_station
from dnnsplit_onnx.work.analysis import Analysis

#: Whose accuracy a user may give.
NAMES = ("small", "cascade", "large")


@dataclass(frozen=True)
class SmallModel:
    """A smaller model that could answer on the lowest tier, and how often it would be sure.

    Attributes:
        analysis: What it takes.
        name: What to call it.
        profile: Its own times on the lowest tier, where the tiers file has the large model's.
        escalation: The share of requests that it hands to the large model; None if not known.
        basis: Where that share is from, a sentence.
        accuracies: Of the `small` model and the `cascade`, if they are known.
        agreements: The share of samples that these two put in the large model's class, if measured.
    """

    analysis: Analysis
    name: str
    profile: str | None = None
    escalation: float | None = None
    basis: str = "the share of requests that escalate is as given"
    accuracies: Mapping[str, float] = field(default_factory=dict)
    agreements: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.escalation is not None and not 0 <= self.escalation <= 1:
            raise InputError(f"{self.escalation:g} is no share of requests", hint="give one from 0 to 1")


@dataclass(frozen=True)
class Upper:
    """The large model on a tier above, its input sent in one way."""

    encoding: Encoding
    topology: Topology

    @staticmethod
    def best(problem: Problem) -> tuple[str, tuple[int, ...]]:
        """The upper tier on which everything is best, and the cuts that put it there."""

        def rank(row: tuple[str, tuple[int, ...]]) -> tuple[bool, float]:
            figures = problem.figures(row[1])
            value = figures.value(problem.objective)
            return bool(problem.violations(figures)), -value if problem.objective == "throughput" else value

        return min(list(zip(problem.topology.names, problem.single_tier, strict=True))[1:], key=rank)


def small_rows(
    small: SmallModel, lone: Topology, large: Callable[[Topology], Problem], uppers: Sequence[Upper]
) -> Iterator[Rival]:
    """The small model alone, and in a cascade with the large one.

    Args:
        small: The small model.
        lone: The machines; tier 0 is one of them.
        large: The large model's problem on a topology.
        uppers: The ways to send the large model's input.
    """
    edge = lone.names[0]
    name, cascade = f"{small.name} on {edge}", f"cascade: {small.name} on {edge}"
    try:
        asked = large(uppers[0].topology)
        problem = problem_of(
            small.analysis, _for_small(lone, small), asked.function or asked.objective, "live", asked.weights
        )
    except DnnsplitError as error:
        reason = f"{error.message}{f': {error.hint}' if error.hint else ''}"
        yield Rival(name, "small", "other", reason=reason)
        return
    yield priced(
        name,
        "small",
        problem,
        problem.single_tier[0],
        answers="other",
        assumes=_worth(small, "small"),
        accuracy=small.accuracies.get("small"),
        agreement=small.agreements.get("small"),
    )
    if small.escalation is None:
        reason = "nobody says how often it escalates: --escalation, or --samples with --threshold"
        yield Rival(cascade, "cascade", "other", reason=reason)
        return
    if asked.function is not None:
        yield Rival(
            cascade, "cascade", "other", reason="a function of one plan's figures knows of no average of two"
        )
        return
    rows = [_cascade(cascade, small, problem, large, upper) for upper in uppers]
    kept = [row for row in rows if row.feasible] or rows
    sign = -1.0 if asked.objective == "throughput" else 1.0
    yield replace(
        min(kept, key=lambda row: sign * row.value(asked.objective)),
        accuracy=small.accuracies.get("cascade"),
        agreement=small.agreements.get("cascade"),
    )


def _worth(small: SmallModel, which: str) -> tuple[str, ...]:
    """That nobody says what answers are worth."""
    if which in small.accuracies or which in small.agreements:
        return ()
    return ("its answers are another model's, and nobody says what they are worth",)


def _for_small(topology: Topology, small: SmallModel) -> Topology:
    """The machines without the rules, which name the large model's nodes."""
    no_rules = {"pin": (), "min_prefix": None, "max_prefix": None, "private": False, "private_inputs": ()}
    low, *others = topology.tiers
    low = low.changed(**no_rules, **({} if small.profile is None else _profiled(small.profile)))
    idle = [
        tier.changed(**no_rules, **({"profile": None, "gflops": 1.0} if tier.profile is not None else {}))
        for tier in others
    ]
    limits = topology.limits.changed(private_until=None)
    return TENSOR.on(topology.changed(tiers=(low, *idle), limits=limits))


def _profiled(profile: str) -> dict[str, object]:
    return {"profile": profile, "gflops": None, "memory_gb_per_s": None, "overhead_us": 0.0}


def _cascade(
    name: str, small: SmallModel, problem: Problem, large: Callable[[Topology], Problem], upper: Upper
) -> Rival:
    """The small model in front of the large one, whose input is sent in one way."""
    share, topology = small.escalation or 0.0, problem.topology
    handed, rate = upper.topology, topology.workload.requests_per_s
    if rate is not None and share:
        handed = handed.with_workload(requests_per_s=rate * share)
    above = large(handed)
    tier, cuts = upper.best(above)
    first, second = problem.figures(problem.single_tier[0]), above.figures(cuts)
    mean = _mean(first, second, share, problem)
    slowest = first.latency_s + (second.latency_s if share else 0.0)
    broken = [*violations(replace(mean, latency_s=slowest), topology.limits), *_rules(problem, first)]
    if share:
        broken += _rules(above, second)
    assumes = (
        f"{small.basis}: {share:.1%} go to {tier}",
        f"its slowest request takes {slowest * 1e3:.4g} ms",
        *([upper.encoding.assumes] if upper.encoding.assumes else []),
        *_worth(small, "cascade"),
    )
    return Rival(
        f"{name}, else {tier}",
        "cascade",
        "other",
        assumes,
        tiers=(topology.names[0], tier),
        latency_s=mean.latency_s,
        cost_usd=mean.cost_usd,
        throughput_per_s=mean.throughput_per_s,
        energy_j=mean.energy_j,
        weighted=mean.weighted,
        feasible=math.isfinite(mean.value(problem.objective)) and not broken,
        violations=tuple(broken),
    )


def _rules(problem: Problem, figures: Figures) -> tuple[str, ...]:
    """The rules and rates that one of the two models breaks; limits on sums are both models' together."""
    none = dict.fromkeys((*(limited.key for limited in LIMITED.values()), "throughput_per_s"))
    return replace(problem, topology=problem.topology.with_limits(**none)).violations(figures)


def _mean(first: Figures, second: Figures, share: float, problem: Problem) -> Figures:
    """What a request takes on average, every one the first and a share of them the second as well."""
    topology, weights = problem.topology, problem.weights

    def both(one: float, other: float) -> float:
        return one + share * other if share else one  # what is not asked may be unknown

    stages = zip(first.stages, second.stages, strict=True)
    links = zip(first.links, second.links, strict=True)
    stations = [tier_station(topology, t) for t in range(len(topology.tiers))]
    stations += [link_station(topology, t) for t in range(len(topology.links))]
    seconds = [both(one.seconds, other.seconds) for one, other in stages]
    seconds += [both(one.seconds, other.seconds) for one, other in links]
    steps = [station.step(busy) for station, busy in zip(stations, seconds, strict=True)]
    throughput = math.nan if any(map(math.isnan, steps)) else 1 / max(steps) if max(steps) > 0 else math.inf
    latency, cost = both(first.latency_s, second.latency_s), both(first.cost_usd, second.cost_usd)
    joules = first.energy_j, second.energy_j if share else 0.0
    energy = None if joules[0] is None or joules[1] is None else both(joules[0], joules[1])
    weighted = None
    if weights is not None and (energy is not None or not weights.energy):
        weighted = weigh(weights, latency, cost, energy or 0.0)
    return Figures((), (), latency, cost, throughput, energy, weighted)
