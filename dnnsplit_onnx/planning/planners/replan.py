"""Planning again for new link figures, or another rate, in microseconds.

The candidates of a model depend on neither bandwidth, nor delay, nor price. A `Replanner`
keeps what a problem's tiers take at its candidates; new links then cost a few vector
operations over a handful of positions each.

Where a rate is offered, waiting bends what stages take, and no position is dominated whatever the
rate. What tier 0, the last tier and links take at a position is known with their waiting; tiers between
wait no less than nothing, which bounds the best plan through each position. Positions whose bound is
above what a known plan takes are left out, and the few others tried with one another. Known plans are
those that were best last, the one that the bound comes from, and where these saturate the one of the
fastest pace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.machines.topology import Link
from dnnsplit_onnx.planning.figures import Measure
from dnnsplit_onnx.planning.planners import exact
from dnnsplit_onnx.planning.planners.throughput import fastest
from dnnsplit_onnx.planning.problem import Problem, Solution
from dnnsplit_onnx.planning.waiting import Station

_Floats = NDArray[np.float64]
_Positions = NDArray[np.intp]
_Places = tuple[int, ...]

#: How many of the last plans are tried first.
_KEPT = 4
#: Rounding of sums, relative to their terms.
_SLACK = 1e-12


class Replanner:
    """Plans one problem again and again, for other links.

    Latency and cost without limits or rules take the fast path, over the candidates alone,
    or over all positions where candidates do not suffice; so does latency at an offered rate. Its
    answer is that of `exact`, up to the rounding of float sums. Everything else is planned by `exact`.

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
            and (not problem.has_rates or (measure == "latency" and len(problem.topology.links) > 0))
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
        self._below, self._all = below, float(problem.additive(measure).below[-1, -1])
        #: What moving work from tier t + 1 to tier t takes, for each place of the cut between.
        self._moved: list[_Floats] = list(below[:-1] - below[1:])
        self._up = np.where(self._at == size, 0, problem.costs.up_nbytes[self._at]).astype(np.float64)
        self._sends = (self._at < size).astype(np.float64)
        self._down: _Floats | None = None
        if problem.topology.limits.returns:
            self._down = problem.costs.down_nbytes[self._at].astype(np.float64)
        self._fastest: _Places | None = None
        self._last: list[_Places] = []
        if self.is_fast and problem.has_rates:
            self._fastest = self._places(fastest(problem))

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
            found = self._fast(links) if rate is None else self._at_rate(links, rate)
            if found is not None:
                return found
        topology = self.problem.topology.changed(links=links)
        if rate is not None:
            topology = topology.with_workload(requests_per_s=rate)
        there = replace(self.problem, topology=topology)
        return exact.along_order(there)

    def _places(self, cuts: tuple[int, ...] | None) -> _Places | None:
        """Where cuts stand among the positions that are priced."""
        return None if cuts is None else tuple(np.searchsorted(self._at, cuts).tolist())

    def _at_rate(self, links: Sequence[Link], rate: float) -> Solution | None:
        """The best of all positions at a rate; None if none sustains it."""
        queues = _Queues(self.problem, rate)
        sent = [
            _with_waiting(queue, self._transfer(link))
            for queue, link in zip(queues.links, links, strict=True)
        ]
        top = _with_waiting(queues.tiers[-1], self._all - self._below[-1])
        middle = self._below[1:-1]
        # What is least up to each place of each link, and beyond it, without waiting for tiers between.
        before = [_with_waiting(queues.tiers[0], self._below[0]) + sent[0]]
        for below, taken in zip(middle, sent[1:], strict=True):
            before.append(np.minimum.accumulate(before[-1] - below) + below + taken)
        after = [top]
        for below, taken in zip(middle[::-1], sent[:0:-1], strict=True):
            rest = below + taken + after[-1]
            after.append(np.minimum.accumulate(rest[::-1])[::-1] - below)
        through = [up + on for up, on in zip(before, reversed(after), strict=True)]
        known = [*self._last, self._lowest(before, int(through[-1].argmin()))]
        takes = min(self._takes(places, sent, top, before[0], queues) for places in known)
        if not takes < np.inf and self._fastest is not None:
            takes = self._takes(self._fastest, sent, top, before[0], queues)
        kept = [(one <= takes * (1 + _SLACK)).nonzero()[0] for one in through]
        places: _Places | None
        if takes < np.inf and all(len(one) == 1 for one in kept):  # the known one is the only one
            places = tuple(int(one[0]) for one in kept)
        else:
            places = self._tried(kept, sent, top, before[0], queues)
        if places is None:
            return None
        self._last = [places, *(other for other in self._last if other != places)][:_KEPT]
        cuts = tuple(int(self._at[place]) for place in places)
        return Solution(cuts, "order", sum(map(len, kept)))

    def _lowest(self, before: list[_Floats], place: int) -> _Places:
        """The path of least sum up to a place of the last link."""
        places = [place]
        for value, below in zip(before[-2::-1], self._below[-2:0:-1], strict=True):
            places.append(int((value - below)[: places[-1] + 1].argmin()))
        return tuple(reversed(places))

    def _takes(
        self, places: _Places, sent: list[_Floats], top: _Floats, first: _Floats, queues: _Queues
    ) -> float:
        """Latency of cuts at these places, waiting and all."""
        total = float(first[places[0]]) + float(top[places[-1]])
        for t, (start, stop) in enumerate(pairwise(places), start=1):
            seconds = max(float(self._below[t, stop] - self._below[t, start]), 0.0)
            total += seconds + queues.tiers[t].waits(seconds) + float(sent[t][stop])
        return total

    def _tried(
        self, kept: list[_Positions], sent: list[_Floats], top: _Floats, first: _Floats, queues: _Queues
    ) -> _Places | None:
        """The best of some places of each link, None if all saturate: a path over pairs of places."""
        if not all(map(len, kept)):
            return None
        total, came = first[kept[0]], []
        for t, (starts, stops) in enumerate(pairwise(kept), start=1):
            seconds = self._below[t, stops] - self._below[t, starts][:, None]
            pairs = total[:, None] + _with_waiting(queues.tiers[t], np.maximum(seconds, 0.0))
            pairs[starts[:, None] > stops] = np.inf
            came.append(pairs.argmin(axis=0))
            total = pairs.min(axis=0) + sent[t][stops]
        total = total + top[kept[-1]]
        place = int(total.argmin())
        if not total[place] < np.inf:
            return None
        found = [int(kept[-1][place])]
        for starts, best in zip(reversed(kept[:-1]), reversed(came), strict=True):
            place = int(best[place])
            found.append(int(starts[place]))
        return tuple(reversed(found))

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
        delay = price * self.problem.costs.passes * link.delay_ms / 1e3
        taken += self._sends * delay
        if self._down is not None:
            rate = (link.down_mbps or link.bandwidth_mbps) * 1e6
            taken += self._down * (8 * price / rate) + (self._down > 0) * delay
        return taken


class _Queues:
    """The tiers and links of a problem at a rate."""

    def __init__(self, problem: Problem, rate: float) -> None:
        work = problem.topology.workload
        copies = [work.clients, *[1] * len(problem.topology.links)]
        tiers = zip(problem.topology.tiers, copies, strict=True)
        self.tiers = [Station(tier.replicas, clients, rate) for tier, clients in tiers]
        self.links = [Station(1, clients, rate) for clients in copies[:-1]]


def _with_waiting(station: Station, seconds: _Floats) -> _Floats:
    return seconds + station.waiting(seconds)
