"""From a model and a topology to a plan: what `plan` and `split` do first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dnnsplit_onnx.costs import cost_table
from dnnsplit_onnx.cuts import UNKNOWN, Accounting, crossing_values
from dnnsplit_onnx.errors import InfeasibleError
from dnnsplit_onnx.graph import Graph
from dnnsplit_onnx.planners import get_planner
from dnnsplit_onnx.planners.pareto import pareto_front
from dnnsplit_onnx.planners.problem import Problem
from dnnsplit_onnx.plans import Figures, Objective, Plan, SingleTier, Transfer
from dnnsplit_onnx.shapes import bind_shapes
from dnnsplit_onnx.topology import Topology
from dnnsplit_onnx.workload import Workload, measure


def plan(
    graph: Graph,
    topology: Topology,
    *,
    objective: Objective = "latency",
    planner: str = "exact",
    cuts: Sequence[int] | None = None,
    accounting: Accounting = "live",
    bindings: Mapping[str, int] | None = None,
    workload: Workload | None = None,
    pareto: bool = True,
) -> Plan:
    """Chooses the cuts of a graph, or prices given ones.

    Args:
        graph: The model.
        topology: Tiers, links and limits.
        objective: What is to be best.
        planner: A name in `planners.PLANNERS`.
        cuts: Positions to cut at, one a link, in place of a planner's choice. They are
            not held to the limits, only compared with them.
        accounting: What a cut is charged.
        bindings: Numbers for symbolic dimensions.
        workload: The model's workload, if it is known already; `bindings` is then unused.
        pareto: Whether to add the Pareto front.

    Raises:
        ShapeError: The planner needs the size of a value, and it is unknown.
        InfeasibleError: No plan keeps to the limits.
    """
    if workload is None:
        workload = measure(graph, bind_shapes(graph, bindings))
    problem = Problem(cost_table(workload, topology, accounting), topology, objective)
    if cuts is None:
        _need_sizes(problem, workload, accounting)
        solution = get_planner(planner)(problem)
        chosen, optimality, evaluated = solution.cuts, solution.optimality, solution.evaluated
    else:
        chosen, optimality, evaluated, planner = tuple(cuts), "none", 1, "at"
    figures = problem.figures(chosen)
    broken = problem.violations(figures)
    if broken and planner == "exact":
        raise InfeasibleError(f"planner `exact` chose a plan that breaks its limits: {broken[0]}")
    return Plan(
        objective=objective,
        planner=planner,
        optimality=optimality,
        feasible=not broken,
        violations=broken,
        figures=_with_values(figures, graph, accounting),
        single_tier=single_tiers(problem),
        pareto=pareto_front(problem) if pareto and cuts is None else (),
        accounting=accounting,
        bindings=dict(workload.types.bindings),
        limits={k: v for k, v in topology.limits.model_dump().items() if v is not None},
        evaluated=evaluated,
    )


def single_tiers(problem: Problem) -> tuple[SingleTier, ...]:
    """Everything on one tier, for each tier."""
    rows = []
    for name, cuts in zip(problem.topology.names, problem.single_tier, strict=True):
        figures = problem.figures(cuts)
        rows.append(
            SingleTier(
                name,
                figures.latency_s,
                figures.cost_usd,
                figures.throughput_per_s,
                figures.energy_j,
                feasible=not problem.violations(figures),
            )
        )
    return tuple(rows)


def _need_sizes(problem: Problem, workload: Workload, accounting: Accounting) -> None:
    """Refuses to plan where a size that can be bound is not."""
    if len(problem.topology.tier) == 1:
        return
    unknown = problem.costs.up_nbytes == UNKNOWN
    if not unknown.any():
        return
    # Sizes that depend on the data rule out their cuts and no more; a model input whose
    # size is open is for the user to bind.
    types, graph = workload.types, workload.graph
    for value in crossing_values(graph, 0, accounting):
        types.need_nbytes(value)


def _with_values(figures: Figures, graph: Graph, accounting: Accounting) -> Figures:
    links = tuple(
        Transfer(
            link.source,
            link.target,
            link.position,
            link.nbytes,
            link.down_nbytes,
            link.seconds,
            link.cost_usd,
            link.energy_j,
            crossing_values(graph, link.position, accounting),
        )
        for link in figures.links
    )
    return Figures(
        figures.stages, links, figures.latency_s, figures.cost_usd, figures.throughput_per_s, figures.energy_j
    )
