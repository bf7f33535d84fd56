"""From a model and a topology to a plan: what `plan` and `split` do first."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from dnnsplit_onnx.errors import CutError, InputError
from dnnsplit_onnx.graph import collection
from dnnsplit_onnx.graph.cut_names import resolve_cuts
from dnnsplit_onnx.graph.identity import order_digest
from dnnsplit_onnx.machines.predictors import Predictor
from dnnsplit_onnx.machines.tiers_file import topology_of
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.accepting import Accept, accepted, best_codes, codes_notes
from dnnsplit_onnx.planning.coding import code_names, coded_at
from dnnsplit_onnx.planning.costs import Costs, cost_table, on_links
from dnnsplit_onnx.planning.figures import Figures, Objective, Optimality, SingleTier
from dnnsplit_onnx.planning.objective import ObjectiveFunction
from dnnsplit_onnx.planning.once import once_notes, with_once
from dnnsplit_onnx.planning.phases import text_notes
from dnnsplit_onnx.planning.picture_files import files_at
from dnnsplit_onnx.planning.planners import Planner, planner_of
from dnnsplit_onnx.planning.planners.bounds import lower_bound
from dnnsplit_onnx.planning.planners.dag import gap_above
from dnnsplit_onnx.planning.planners.pareto import Front, pareto_front
from dnnsplit_onnx.planning.plans import Plan, PlannedModel
from dnnsplit_onnx.planning.problem import Problem, Solution
from dnnsplit_onnx.planning.rules import rules_of
from dnnsplit_onnx.planning.sparing import sparing_notes
from dnnsplit_onnx.planning.unknowns import interpolated_cuts, too_little, unknowns
from dnnsplit_onnx.planning.weights import Weights
from dnnsplit_onnx.work.analysing import Source
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.cuts import UNKNOWN, Accounting, check_states, crossing_values
from dnnsplit_onnx.work.orders import in_order_of
from dnnsplit_onnx.work.pictured import analysis_for
from dnnsplit_onnx.work.texts import Text, text_of


@collection.put_off()
def plan(
    model: Source,
    topology: Topology | str | os.PathLike[str],
    *,
    objective: Objective | ObjectiveFunction = "latency",
    planner: str | Planner = "exact",
    costs: Costs | None = None,
    cuts: Sequence[int | str] | None = None,
    accounting: Accounting = "live",
    bindings: Mapping[str, int] | None = None,
    pareto: bool | int = True,
    bound: bool = True,
    weights: Weights | Mapping[str, float] | None = None,
    codes: Sequence[str] = (),
    accept: Accept | None = None,
) -> Plan:
    """Chooses the cuts of a model, or prices given ones.

    Args:
        model: The model: an analysis, or what `analyse` takes, which is then analysed as it
            is by default. Positions count in the analysis's order.
        topology: Tiers, links and limits, or the file that has them.
        objective: What is to be best: a name, or a function of `Figures` to be minimised. Of
            such a function nothing is known, so that only what was tried is proven
            (`planners.trying`).
        planner: A name, or a function `Problem -> Solution`.
        costs: Seconds of each node on each tier in place of those of the topology's tiers: an
            array of shape (K, n) along the analysis's order, or a function of analysis and
            topology that returns one.
        cuts: Where to cut, one a link, in place of a planner's choice: positions, or names of
            nodes or values as `cut_names` reads them. They are not held to the limits, only
            compared with them.
        accounting: What a cut is charged.
        bindings: Numbers for symbolic dimensions.
        pareto: Whether to add the Pareto front, or the most points of it, 64 by default.
        bound: Whether to look for what no plan over the DAG falls below.
        weights: What the objective `weighted` is: a weight for each second (`latency`), USD
            (`cost`) and joule (`energy`). With any objective, they price its sum too.
        codes: How values may be written for links that say nothing of it, besides `raw`. Of cuts
            that are given, each takes the code that is best for the objective.
        accept: Says what is wrong with the cuts and codes of a plan, or None: a plan with a
            sentence against it is set aside with all that code the same cuts so, and the next
            best is tried.

    Raises:
        InputError: An objective, planner or accounting of this name is not known; the
            objective is `weighted`, and there are no weights; or the model was analysed with
            other bindings.
        CutError: A given cut names nothing, or parts a state; or they are not one a link.
        ShapeError: The planner needs the size of a value, and it is unknown.
        InfeasibleError: No plan keeps to the limits.
    """
    if costs is not None and not callable(costs) and not isinstance(model, Analysis):
        raise InputError(
            "`costs` is an array, and the order of its columns is that of no analysis",
            hint="plan an analysis, or give a function of analysis and topology",
        )
    topology = topology_of(topology)
    analysis = analysis_for(model, topology, bindings)
    positions = None
    if cuts is not None:
        given = analysis
        analysis, positions = _cut_at(given, cuts, topology)
        if costs is not None and not callable(costs):
            at = {node.index: place for place, node in enumerate(given.graph.nodes)}
            costs = np.asarray(costs)[..., [at[node.index] for node in analysis.graph.nodes]]
    if codes:
        topology = topology.with_codes(code_names(codes))
    problem = problem_of(analysis, topology, objective, accounting, weights, costs)
    return plan_of(problem, planner, cuts=positions, pareto=pareto, bound=bound, accept=accept)


def _cut_at(
    analysis: Analysis, cuts: Sequence[int | str], topology: Topology
) -> tuple[Analysis, tuple[int, ...]]:
    """The positions that the user's cuts stand for, and the analysis in an order that has them.

    Raises:
        CutError: They are not one for each link, or not nested.
    """
    if len(cuts) != len(topology.links):
        tiers = f"{len(topology.tiers)} tier{'s' if len(topology.tiers) > 1 else ''}"
        raise CutError(
            f"{len(cuts)} cut{'s' if len(cuts) != 1 else ''} given for {tiers}",
            hint=f"give {len(topology.links)}: one for each link, from tier 0 up",
        )
    graph, positions = resolve_cuts(analysis.graph, [str(cut) for cut in cuts])
    return in_order_of(analysis, graph), positions


def plan_of(
    problem: Problem,
    planner: str | Planner = "exact",
    *,
    cuts: Sequence[int] | None = None,
    pareto: bool | int = True,
    bound: bool = True,
    accept: Accept | None = None,
) -> Plan:
    """The plan of a problem that `problem_of` made; arguments and errors as in `plan`."""
    analysis = problem.analysis
    assert analysis is not None, "a problem made of an analysis has it"
    solution, name = _choose(problem, analysis, planner, cuts, accept)
    planned = problem.in_order(solution.order).with_rows(solution.rows)
    assert planned.analysis is not None, "so has it in another order"
    figures = planned.figures(solution.cuts, solution.codes)
    detailed = _with_values(figures, planned)
    broken = planned.violations(figures)
    is_bounded = bound and cuts is None and problem.accounting == "live" and not problem.costs.codes
    least = solution.bound if solution.bound is not None and is_bounded else None
    if least is None and is_bounded:
        least = lower_bound(problem, analysis, figures)
    gap = None if least is None else gap_above(least, problem, figures)
    limits = problem.topology.limits.model_dump()
    limits["return_output"] = bool(limits["return_output"])
    front = _front(planned, pareto if cuts is None else False)
    return Plan(
        objective=problem.objective,
        planner=name,
        optimality=_proven(figures, "dag" if gap == 0 else solution.optimality),
        feasible=not broken,
        violations=broken,
        figures=detailed,
        single_tier=single_tiers(problem),
        pareto=front.points,
        pareto_complete=front.complete,
        pareto_count=front.count,
        order=planned.analysis.order,
        accounting=problem.accounting,
        bindings=dict(analysis.types.bindings),
        limits={key: value for key, value in limits.items() if value is not None},
        evaluated=solution.evaluated,
        notes=(
            *solution.notes,
            *codes_notes(problem, name, solution),
            *_encoded_inputs(problem),
            *_shared_rows(planned, figures),
            *once_notes(detailed),
            *text_notes(detailed, problem.topology),
            *(sparing_notes(detailed, planned.analysis) if bound else ()),
        ),
        lower_bound=least,
        gap=gap,
        weights=problem.weights,
        permutation=solution.order,
        cost_models=_cost_models(problem),
        topology=problem.topology.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        uncounted_ops=analysis.uncounted,
        trips=dict(analysis.trips),
        assumed=dict(analysis.assumed),
        unknowns=unknowns(planned, figures),
        knows_enough=too_little(planned) is None,
        model=PlannedModel(
            str(analysis.graph.file.path),
            len(analysis.graph.nodes),
            int(analysis.flops.sum()),
            analysis.model_digest,
        ),
        order_digest=order_digest(planned.analysis.graph, analysis.model_digest),
        node_order=_node_order(planned.analysis),
        states=tuple(state.pair for state in analysis.graph.states),
    )


def _front(problem: Problem, pareto: bool | int) -> Front:
    if pareto is False or pareto == 0:
        return Front((), 0, complete=False)
    return pareto_front(problem) if pareto is True else pareto_front(problem, pareto)


def _node_order(analysis: Analysis) -> tuple[int, ...] | None:
    """The places of the nodes in the file, where no name tells their order."""
    return None if analysis.has_named_order else tuple(node.index for node in analysis.graph.nodes)


def _choose(
    problem: Problem,
    analysis: Analysis,
    planner: str | Planner,
    cuts: Sequence[int] | None,
    accept: Accept | None,
) -> tuple[Solution, str]:
    """A planner's solution, or the user's, and whose it is."""
    if cuts is not None:
        check_states(analysis.graph, cuts)
        return best_codes(problem, tuple(cuts), accept), "at"
    _need_sizes(problem, analysis)
    name, planned_by = planner_of(planner)
    if name == "exact" and problem.costs.codes and accept is not None:
        solution = accepted(problem, accept)
    else:
        solution = planned_by(problem)
    if name == "exact":
        there = problem.in_order(solution.order)
        broken = there.violations(there.figures(solution.cuts))
        assert not broken, f"planner `exact` chose a plan that breaks its limits: {broken[0]}"
    return solution, name


def _cost_models(problem: Problem) -> tuple[str, ...]:
    """Where each tier's seconds come from."""
    if problem.costs.is_custom:
        return ("custom",) * len(problem.topology.tiers)
    timings = problem.costs.timings
    return tuple(
        "predictor" if timings and isinstance(timings[t], Predictor) else tier.cost_model
        for t, tier in enumerate(problem.topology.tiers)
    )


