"""The best that any plan over the DAG can reach, and how far a plan is from it.

The optimum of an additive figure over all downward-closed sets that keep the rules is a
minimum cut (`nested`). Figures are compared with it up to the rounding of `evaluate`'s terms.
Limits are left out: with limits the bound holds, and a plan may not reach it.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from dnnsplit_onnx.machines.topology import Link, Topology
from dnnsplit_onnx.planning.figures import Figures, Measure, Objective
from dnnsplit_onnx.planning.planners.nested import DagFigure, DagOptimum, LinkRates, minimum
from dnnsplit_onnx.planning.problem import Problem
from dnnsplit_onnx.planning.waiting import link_station, tier_station
from dnnsplit_onnx.planning.weights import Weights
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.texts import Text

#: Relative rounding of the terms that `evaluate` adds.
ROUNDING = 1e-12
#: A plan no further above a bound is proven best: both round, and a search may end within as much.
NO_GAP = 3 * ROUNDING


def dag_optimum(
    problem: Problem, analysis: Analysis | None = None, measure: Objective | None = None
) -> DagOptimum | None:
    """The optimum over the DAG within the rules, limits left out.

    Args:
        problem: A problem.
        analysis: The graph behind it, priced by live values; by default the problem's own.
        measure: The figure; by default the objective.

    Returns:
        The optimum; None if the objective is not a sum, energies are not all known, the graph
        is too large, or there is no such plan; or machines share rows, whose seconds are no
        sum over nodes.
    """
    if problem.costs.rows is not None:
        return None
    measure, analysis = measure or problem.objective, analysis or problem.analysis
    if measure == "throughput" or measure == "custom" or not _is_known(problem, measure) or analysis is None:
        return None
    analysis, priced = _phase(analysis, measure)
    drawing, passes = _drawing(problem.topology), analysis.passes
    figure = DagFigure(
        problem.additive(measure).below,
        tuple(rates_of(link, priced, problem.weights, passes) for link in drawing),
        problem.additive(measure).fees,
    )
    return minimum_of(problem, analysis, figure)


def _phase(analysis: Analysis, measure: Measure) -> tuple[Analysis, Measure]:
    """What a phase of a text is a sum over, and the figure that it is of links."""
    if measure not in ("ttft", "tpot") or not isinstance(analysis, Text):
        return analysis, measure
    return (analysis.prefill if measure == "ttft" else analysis.step), "latency"


def tangent_optimum(problem: Problem, figures: Figures) -> DagOptimum | None:
    """The optimum over the DAG where waiting is replaced by lines that touch it at a plan.

    Waiting is convex in seconds, so the lines lie below it and the optimum bounds every plan.
    Where it is the plan itself, the plan is best over the DAG.

    Args:
        problem: A problem with an offered rate.
        figures: The plan's.
    """
    measure, topology = problem.objective, problem.topology
    if problem.analysis is None or problem.costs.rows is not None:
        return None
    if measure not in ("latency", "weighted") or not _is_known(problem, measure):
        return dag_optimum(problem)
    share = 1.0 if measure == "latency" or problem.weights is None else problem.weights.latency
    figure = problem.additive(measure)
    below, links, constant = figure.below.copy(), [], 0.0
    for t, stage in enumerate(figures.stages):
        slope = share * tier_station(topology, t).slope(stage.seconds)
        below[t] += slope * problem.costs.seconds_below[t]
        constant += share * stage.waiting_s - slope * stage.seconds
    for t, (link, sent) in enumerate(zip(_drawing(topology), figures.links, strict=True)):
        slope = share * link_station(topology, t).slope(sent.seconds)
        passes = problem.costs.passes
        rates = rates_of(link, measure, problem.weights, passes)
        links.append(rates.plus(slope, rates_of(link, "latency", None, passes)))
        constant += share * sent.waiting_s - slope * sent.seconds
    if not math.isfinite(constant):
        return dag_optimum(problem)
    return minimum_of(problem, problem.analysis, DagFigure(below, tuple(links), figure.fees, constant))


def minimum_of(problem: Problem, analysis: Analysis, figure: DagFigure) -> DagOptimum | None:
    """The least of a figure over the DAG within the problem's rules; None as in `nested.minimum`."""
    # Contraction moves work up, so it needs tiers that are no worse the higher they are.
    per_node = np.diff(figure.below, axis=1)
    merge = bool((per_node[1:] <= per_node[:-1]).all())
    back = problem.topology.limits.returns
    return minimum(figure, analysis, problem.rules, back=back, merge=merge)


def _is_known(problem: Problem, measure: Measure) -> bool:
    if not problem.needs_energy((measure,)):
        return True
    tiers, links = problem.topology.tiers, problem.topology.links
    return all(tier.watts is not None for tier in tiers) and all(link.watts is not None for link in links)


def _drawing(topology: Topology) -> tuple[Link, ...]:
    """The links, their watts with what tiers draw that wait for them."""
    drawn = zip(topology.links, topology.link_watts, strict=True)
    return tuple(link.model_copy(update={"watts": watts}) for link, watts in drawn)


def rates_of(link: Link, measure: Measure, weights: Weights | None, passes: int = 1) -> LinkRates:
    """What a link takes of a figure, for a request of so many passes."""
    if measure == "weighted":
        assert weights is not None, "the objective `weighted` has weights"
        total = LinkRates.none()
        for part, weight in weights.to_dict().items():
            total = total.plus(weight, rates_of(link, part, None, passes))  # type: ignore[arg-type]
        return total
    if measure == "cost" and link.usd_per_gb is not None:
        per_byte = Fraction(link.usd_per_gb / 1e9)
        return LinkRates(per_byte, per_byte, Fraction(0))
    price = Fraction(1)
    if measure == "cost":
        price = Fraction((link.usd_per_hour or 0.0) / 3600.0)
    elif measure == "energy":
        price = Fraction(link.watts or 0.0)
    back = link.down_mbps or link.bandwidth_mbps
    return LinkRates(
        price * 8 / Fraction(link.bandwidth_mbps * 1e6),
        price * 8 / Fraction(back * 1e6),
        price * Fraction(passes * link.delay_ms / 1e3),
    )


def gap_above(bound: float, problem: Problem, figures: Figures) -> float:
    """How far a plan is above a bound, relative to the plan; 0 within rounding (`NO_GAP`)."""
    return relative_gap(bound, problem.objective, figures.value(problem.objective))


def relative_gap(bound: float, objective: Objective, value: float) -> float:
    """How far a plan's value is above a bound; see `gap_above`."""
    if objective == "throughput":
        value = 1 / value if value > 0 else math.inf
    gap = 0.0 if value == 0 else 1 - bound / value
    return gap if gap > NO_GAP else 0.0
