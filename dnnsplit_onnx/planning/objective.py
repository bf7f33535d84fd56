"""The one objective: what any plan takes, whoever made it.

With K tiers, cuts S_0 <= ... <= S_{K-2} (positions along the graph's order), and D(S) the
bytes that cross S (design, section 3; Kayal & Leon-Garcia, IEEE Access 2024, eqs. 1-11,
16-24 with their faults corrected):

- a stage takes P_t(S_t) - P_t(S_{t-1}) seconds, P_t being the seconds of a prefix;
- link t takes 8 D(S_t) / bandwidth_t + delay_t if any node remains above S_t, else 0, and
  the same for the outputs made above it, if they must return;
- latency is the sum of all, cost and energy the weighted sums, throughput one over the
  largest, each divided by the machines that share it (replicas, clients);
- at an offered rate a request waits for each stage and link (`waiting`), which is part of
  latency; a tier may charge for each request that runs anything on it.

Every additive figure is a sum of one term a tier and position (P_t, priced) and one a link
and position, correctly rounded (`math.fsum`). So it does not depend on the order of its
terms, plans that tie in exact arithmetic tie here, a limit exactly at a plan's figure is
kept, and a planner that adds the same terms exactly finds the true optimum of this function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.errors import InputError, PlanError
from dnnsplit_onnx.machines.tiers import Tier
from dnnsplit_onnx.machines.topology import Limits, Link, Topology
from dnnsplit_onnx.planning.costs import CostTable
from dnnsplit_onnx.planning.figures import Figures, Measure, Stage, Transfer
from dnnsplit_onnx.planning.phases import with_phases
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.planning.waiting import Station, link_station, tier_station
from dnnsplit_onnx.planning.weights import Weights
from dnnsplit_onnx.work.codes import RAW
from dnnsplit_onnx.work.cuts import UNKNOWN


def evaluate(
    plan: Plan | Sequence[int],
    costs: CostTable,
    topology: Topology,
    weights: Weights | None = None,
    codes: Sequence[str] | None = None,
) -> Figures:
    """What one request takes under a plan.

    Args:
        plan: A plan, or its cuts: the position that each link crosses, from tier 0 up.
        costs: The costs of the graph on the topology's tiers.
        topology: The tiers and links.
        weights: Of the weighted sum, if it is asked for.
        codes: The code of each link; those of the plan, or `raw`, by default.

    Raises:
        PlanError: The cuts are not as many as the links, or not ascending positions of
            the graph; or a link has a code that no value crosses in, or that the tiers
            without work on either side do not have.
    """
    cuts = tuple(plan.cuts if isinstance(plan, Plan) else plan)
    bounds = (0, *(int(cut) for cut in cuts), costs.size)
    if len(cuts) != len(topology.links):
        raise PlanError(
            f"a plan over {len(topology.tiers)} tiers has {len(topology.links)} cuts, not {len(cuts)}"
        )
    if any(low > high for low, high in pairwise(bounds)):
        raise PlanError(f"cuts {list(cuts)} are not ascending positions from 0 to {costs.size}")

    if codes is None:
        codes = plan.codes if isinstance(plan, Plan) else [RAW] * len(cuts)
    coding = _coding_seconds(bounds, codes, costs)
    stages = tuple(
        _stage(t, bounds[t], bounds[t + 1], costs, topology, drawn, coding[t])
        for t, drawn in enumerate(topology.tier_watts)
    )
    links = tuple(
        _transfer(t, bounds[t + 1], costs, topology, drawn, codes[t])
        for t, drawn in enumerate(topology.link_watts)
    )
    parts: tuple[Stage | Transfer, ...] = (*stages, *links)
    watts = [drawn or 0.0 for drawn in topology.tier_watts]
    joules = [link.energy_j or 0.0 for link in links]
    is_energy_known = all(part.energy_j is not None for part in parts if part.seconds != 0)
    # What a request waits for tiers, and what they charge for it, besides their seconds.
    waits = [stage.waiting_s for stage in stages]
    fees = [costs.passes * _fee(tier, stage) for tier, stage in zip(topology.tiers, stages, strict=True)]
    weighted = None
    if weights is not None and (is_energy_known or not weights.energy):
        rates = [weigh(weights, 1.0, t.usd_per_s, w) for t, w in zip(topology.tiers, watts, strict=True)]
        delays = [link.seconds + link.waiting_s for link in links]
        priced = [weigh(weights, d, x.cost_usd, j) for d, x, j in zip(delays, links, joules, strict=True)]
        priced += [weights.latency * wait for wait in waits if wait and weights.latency]
        priced += [weights.cost * fee for fee in fees if fee and weights.cost]
        weighted = _sum(costs, bounds, rates, priced, coding)
    transfers = [link.seconds + link.waiting_s for link in links]
    figures = Figures(
        stages=stages,
        links=links,
        latency_s=_sum(costs, bounds, [1.0] * len(stages), [*transfers, *waits], coding),
        cost_usd=_sum(
            costs,
            bounds,
            [t.usd_per_s for t in topology.tiers],
            [*(x.cost_usd for x in links), *fees],
            coding,
        ),
        throughput_per_s=_throughput(
            [tier_station(topology, t).step(stage.seconds) for t, stage in enumerate(stages)]
            + [link_station(topology, t).step(link.seconds) for t, link in enumerate(links)]
        ),
        energy_j=_sum(costs, bounds, watts, joules, coding) if is_energy_known else None,
        weighted=weighted,
    )
    if costs.prefill is None or costs.step is None:
        return figures
    rate = topology.workload.requests_per_s
    calm = topology if rate is None else topology.with_workload(requests_per_s=None)
    prefill, step = (evaluate(cuts, table, calm) for table in (costs.prefill, costs.step))
    check = None if costs.check is None else evaluate(cuts, costs.check, calm)
    return with_phases(figures, prefill, step, check, costs.prefill.passes)


def _fee(tier: Tier, stage: Stage) -> float:
    """What a tier charges for a request, if it runs anything of it."""
    return tier.usd_per_request if stage.stop > stage.start else 0.0


_Figure = TypeVar("_Figure", float, NDArray[np.float64])


#: An objective of the user's own: what to minimise, from what a plan takes.
ObjectiveFunction = Callable[[Figures], float]


def with_custom(figures: Figures, function: ObjectiveFunction) -> Figures:
    """Figures with what a function of the user's own makes of them, if they are known.

    Raises:
        InputError: It makes no number of them.
    """
    if math.isnan(figures.latency_s):
        return figures
    returned: object = function(figures)
    # Infinite means that a plan is out of the question; NaN compares with nothing.
    value = math.nan
    if isinstance(returned, int | float | np.integer | np.floating) and not isinstance(returned, bool):
        value = float(returned)
    if math.isnan(value):
        name = getattr(function, "__name__", type(function).__name__)
        raise InputError(
            f"objective `{name}` returned {returned!r} for the cuts {list(figures.cuts)}",
            hint="return a number, smaller for better plans; math.inf rules one out",
        )
    return replace(figures, custom=value)


def weigh(weights: Weights, latency: _Figure, cost: _Figure, energy: _Figure) -> _Figure:
    """The weighted sum of three figures; one of weight 0 is not looked at."""
    pairs = ((weights.latency, latency), (weights.cost, cost), (weights.energy, energy))
    first, *others = [weight * figure for weight, figure in pairs if weight]
    for other in others:
        first = first + other
    return first


@dataclass(frozen=True, slots=True)
class Limited:
    """A limit on a figure, in the user's own unit.

    So a limit copied from a report is met exactly.

    Attributes:
        key: Its name in the tiers file.
        unit: Its unit.
        factor: What a figure is multiplied by to be in that unit.
    """

    key: str
    unit: str
    factor: float

    def figure(self, measure: Measure, figures: Figures) -> float:
        """The figure it limits; infinite where unknown."""
        return figures.value(measure) * self.factor

    def limit(self, limits: Limits) -> float | None:
        """Its value, None if it is not set."""
        value: float | None = getattr(limits, self.key)
        return value


#: The limits on figures that are sums.
LIMITED: dict[Measure, Limited] = {
    "latency": Limited("deadline_ms", "ms", 1e3),
    "cost": Limited("budget_usd", "USD", 1.0),
    "energy": Limited("energy_j", "J", 1.0),
    "ttft": Limited("ttft_ms", "ms", 1e3),
    "tpot": Limited("tpot_ms", "ms", 1e3),
}


def keeps(figures: Figures, limits: Limits, measure: Measure) -> bool:
    """Whether a plan keeps the limit on one figure."""
    limit = LIMITED[measure].limit(limits)
    return limit is None or LIMITED[measure].figure(measure, figures) <= limit


def violations(figures: Figures, limits: Limits) -> tuple[str, ...]:
    """The limits on sums that a plan breaks, each as a sentence that says by how much."""
    broken = []
    for measure, limited in LIMITED.items():
        limit, unit = limited.limit(limits), limited.unit
        if limit is None or keeps(figures, limits, measure):
            continue
        value = limited.figure(measure, figures)
        if math.isinf(value):
            broken.append(f"{measure} is unknown, and limited to {limit:.6g} {unit}")
        else:
            broken.append(
                f"{measure} {value:.6g} {unit} exceeds {limit:.6g} {unit} by {value - limit:.3g} {unit}"
            )
    least = limits.throughput_per_s
    if least is not None and not figures.throughput_per_s >= least:
        broken.append(f"throughput {figures.throughput_per_s:.6g}/s falls short of {least:.6g}/s")
    return (*broken, *saturated(figures))


def saturated(figures: Figures) -> tuple[str, ...]:
    """The tiers and links that the offered rate keeps busy all the time, each as a sentence."""
    parts = [(f"tier `{stage.tier}`", stage.utilisation) for stage in figures.stages]
    parts += [(f"link {t}", link.utilisation) for t, link in enumerate(figures.links)]
    return tuple(
        f"{name} saturates: the offered rate is {busy:.3g} times what it can sustain"
        for name, busy in parts
        if busy is not None and busy >= 1
    )


def link_seconds(link: Link, costs: CostTable, return_output: bool) -> NDArray[np.float64]:
    """Seconds that a link is busy for each cut.

    Returns:
        Shape (n + 1,); NaN where the size of what crosses is unknown.
    """
    up = np.where(costs.up_nbytes == UNKNOWN, np.nan, costs.up_nbytes)
    delay_ms = costs.passes * link.delay_ms
    seconds = _way_seconds(link.bandwidth_mbps, delay_ms, up)
    seconds[-1] = 0.0  # no node remains above the last position
    if return_output:
        down = np.where(costs.down_nbytes == UNKNOWN, np.nan, costs.down_nbytes)
        back = _way_seconds(link.down_mbps or link.bandwidth_mbps, delay_ms, down)
        seconds = seconds + np.where(down == 0, 0.0, back)
    return seconds


def link_cost_usd(
    link: Link, costs: CostTable, return_output: bool, seconds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Price of a link for each cut, shape (n + 1,); `seconds` as `link_seconds` gives them."""
    if link.usd_per_gb is None:
        return seconds * ((link.usd_per_hour or 0.0) / 3600.0)
    nbytes = np.where(costs.up_nbytes == UNKNOWN, np.nan, costs.up_nbytes)
    nbytes[-1] = 0.0
    if return_output:
        nbytes = nbytes + np.where(costs.down_nbytes == UNKNOWN, np.nan, costs.down_nbytes)
    return nbytes * (link.usd_per_gb / 1e9)