def problem_of(
    analysis: Analysis,
    topology: Topology,
    objective: Objective | ObjectiveFunction = "latency",
    accounting: Accounting = "live",
    weights: Weights | Mapping[str, float] | None = None,
    costs: Costs | None = None,
) -> Problem:
    """What planners are asked: the costs of an analysis on a topology, and its rules.

    Raises:
        InputError: The objective is `weighted`, and there are no weights; or `costs` do not
            fit.
        TopologyError: A rule, or `input_nbytes`, names nothing in the model.
    """
    if topology.workload.has_texts:
        analysis = text_of(analysis, topology.workload)
    topology = settled(topology, analysis)
    analysis = on_links(analysis, topology)
    if weights is not None and not isinstance(weights, Weights):
        weights = Weights.of(weights)
    table = cost_table(analysis, topology, accounting, costs)
    return Problem(
        table,
        topology,
        "custom" if callable(objective) else objective,
        weights=weights,
        analysis=analysis,
        accounting=accounting,
        function=objective if callable(objective) else None,
        rules=rules_of(analysis.graph, topology),
    )


def settled(topology: Topology, analysis: Analysis) -> Topology:
    """The topology with what it leaves to the model: outputs of those with states return."""
    if topology.limits.return_output is None and analysis.graph.states:
        return topology.with_limits(return_output=True)
    return topology


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
                weighted=figures.weighted,
                custom=figures.custom,
                ttft_s=figures.ttft_s,
                tpot_s=figures.tpot_s,
            )
        )
    return tuple(rows)


