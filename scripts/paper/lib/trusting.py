"""What it costs to trust a price: plans chosen by one accounting, paid for by another.

The paper prices a cut by one layer's inputs and plans by that price. What such a plan really
takes is what its live values take. So the plan that planner `dnnsplit` chooses by
`layer-input` is priced again by `live`, beside the true best and the best single tier.
"""

from __future__ import annotations

from dataclasses import dataclass

from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.figures import Figures, Objective
from dnnsplit_onnx.planning.planners import Problem, get_planner
from lib.networks import LayerModel


@dataclass(frozen=True)
class Trusted:
    """A plan that was chosen by a price, and what it and its rivals really take.

    Attributes:
        objective: What was to be best.
        believed: The chosen plan's figures at the price that it was chosen by.
        true: The same plan's true figures.
        best: The true figures of the true best, planner `exact`.
        singles: The true figures of everything on one tier, for each tier.
        rivals: Those of them that keep the limits.
        broken: The limits that the chosen plan truly breaks, each a sentence.
    """

    objective: Objective
    believed: Figures
    true: Figures
    best: Figures
    singles: tuple[Figures, ...]
    rivals: tuple[Figures, ...]
    broken: tuple[str, ...] = ()

    @property
    def best_single(self) -> Figures:
        """The best single tier that keeps the limits; of all, if none does."""
        return min(self.rivals or self.singles, key=lambda figures: burden(figures, self.objective))

    @property
    def paid(self) -> float:
        """How many times the true best the trusted plan truly takes."""
        return burden(self.true, self.objective) / burden(self.best, self.objective)

    def gain(self, plan: Figures, single: Figures | None = None) -> float:
        """How many times better a plan is than a single tier, the best one if none is given."""
        other = self.best_single if single is None else single
        return burden(other, self.objective) / burden(plan, self.objective)


def burden(figures: Figures, objective: Objective) -> float:
    """The figure that an objective is about, the less the better: for throughput, seconds a request."""
    value = figures.value(objective)
    return 1 / value if objective == "throughput" else value


def trust(shown: Problem, truth: Problem, planner: str = "dnnsplit") -> Trusted:
    """Lets a planner choose by one price, and pays by another.

    Args:
        shown: The problem as the planner sees it.
        truth: The same problem, in the same order of nodes, as it is.
        planner: Who chooses.

    Raises:
        InfeasibleError: No plan keeps to the true limits.
    """
    chosen = get_planner(planner)(shown)
    best = get_planner("exact")(truth)
    priced = truth.in_order(chosen.order)
    true = priced.figures(chosen.cuts)
    singles = tuple(truth.figures(cuts) for cuts in truth.single_tier)
    return Trusted(
        objective=truth.objective,
        believed=shown.in_order(chosen.order).figures(chosen.cuts),
        true=true,
        best=truth.in_order(best.order).figures(best.cuts),
        singles=singles,
        rivals=tuple(single for single in singles if not truth.violations(single)),
        broken=priced.violations(true),
    )


def trust_layer_input(model: LayerModel, topology: Topology, objective: Objective) -> Trusted:
    """The paper's planner and price on one of its networks, and the truth; see `trust`."""
    shown = model.problem(topology, objective, "layer-input")
    return trust(shown, model.problem(topology, objective, "live"))


def no_worse_than_edge(model: LayerModel, topology: Topology) -> Topology:
    """The topology with the limits of section VII-B: latency and cost of everything on the edge.

    They are QoS, a speed-up of 1, and SLA, a cost reduction of 1.
    """
    problem = model.problem(topology)
    edge = problem.figures(problem.single_tier[0])
    return topology.with_limits(deadline_ms=edge.latency_s * 1e3, budget_usd=edge.cost_usd)


def tiers_of(figures: Figures) -> str:
    """The tiers that have work, such as `edge+cloud`."""
    return "+".join(stage.tier for stage in figures.stages if stage.stop > stage.start)
