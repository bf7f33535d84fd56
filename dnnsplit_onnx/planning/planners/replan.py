"""Planning again for new link figures, or another rate, in microseconds.

The candidates of a model depend on neither bandwidth, nor delay, nor price. A `Replanner`
keeps what a problem's tiers take at its candidates; new links then cost a few vector
operations over a handful of positions each. Where a rate is offered, waiting bends what stages take
and no position is dominated: on two tiers all are priced at once, on more it is `exact`'s matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.machines.topology import Link
from dnnsplit_onnx.planning.figures import Measure
from dnnsplit_onnx.planning.planners import exact
from dnnsplit_onnx.planning.problem import Problem, Solution
from dnnsplit_onnx.planning.waiting import Station

_Floats = NDArray[np.float64]


class Replanner:
    """Plans one problem again and again, for other links.

    Latency and cost without limits or rules take the fast path, over the candidates alone,
    or over all positions where candidates do not suffice; so does latency at an offered rate on two
    tiers. Its answer is that of `exact`, up to the rounding of float sums. Everything else is
    planned by `exact`.

    Args:
        problem: The problem; its tiers, rules, limits and objective stay as they are.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        measure: Measure = "cost" if problem.objective == "cost" else "latency"
        self.is_fast = (
            problem.objective == measure
            and not problem.limits
            and problem.topology.limits.throughput_per_s is None
            and (not problem.has_rates or (len(problem.topology.tiers) == 2 and measure == "latency"))
            and not any(tier.usd_per_request for tier in problem.topology.tiers)
            and problem.permitted is None
            and all(window is None for window in problem.windows(()))
            and all(link.max_mb is None for link in problem.topology.links)
        )
        size = problem.costs.size
        known = np.flatnonzero(problem.is_known)
        self._at = np.array(problem.candidates) if problem.is_dominated((measure,)) else known
        if self.is_fast and problem.has_rates:
            self._at = known
        below = problem.additive(measure).below[:, self._at]
        self._low, self._high = below[0], problem.additive(measure).below[-1, -1] - below[-1]
        #: What moving work from tier t + 1 to tier t takes, for each place of the cut between.
        self._moved: list[_Floats] = list(below[:-1] - below[1:])
        self._up = np.where(self._at == size, 0, problem.costs.up_nbytes[self._at]).astype(np.float64)
        self._sends = (self._at < size).astype(np.float64)
        self._down: _Floats | None = None
        if problem.topology.limits.return_output:
            self._down = problem.costs.down_nbytes[self._at].astype(np.float64)

    def plan(self, links: Sequence[Link], requests_per_s: float | None = None) -> Solution:
        """The best plan for other links, as many as the problem's, or another rate.

        Args:
            links: The links.
            requests_per_s: What is offered instead of the problem's rate, if that has one.

        Raises:
            InfeasibleError: No plan keeps to the problem's limits, or sustains the rate.
        """
        rate = self.problem.topology.workload.requests_per_s
        if rate is not None and requests_per_s is not None:
            rate = requests_per_s
        if self.is_fast and all(link.max_mb is None for link in links):
            found = self._fast(links) if rate is None else self._at_rate(links[0], rate)
            if found is not None:
                return found
        topology = self.problem.topology.changed(links=links)
        if rate is not None:
            topology = topology.with_workload(requests_per_s=rate)
        there = replace(self.problem, topology=topology)
        return exact.along_order(there)

    def _at_rate(self, link: Link, rate: float) -> Solution | None:
        """The best of all positions on two tiers at a rate; None if none sustains it."""
        topology = self.problem.topology
        clients, replicas = topology.workload.clients, [tier.replicas for tier in topology.tiers]
        sent = self._transfer(link)
        total = self._low + self._high + sent
        total += Station(replicas[0], clients, rate).waiting(self._low)
        total += Station(1, clients, rate).waiting(sent)
        total += Station(replicas[1], 1, rate).waiting(self._high)
        place = int(total.argmin())
        if not total[place] < np.inf:
            return None
        return Solution((int(self._at[place]),), "order", len(self._at))

    def _fast(self, links: Sequence[Link]) -> Solution:
        """The best plan without waiting."""
        # Along the order a plan takes the sum over links of `moved` and the transfer at the
        # link's cut, and what the top tier would take for all.
        value, came = np.zeros(len(self._at)), []
        for moved, link in zip(self._moved, links, strict=True):
            value = value + moved
            value += self._transfer(link)
            least = np.minimum.accumulate(value)
            came.append((value, least))
            value = least
        place, cuts = len(self._at) - 1, []
        for value, least in reversed(came):
            place = int((value[: place + 1] == least[place]).argmax())
            cuts.append(int(self._at[place]))
        return Solution(tuple(reversed(cuts)), "order", len(self._at) * len(links))

    def _transfer(self, link: Link) -> _Floats:
        """Eqs. 2 and 4, priced if cost is the objective."""
        is_cost = self.problem.objective == "cost"
        if is_cost and link.usd_per_gb is not None:
            nbytes = self._up if self._down is None else self._up + self._down
            return nbytes * (link.usd_per_gb / 1e9)
        price = (link.usd_per_hour or 0.0) / 3600.0 if is_cost else 1.0
        taken = self._up * (8 * price / (link.bandwidth_mbps * 1e6))
        taken += self._sends * (price * link.delay_ms / 1e3)
        if self._down is not None:
            rate = (link.down_mbps or link.bandwidth_mbps) * 1e6
            taken += self._down * (8 * price / rate) + (self._down > 0) * (price * link.delay_ms / 1e3)
        return taken