_Seconds = TypeVar("_Seconds", float, NDArray[np.float64])


def _way_seconds(mbps: float, delay_ms: float, nbytes: _Seconds) -> _Seconds:
    """Eqs. 2 and 4: 8 bytes / bandwidth + delay, for one direction."""
    return 8 * nbytes / (mbps * 1e6) + delay_ms / 1e3


def _coding_seconds(bounds: Sequence[int], codes: Sequence[str], costs: CostTable) -> list[float]:
    """Seconds that each tier reads and writes codes.

    A tier with work reads what arrives and writes what leaves; one without passes it on, but for
    tier 0, which then writes the model's inputs.
    """
    if len(codes) != len(bounds) - 2:
        raise PlanError(f"a plan of {len(bounds) - 2} links has {len(codes)} codes")
    seconds = [0.0] * (len(bounds) - 1)
    for link, code in enumerate(codes):
        cut = bounds[link + 1]
        if code != RAW and (code not in costs.codes or not costs.codes[code].applies[cut]):
            raise PlanError(
                f"link {link} has code `{code}` at cut {cut}, where nothing can cross in it",
                hint="plan again, with the codes that the links allow: --codes",
            )
        if link and cut == bounds[link] and code != codes[link - 1]:
            raise PlanError(f"two links are cut at {cut} and have the codes `{codes[link - 1]}` and `{code}`")
        if code == RAW:
            continue
        if link == 0 or bounds[link] < cut:
            seconds[link] += float(costs.codes[code].encode_s[link, cut])
        if bounds[link + 2] > cut:
            seconds[link + 1] += float(costs.codes[code].decode_s[link + 1, cut])
    return seconds


