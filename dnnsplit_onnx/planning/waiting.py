"""Waiting: what requests lose behind each other, where an offered rate is given.

Requests come at random times (Poisson) and pass tiers and links one after the other. Each of
these is a queue, M/M/c: c equal servers, first come first served, service times exponential
around the stage's seconds. By Burke (1956) and Jackson (1957) what leaves such a queue is
Poisson again, so the queues of a line are independent, the waiting of a request is the sum of
theirs, and each is a function of its own seconds and rate alone (Erlang 1917):

    a = rate * seconds, u = a / c,
    C(c, a) = (a^c / c! / (1 - u)) / (sum over k < c of a^k / k! + a^c / c! / (1 - u)),
    waiting = C(c, a) * seconds / (c (1 - u)),    infinite from u = 1 on.

Stages of a fixed model vary less than exponentially, so that real waiting is less, about half
behind a single slowest stage (Pollaczek and Khinchine): the figure errs on the safe side.

`clients` equal edges each have their own machines of tier 0 and their own link 0, and bring an
equal share of the rate; everything above is shared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dnnsplit_onnx.machines.topology import Topology

_Seconds = TypeVar("_Seconds", float, NDArray[np.float64])


@dataclass(frozen=True, slots=True)
class Station:
    """A tier or a link as a queue.

    Attributes:
        servers: Equal machines behind one queue.
        copies: Equal queues that share the offered rate: those of the clients.
        requests_per_s: What is offered to all copies together; 0 if that is not known.
    """

    servers: int = 1
    copies: int = 1
    requests_per_s: float = 0.0

    @property
    def capacity(self) -> int:
        """How many requests are served at once, over all copies."""
        return self.servers * self.copies

    def step(self, seconds: _Seconds) -> _Seconds:
        """Seconds from one request to the next, when all are busy."""
        return seconds / self.capacity

    def utilisation(self, seconds: _Seconds) -> _Seconds:
        """The share of time that its servers are busy; from 1 on, requests pile up."""
        return self.requests_per_s * self.step(seconds)

    def waiting(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Seconds that a request waits here on average; convex in its seconds of service."""
        if not self.requests_per_s:
            return np.zeros_like(seconds)
        busy = self.utilisation(seconds)
        is_kept = busy < 1
        spare = np.where(is_kept, 1 - busy, 1.0)  # one server is never so idle that 1 - u rounds to 0
        if self.servers == 1:  # M/M/1: u s / (1 - u)
            return np.where(is_kept, busy * seconds / spare, np.inf)
        # Erlang's recursion for B, and C from it: no powers and no factorials.
        busy, seconds = np.where(is_kept, busy, 0.0), np.where(is_kept, seconds, 0.0)
        load = self.servers * busy
        blocked = load / (1 + load)
        for servers in range(2, self.servers + 1):
            blocked = load * blocked
            blocked = blocked / (servers + blocked)
        delayed = blocked / (spare + busy * blocked)
        return np.where(is_kept, delayed * (seconds / self.servers) / spare, np.inf)

    def waits(self, seconds: float) -> float:
        """`waiting` of one figure, by the same steps without arrays; NaN stays NaN."""
        if math.isnan(seconds) or not self.requests_per_s or not seconds:
            return seconds * 0.0
        busy = self.utilisation(seconds)
        if busy >= 1:
            return math.inf
        if self.servers == 1:
            return busy * seconds / (1 - busy)
        load, spare = self.servers * busy, 1 - busy
        blocked = load / (1 + load)
        for servers in range(2, self.servers + 1):
            blocked = load * blocked
            blocked = blocked / (servers + blocked)
        return blocked / (spare + busy * blocked) * (seconds / self.servers) / spare

    def slope(self, seconds: float) -> float:
        """A slope of `waiting` below the curve: that of a chord back from these seconds."""
        back = seconds * (1 - 1e-6)
        return (self.waits(seconds) - self.waits(back)) / (seconds - back) if seconds else 0.0

    def most_seconds(self, pace: float) -> float:
        """The longest service at which a request can pass every `pace` seconds, as floats compare.

        With an offered rate, its servers must also have time to spare.
        """

        def is_kept(seconds: float) -> bool:
            return self.step(seconds) <= pace and (not self.requests_per_s or self.utilisation(seconds) < 1)

        most = float(pace) * self.capacity
        if self.requests_per_s:
            most = min(most, self.capacity / self.requests_per_s)
        while not is_kept(most):
            most = math.nextafter(most, 0.0)
        while most < math.inf and is_kept(math.nextafter(most, math.inf)):
            most = math.nextafter(most, math.inf)
        return most


def tier_station(topology: Topology, t: int) -> Station:
    """Tier t as a queue."""
    work = topology.workload
    copies = work.clients if t == 0 else 1
    return Station(topology.tiers[t].replicas, copies, work.requests_per_s or 0.0)


def link_station(topology: Topology, t: int) -> Station:
    """Link t as a queue."""
    work = topology.workload
    return Station(1, work.clients if t == 0 else 1, work.requests_per_s or 0.0)
