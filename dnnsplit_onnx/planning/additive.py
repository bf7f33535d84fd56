"""Figures that are sums over tiers and links: latency, cost, energy, and what weighs them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.costs import CostTable
from dnnsplit_onnx.planning.figures import Measure
from dnnsplit_onnx.planning.objective import link_cost_usd, link_seconds, weigh
from dnnsplit_onnx.planning.waiting import Station, link_station, tier_station
from dnnsplit_onnx.planning.weights import Weights


@dataclass(frozen=True, slots=True)
class Additive:
    """A figure as a sum: a plan takes below[t][stop] - below[t][start] on tier t, and link[t][stop].

    A stage with nodes takes what `extra` gives besides.

    Attributes:
        below: Shape (K, n + 1).
        link: Shape (K - 1, n + 1); infinite where a cut is impossible or its figure unknown.
        fees: For each tier, what it takes if it runs anything.
        waits: For each tier, what a second of waiting for it counts.
        queues: The tiers as queues, and the seconds of their prefixes, if a rate is offered.
    """

    below: NDArray[np.float64]
    link: NDArray[np.float64]
    fees: tuple[float, ...] = ()
    waits: tuple[float, ...] = ()
    queues: Queues | None = None

    def fee(self, t: int) -> float:
        """What tier t takes if it runs anything."""
        return self.fees[t] if self.fees else 0.0

    def has_waiting(self, t: int) -> bool:
        """Whether waiting for tier t counts, so that a stage's figure is no difference."""
        return self.queues is not None and bool(self.waits) and self.waits[t] != 0

    def waiting(self, t: int, starts: NDArray[np.intp], stops: NDArray[np.intp]) -> NDArray[np.float64]:
        """What waiting counts for stages of tier t; zeros where it counts nothing."""
        if self.queues is None or not self.has_waiting(t):
            return np.zeros(np.broadcast_shapes(np.shape(starts), np.shape(stops)))
        below = self.queues.seconds_below[t]
        return self.waits[t] * self.queues.stations[t].waiting(below[stops] - below[starts])

    def extra(self, t: int, starts: NDArray[np.intp], stops: NDArray[np.intp]) -> NDArray[np.float64]:
        """What stages of tier t take besides differences: waiting, and fees unless they are empty."""
        return self.waiting(t, starts, stops) + np.where(stops > starts, self.fee(t), 0.0)


@dataclass(frozen=True, slots=True)
class Queues:
    """The tiers as queues.

    Attributes:
        stations: One a tier.
        seconds_below: Shape (K, n + 1), as in `CostTable`.
    """

    stations: tuple[Station, ...]
    seconds_below: NDArray[np.float64]


@dataclass(frozen=True)
class Terms:
    """The figures that are sums, term by term as `evaluate` adds them.

    Attributes:
        costs: Seconds and bytes along the graph's order.
        topology: Tiers, links and limits.
        weights: What the figure `weighted` is.
    """

    costs: CostTable
    topology: Topology
    weights: Weights | None = None

    def of(self, measure: Measure) -> Additive:
        """The terms of one of them."""
        return {
            "latency": lambda: self.latency,
            "cost": lambda: self.cost,
            "energy": lambda: self.energy,
            "weighted": lambda: self.weighted,
            "ttft": lambda: self._phase("ttft"),
            "tpot": lambda: self._phase("tpot"),
        }[measure]()

    def _phase(self, measure: Measure) -> Additive:
        """The seconds of a phase of a text, waiting left out."""
        costs = self.costs.of_phase(measure)
        return Additive(costs.seconds_below, Terms(costs, self.topology).link_seconds)

    @cached_property
    def latency(self) -> Additive:
        """Eqs. 1-7 and 16, and waiting where a rate is offered."""
        waits = () if self.queues is None else (1.0,) * len(self.topology.tiers)
        return Additive(self.costs.seconds_below, self._link_delays, (), waits, self.queues)

    @cached_property
    def queues(self) -> Queues | None:
        """The tiers as queues, if a rate is offered."""
        if self.topology.workload.requests_per_s is None:
            return None
        stations = tuple(tier_station(self.topology, t) for t in range(len(self.topology.tiers)))
        return Queues(stations, self.costs.seconds_below)

    @cached_property
    def _link_delays(self) -> NDArray[np.float64]:
        """Shape (K - 1, n + 1): seconds of each link and waiting for it."""
        if self.queues is None:
            return self.link_seconds
        delays = [
            seconds + link_station(self.topology, t).waiting(seconds)
            for t, seconds in enumerate(self.link_seconds)
        ]
        return _known(delays, self.costs.size)

    @cached_property
    def link_seconds(self) -> NDArray[np.float64]:
        """Shape (K - 1, n + 1): seconds of each link for each cut; infinite where unknown."""
        return _known(self._link_seconds, self.costs.size)

    @cached_property
    def _link_seconds(self) -> list[NDArray[np.float64]]:
        back = self.topology.limits.returns
        return [link_seconds(link, self.costs, back) for link in self.topology.links]

    @cached_property
    def cost(self) -> Additive:
        """Eqs. 8-11 and 17, with NE and NE-C put right."""
        rates = np.array([[tier.usd_per_s] for tier in self.topology.tiers])
        back = self.topology.limits.returns
        rows = [
            link_cost_usd(link, self.costs, back, seconds)
            for link, seconds in zip(self.topology.links, self._link_seconds, strict=True)
        ]
        fees = tuple(self.costs.passes * tier.usd_per_request for tier in self.topology.tiers)
        return Additive(
            rates * self.costs.seconds_below, _known(rows, self.costs.size), fees if any(fees) else ()
        )

    @cached_property
    def energy(self) -> Additive:
        """Watts x seconds; links without watts are closed unless idle (`windows`: tiers too)."""
        rates = np.array([[watts or 0.0] for watts in self.topology.tier_watts])
        rows = [
            np.where(seconds == 0, 0.0, np.nan) if watts is None else watts * seconds
            for watts, seconds in zip(self.topology.link_watts, self._link_seconds, strict=True)
        ]
        return Additive(rates * self.costs.seconds_below, _known(rows, self.costs.size))

    @cached_property
    def weighted(self) -> Additive:
        """Rates weighed first, as `evaluate` does, so that the terms are the same floats."""
        assert self.weights is not None, "the objective `weighted` has weights"
        tiers = zip(self.topology.tiers, self.topology.tier_watts, strict=True)
        rates = np.array([[weigh(self.weights, 1.0, t.usd_per_s, watts or 0.0)] for t, watts in tiers])
        link = weigh(self.weights, self.latency.link, self.cost.link, self.energy.link)
        fees = tuple(self.weights.cost * fee for fee in self.cost.fees)
        waits = tuple(self.weights.latency * wait for wait in self.latency.waits)
        return Additive(rates * self.costs.seconds_below, link, fees, waits, self.queues)


def _known(rows: list[NDArray[np.float64]], size: int) -> NDArray[np.float64]:
    if not rows:
        return np.zeros((0, size + 1))
    table = np.array(rows)
    table[np.isnan(table)] = np.inf
    return table