def _stage(
    t: int,
    start: int,
    stop: int,
    costs: CostTable,
    topology: Topology,
    watts: float | None,
    coding_s: float = 0.0,
) -> Stage:
    tier = topology.tiers[t]
    below = costs.seconds_below[t]
    seconds = float(below[stop]) - float(below[start]) + coding_s
    energy = None if watts is None else watts * seconds
    flops = int(costs.flops_below[stop]) - int(costs.flops_below[start])
    memory = None if costs.memory is None else costs.memory.nbytes(start, stop)
    machines = costs.rows.machines(stop) if costs.rows is not None and t == 0 else ()
    station = tier_station(topology, t)
    price = tier.usd_per_s * seconds + (costs.passes * tier.usd_per_request if stop > start else 0.0)
    return Stage(
        tier.name,
        start,
        stop,
        flops,
        seconds,
        price,
        energy,
        memory,
        machines,
        waiting_s=station.waits(seconds),
        utilisation=_utilisation(station, seconds),
    )


def _utilisation(station: Station, seconds: float) -> float | None:
    if not station.requests_per_s or math.isnan(seconds):
        return None
    return station.utilisation(seconds)


def _transfer(
    t: int, cut: int, costs: CostTable, topology: Topology, watts: float | None, code: str = RAW
) -> Transfer:
    """One entry of `link_seconds` and `link_cost_usd`, by the same operations on scalars."""
    link = topology.links[t]
    remains = cut < costs.size
    sizes = costs.up_nbytes if code == RAW else costs.codes[code].nbytes
    up = _nbytes(sizes[cut]) if remains else 0.0
    raw = _nbytes(costs.up_nbytes[cut])
    down = _nbytes(costs.down_nbytes[cut]) if topology.limits.returns else 0.0
    delay_ms = costs.passes * link.delay_ms
    seconds = _way_seconds(link.bandwidth_mbps, delay_ms, up) if remains else 0.0
    if down != 0:
        seconds += _way_seconds(link.down_mbps or link.bandwidth_mbps, delay_ms, down)
    if link.usd_per_gb is None:
        price = seconds * ((link.usd_per_hour or 0.0) / 3600.0)
    else:
        price = (up + down) * (link.usd_per_gb / 1e9)
    station = link_station(topology, t)
    return Transfer(
        source=topology.tiers[t].name,
        target=topology.tiers[t + 1].name,
        position=cut,
        nbytes=None if math.isnan(up) else int(up),
        down_nbytes=0 if math.isnan(down) else int(down),
        seconds=seconds,
        cost_usd=price,
        energy_j=None if watts is None else watts * seconds,
        waiting_s=station.waits(seconds),
        utilisation=_utilisation(station, seconds),
        code=code,
        raw_nbytes=None if code == RAW or math.isnan(raw) else int(raw),
    )


def _nbytes(entry: np.int64) -> float:
    return math.nan if entry == UNKNOWN else float(entry)


def _sum(
    costs: CostTable,
    bounds: tuple[int, ...],
    rates: list[float],
    links: list[float],
    coding: Sequence[float] = (),
) -> float:
    """One additive figure: seconds of prefixes and codes at each tier's rate, and the links'."""
    terms = list(links)
    terms += [rate * seconds for rate, seconds in zip(rates, coding, strict=False) if seconds]
    for below, rate, start, stop in zip(costs.seconds_below, rates, bounds[:-1], bounds[1:], strict=True):
        terms += [rate * float(below[stop]), -(rate * float(below[start]))]
    return math.fsum(terms)


def _throughput(steps: list[float]) -> float:
    if any(math.isnan(step) for step in steps):
        return math.nan
    slowest = max(steps)
    return 1.0 / slowest if slowest > 0 else math.inf
