"""What every planner gets and gives: one signature for all.

A planner is a function from a `Problem` to a `Solution`. It may look at the problem's
arrays as it likes; what counts is what `Problem.figures` says of its cuts, which is the one
objective that judges them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.errors import InputError, check_name
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.additive import Additive, Queues, Terms
from dnnsplit_onnx.planning.costs import CostTable, cost_table
from dnnsplit_onnx.planning.figures import Figures, Measure, Objective, Optimality
from dnnsplit_onnx.planning.objective import (
    LIMITED,
    ObjectiveFunction,
    evaluate,
    violations,
    with_custom,
)
from dnnsplit_onnx.planning.reorder import reordered_costs
from dnnsplit_onnx.planning.rules import Rules, rules_of
from dnnsplit_onnx.planning.waiting import link_station, tier_station
from dnnsplit_onnx.planning.weights import Weights
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.codes import RAW, is_allowed
from dnnsplit_onnx.work.cuts import UNKNOWN, Accounting, staircase
from dnnsplit_onnx.work.orders import in_order_of

if TYPE_CHECKING:
    from dnnsplit_onnx.planning.sharing import TierRows


@dataclass(frozen=True)
class Problem:
    """Where to cut a graph of n nodes for K tiers.

    Attributes:
        costs: Seconds and bytes along the graph's order.
        topology: Tiers, links and limits.
        objective: What is to be best. Throughput is maximised, all others minimised.
        allowed: Shape (K - 1, n + 1): the positions each link may be cut at, whoever closed
            the others; None if all. The order is then the only one.
        weights: What the objective `weighted` is.
        analysis: The graph behind the costs, for planners that cut it anywhere; None if
            there is none, and the order is all there is.
        accounting: What the costs charge a cut.
        function: What the objective `custom` is.
        rules: What pins, private inputs and prefixes ask of the nodes; None if nothing.
    """

    costs: CostTable
    topology: Topology
    objective: Objective
    allowed: NDArray[np.bool_] | None = None
    weights: Weights | None = None
    analysis: Analysis | None = None
    accounting: Accounting = "live"
    function: ObjectiveFunction | None = None
    rules: Rules | None = None

    def __post_init__(self) -> None:
        check_name("objective", self.objective, get_args(Objective))
        check_name("accounting", self.accounting, get_args(Accounting))
        if self.objective == "weighted" and self.weights is None:
            raise InputError("the objective `weighted` has no weights", hint="such as latency=1, cost=1000")
        if self.objective in ("ttft", "tpot"):
            self.costs.of_phase(self.objective)
        if self.objective == "custom" and self.function is None:
            raise InputError(
                "the objective `custom` has no function",
                hint="give the function: plan(..., objective=function)",
            )

    def with_objective(self, objective: Objective) -> Problem:
        """The same problem with another objective."""
        return replace(self, objective=objective)

    def figures(self, cuts: Sequence[int], codes: Sequence[str] | None = None) -> Figures:
        """What these cuts take, in these codes if in any: the judge of every planner."""
        figures = evaluate(cuts, self.costs, self.topology, self.weights, codes or None)
        return figures if self.function is None else with_custom(figures, self.function)

    def with_rows(self, rows: TierRows | None) -> Problem:
        """The problem with rows shared as a `Solution` wants it; as it is if that is None."""
        if rows is None:
            return self
        below = np.concatenate((rows.seconds_below[None], self.costs.seconds_below[1:]))
        return replace(self, costs=replace(self.costs, seconds_below=below, rows=rows))

    def in_order(self, order: Sequence[int] | None) -> Problem:
        """The problem with its nodes in another order, as a `Solution` may want it.

        Args:
            order: A permutation of the positions; None is the present order.

        Raises:
            ValueError: The problem has no graph, or closed positions, or the order puts a
                node before one that it depends on.
        """
        if order is None:
            return self
        if self.analysis is None or self.allowed is not None:
            raise ValueError("only a problem with a graph and all positions open has other orders")
        analysis = in_order_of(self.analysis, self.analysis.graph.reordered(order))
        if self.costs.rows is not None:  # shared rows are no sum over nodes
            costs = cost_table(analysis, self.topology, self.accounting)
        else:
            costs = reordered_costs(self.costs, order, analysis, self.topology, self.accounting)
        rules = None if self.rules is None else rules_of(analysis.graph, self.topology)
        return replace(self, costs=costs, analysis=analysis, rules=rules)

    def violations(self, figures: Figures) -> tuple[str, ...]:
        """The limits and rules that these figures break, each a sentence."""
        return (*violations(figures, self.topology.limits), *self._broken_rules(figures))

    def _broken_rules(self, figures: Figures) -> list[str]:
        broken = []
        for tier, stage in zip(self.topology.tiers, figures.stages, strict=True):
            if self.costs.memory is None or tier.memory_gb is None:
                continue
            if stage.memory_nbytes is None:
                broken.append(f"the memory that tier `{tier.name}` needs is unknown, and limited")
            elif (over := stage.memory_nbytes - tier.memory_nbytes) > 0:
                need = f"{stage.memory_nbytes / 1e9:.6g} GB of memory"
                broken.append(f"tier `{tier.name}` needs {need}, {over / 1e9:.3g} GB more than it has")
        for t, (cut, code) in enumerate(zip(figures.cuts, figures.codes, strict=True)):
            if not is_allowed(code, self.topology.links[t].codes):
                broken.append(f"link {t} has code `{code}`, which it does not allow")
            if not self.in_code(code).is_small_enough[t, cut]:
                broken.append(
                    f"link {t} may send {self.topology.links[t].max_mb:g} MB, less than cut {cut} needs"
                )
            if self.permitted is not None and not self.permitted[t, cut]:
                broken.append(f"a pinned or private node forbids link {t} to be cut at {cut}")
        if self.rules is not None and self.rules.contradiction is not None:
            broken.append(self.rules.contradiction)
        return broken

    def in_code(self, code: str) -> Problem:
        """The problem of those whose every cut is sent in one code; writing and reading are free there."""
        return self if code == RAW else self._in_codes[code]

    @cached_property
    def _in_codes(self) -> dict[str, Problem]:
        return {
            code: replace(self, costs=replace(self.costs, up_nbytes=one.nbytes, codes={}))
            for code, one in self.costs.codes.items()
        }

    def is_better(self, one: Figures, other: Figures) -> bool:
        """Whether the first is strictly better in the objective."""
        mine, theirs = one.value(self.objective), other.value(self.objective)
        return mine > theirs if self.objective == "throughput" else mine < theirs

    @cached_property
    def single_tier(self) -> tuple[tuple[int, ...], ...]:
        """For each tier, the cuts that give it everything."""
        count = len(self.topology.tiers)
        return tuple(
            tuple(0 if t < tier else self.costs.size for t in range(count - 1)) for tier in range(count)
        )

    @cached_property
    def is_known(self) -> NDArray[np.bool_]:
        """Shape (n + 1,): whether the bytes of a cut are known, so that it can be priced."""
        known: NDArray[np.bool_] = self.costs.up_nbytes != UNKNOWN
        known[-1] = True
        if self.topology.limits.returns:
            known = known & (self.costs.down_nbytes != UNKNOWN)
        return known

    @cached_property
    def open(self) -> NDArray[np.bool_]:
        """Shape (K - 1, n + 1): whether each link may be cut at each position."""
        links = len(self.topology.links)
        known: NDArray[np.bool_] = np.tile(self.is_known, (links, 1))
        if self.permitted is not None:
            known &= self.permitted
        known &= self.is_small_enough
        return known

    @cached_property
    def permitted(self) -> NDArray[np.bool_] | None:
        """Shape (K - 1, n + 1): what is allowed and keeps the rules; None if that is all."""
        if self.rules is None:
            return self.allowed
        positions = self.rules.positions()
        return positions if self.allowed is None else positions & self.allowed

    @cached_property
    def is_small_enough(self) -> NDArray[np.bool_]:
        """Shape (K - 1, n + 1): whether a cut sends no more than its link's `max_mb`."""
        ok = np.ones((len(self.topology.links), self.costs.size + 1), dtype=np.bool_)
        for t, link in enumerate(self.topology.links):
            if link.max_mb is not None:
                up, down = self.costs.pass_nbytes
                ok[t, :-1] = up[:-1] / 1e6 <= link.max_mb
                if self.topology.limits.returns:
                    ok[t] &= down / 1e6 <= link.max_mb
        return ok

    def additive(self, measure: Measure) -> Additive:
        """An additive figure, term by term as `evaluate` adds it."""
        return self.terms.of(measure)

    @cached_property
    def terms(self) -> Terms:
        """All additive figures."""
        return Terms(self.costs, self.topology, self.weights)

    @property
    def queues(self) -> Queues | None:
        """The tiers as queues, if a rate is offered."""
        return self.terms.queues

    @property
    def link_seconds(self) -> NDArray[np.float64]:
        """Shape (K - 1, n + 1): seconds of each link for each cut; infinite where unknown."""
        return self.terms.link_seconds

    @cached_property
    def pace(self) -> float:
        """Seconds between requests that a plan must sustain; infinite without such a limit."""
        least = self.topology.limits.throughput_per_s
        if least is None:
            return math.inf
        pace = 1.0 / least
        while 1.0 / pace < least:
            pace = math.nextafter(pace, 0.0)
        while 1.0 / math.nextafter(pace, math.inf) >= least:
            pace = math.nextafter(pace, math.inf)
        return pace

    @property
    def has_rates(self) -> bool:
        """Whether a rate is offered, or a throughput asked for: no stage may then be too long."""
        return self.queues is not None or self.topology.limits.throughput_per_s is not None

    def longest(self, bound: float = math.inf) -> tuple[list[float], list[float]]:
        """Seconds that each stage and each transfer may take.

        Args:
            bound: The pace that is asked for besides the problem's own.
        """
        pace, topology = min(bound, self.pace), self.topology
        tiers = [tier_station(topology, t).most_seconds(pace) for t in range(len(topology.tiers))]
        links = [link_station(topology, t).most_seconds(pace) for t in range(len(topology.links))]
        return tiers, links

    def needs_energy(self, measures: Sequence[Measure]) -> bool:
        """Whether a plan of unknown energy has an unknown figure among these."""
        weighs_energy = self.weights is not None and self.weights.energy > 0
        return "energy" in measures or ("weighted" in measures and weighs_energy)

    @cached_property
    def limits(self) -> dict[Measure, float]:
        """The limited figures, in their own unit: seconds, USD, joules."""
        given = {m: (limited.limit(self.topology.limits), limited.factor) for m, limited in LIMITED.items()}
        return {measure: limit / factor for measure, (limit, factor) in given.items() if limit is not None}

    @cached_property
    def candidates(self) -> tuple[int, ...]:
        """The cuts that can be best where `is_dominated` holds, and position n.

        It is the staircase of known cuts. It restarts where moving a cut back would break
        a rule or send more: at the first position a link may be cut at, and, if outputs
        return, after each node that makes one.
        """
        nbytes = np.where(self.is_known, self.costs.up_nbytes, UNKNOWN)
        starts = np.zeros(len(nbytes), dtype=np.bool_)
        starts[0] = True
        if self.topology.limits.returns:
            starts[1:] |= np.diff(self.costs.down_nbytes) != 0
        if self.permitted is not None:
            starts[1:] |= (self.permitted[:, 1:] & ~self.permitted[:, :-1]).any(axis=0)
        edges = [*np.flatnonzero(starts[:-1]).tolist(), self.costs.size]
        stairs = [at for low, high in pairwise(edges) for at in staircase(nbytes[: high + 1], low)]
        return (*stairs, self.costs.size)

    def is_dominated(self, measures: Sequence[Measure]) -> bool:
        """Whether cuts that are not candidates can be left out for these figures.

        True if no node is slower (dearer) on a tier than on the one below it, for each
        figure in play (eqs. 12 and 13, node by node), and no tier above the first has a
        limit of its own: then moving a plan's cuts back to the candidates before them
        gives work to better tiers, sends no more bytes, and keeps every limit. Delays do
        not matter: a cut that is moved back is paid for both before and after. Of a text, bytes
        are those of all passes, so figures and limits of some passes are no matter of candidates.
        """
        is_of_phases = any(measure in ("ttft", "tpot") for measure in measures)
        is_capped = self.costs.prefill is not None and any(x.max_mb is not None for x in self.topology.links)
        if is_of_phases or is_capped:
            return False
        if self.has_rates or any(window is not None for window in self.windows(measures)[1:]):
            return False
        for measure in measures:
            per_node = np.diff(self.additive(measure).below, axis=1)
            if (per_node[1:] > per_node[:-1]).any():
                return False
        return True

    def windows(self, measures: Sequence[Measure]) -> list[NDArray[np.intp] | None]:
        """For each tier, the first position at which a stage with a given stop may start.

        Returns:
            Shape (n + 1,) for each tier, ascending; None where any start will do.
        """
        found = list(self._memory_windows)
        if self.needs_energy(measures):
            for t, tier in enumerate(self.topology.tiers):
                if tier.watts is None:  # it must stay idle, or the energy is unknown
                    below = self.costs.seconds_below[t]
                    idle, fits = np.searchsorted(below, below, side="left"), found[t]
                    found[t] = idle if fits is None else np.maximum(idle, fits)
        return found

    @cached_property
    def _memory_windows(self) -> list[NDArray[np.intp] | None]:
        memory = self.costs.memory
        if memory is None:
            return [None] * len(self.topology.tiers)
        return [
            None if tier.memory_gb is None else memory.first_starts(tier.memory_nbytes)
            for tier in self.topology.tiers
        ]