def _need_sizes(problem: Problem, analysis: Analysis) -> None:
    """Refuses to plan where a size that can be bound is not."""
    if len(problem.topology.tiers) == 1:
        return
    unknown = problem.costs.up_nbytes == UNKNOWN
    if not unknown.any():
        return
    # Sizes that depend on the data rule out their cuts and no more; a model input whose
    # size is open is for the user to bind.
    types, graph = analysis.types, analysis.graph
    for value in crossing_values(graph, 0, problem.accounting):
        if value not in analysis.input_nbytes:
            types.need_nbytes(value)


def _encoded_inputs(problem: Problem) -> tuple[str, ...]:
    """That inputs are priced as something else than the tensors that the runtime sends."""
    if problem.analysis is None or not problem.topology.links:
        return ()
    types = problem.analysis.types
    return tuple(
        f"input `{name}` is priced as {nbytes:,} bytes on a link (`input_nbytes`); the runtime "
        f"sends its tensor{'' if types.nbytes(name) is None else f', {types.nbytes(name):,} bytes'}"
        for name, nbytes in problem.analysis.input_nbytes.items()
        if name not in problem.topology.files
    )


def _proven(figures: Figures, optimality: Optimality) -> Optimality:
    """What is proven of a plan: where rows are shared, how many each machine gets was searched for."""
    return "none" if any(share.rows is not None for share in figures.stages[0].machines) else optimality


