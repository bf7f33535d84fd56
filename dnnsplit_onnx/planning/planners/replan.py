"""Planning again for new link figures, in microseconds.

The candidates of a model depend on neither bandwidth, nor delay, nor price. A `Replanner`
keeps what a problem's tiers take at its candidates; new links then cost a few vector
operations over a handful of positions each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.machines.topology import Link
from dnnsplit_onnx.planning.planners import exact
from dnnsplit_onnx.planning.plans import Measure
from dnnsplit_onnx.planning.problem import Problem, Solution

_Floats = NDArray[np.float64]


class Replanner:
    """Plans one problem again and again, for other links.

    Latency and cost without limits or rules take the fast path, over the candidates alone,
    or over all positions where candidates do not suffice. Its answer is that of `exact`, up
    to the rounding of float sums. Everything else is planned by `exact`.

    Args:
        problem: The problem; its tiers, rules, limits and objective stay as they are.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        measure: Measure = "cost" if problem.objective == "cost" else "latency"
        self.is_fast = (
            problem.objective == measure
            and not problem.limits
            and not problem.has_rates
            and not any(tier.usd_per_request for tier in problem.topology.tiers)
            and problem.permitted is None
            and all(window is None for window in problem.windows(()))
            and all(link.max_mb is None for link in problem.topology.links)
        )
        size = problem.costs.size
        known = np.flatnonzero(problem.is_known)
        self._at = np.array(problem.candidates) if problem.is_dominated((measure,)) else known
        below = problem.additive(measure).below[:, self._at]
        #: What moving work from tier t + 1 to tier t takes, for each place of the cut between.
        self._moved: list[_Floats] = list(below[:-1] - below[1:])
        self._up = np.where(self._at == size, 0, problem.costs.up_nbytes[self._at]).astype(np.float64)
        self._sends = (self._at < size).astype(np.float64)
        self._down: _Floats | None = None
        if problem.topology.limits.return_output:
            self._down = problem.costs.down_nbytes[self._at].astype(np.float64)

    def plan(self, links: Sequence[Link]) -> Solution:
        """The best plan for other links, as many as the problem's.

        Raises:
            InfeasibleError: No plan keeps to the problem's limits.
        """
        if not self.is_fast or any(link.max_mb is not None for link in links):
            topology = self.problem.topology.changed(links=links)
            return exact.along_order(replace(self.problem, topology=topology))
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