@dataclass(frozen=True, slots=True)
class Solution:
    """What a planner chose.

    Attributes:
        cuts: The position each link crosses, from tier 0 up.
        optimality: What is proven of them.
        evaluated: How many cuts, or combinations of cuts, it looked at.
        notes: What the user should know of it, each a sentence.
        order: The problem's positions in the order in which `cuts` counts them; None if
            that is the problem's own (`Problem.in_order`).
        bound: What no plan over the DAG falls below, if the planner knows it; see
            `plans.Plan.lower_bound`.
        rows: How the machines of tier 0 share rows; None for the best way known.
        codes: The code of each link; none stands for `raw` on all.
    """

    cuts: tuple[int, ...]
    optimality: Optimality
    evaluated: int
    notes: tuple[str, ...] = ()
    order: tuple[int, ...] | None = None
    bound: float | None = None
    rows: TierRows | None = None
    codes: tuple[str, ...] = ()

    @classmethod
    def of_sets(
        cls, sets: Sequence[Set[int]], size: int, evaluated: int, notes: tuple[str, ...] = ()
    ) -> Solution:
        """A solution from nested downward-closed sets, which need be no prefixes of the order.

        Args:
            sets: For each link, the positions below it.
            size: Number of nodes.
            evaluated: As above.
            notes: As above.
        """
        tier = [sum(at not in below for below in sets) for at in range(size)]
        order = tuple(sorted(range(size), key=lambda at: (tier[at], at)))
        cuts = tuple(len(below) for below in sets)
        return cls(cuts, "none", evaluated, notes, None if order == tuple(range(size)) else order)


Planner = Callable[[Problem], Solution]