def _shared_rows(problem: Problem, figures: Figures) -> tuple[str, ...]:
    """What sharing rows among the machines of tier 0 gains, or that it loses."""
    rows, tier, stage = problem.costs.rows, problem.topology.tiers[0], figures.stages[0]
    if rows is None or stage.start == stage.stop:
        return ()
    alone, first = float(rows.alone[stage.stop]), tier.machines[0].name
    if all(share.rows is None for share in stage.machines):
        return (
            f"to share rows among the machines of `{tier.name}` loses: "
            f"`{first}` alone is faster, {alone * 1e3:.4g} ms",
        )
    flops = int(problem.costs.flops_below[stage.stop])
    halo = sum(share.flops for share in stage.machines) / flops - 1 if flops else 0.0
    return (
        f"the machines of `{tier.name}` take {stage.seconds * 1e3:.4g} ms, "
        f"`{first}` alone {alone * 1e3:.4g} ms ({alone / stage.seconds:.3g} times); "
        f"rows computed twice are {halo:.1%} of the work",
    )


def _with_values(figures: Figures, problem: Problem) -> Figures:
    """The figures with what crosses each link, and which stages were interpolated."""
    analysis = problem.analysis
    assert analysis is not None, "a plan is of a graph"
    links = tuple(
        replace(
            with_once(link, way, analysis),
            values=crossing_values(analysis.graph, link.position, problem.accounting),
            coded=(
                *coded_at(analysis, link.position, link.code),
                *files_at(analysis, link.position, problem.topology),
            ),
        )
        for link, way in zip(figures.links, problem.topology.links, strict=True)
    )
    text = analysis if isinstance(analysis, Text) else None
    stages = tuple(
        replace(
            stage,
            interpolated=bool(interpolated_cuts(problem, analysis, t, stage)),
            cache_nbytes=None if text is None else text.cache_nbytes(stage.start, stage.stop),
        )
        for t, stage in enumerate(figures.stages)
    )
    return replace(figures, stages=stages, links=links)
