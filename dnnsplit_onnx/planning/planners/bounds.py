"""What no plan over the DAG can fall below, limits left out.

A sum is bounded by its minimum cut (`dag`). For throughput, what is bounded is the seconds of the slowest
step, stage or transfer, of any plan:

1. Some tier runs the node whose best tier is slowest, and some tier does at least its share of
   the least that all nodes take.
2. The slowest step is no faster than any weighted mean of all steps. Such a mean is a sum over
   nodes and crossing values, so its least over all downward-closed sets is a minimum cut, whatever
   the weights: each gives a bound that knows links, and the best weights that of the Lagrangian
   dual. They are looked for by multiplicative weights (Plotkin, Shmoys and Tardos 1995; Arora,
   Hazan and Kale 2012): steps that are slow in a known plan, or at the last minimum cut, count more
   at the next.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.planning.figures import Figures
from dnnsplit_onnx.planning.planners.dag import ROUNDING, dag_optimum, minimum_of, rates_of
from dnnsplit_onnx.planning.planners.nested import DagFigure, LinkRates
from dnnsplit_onnx.planning.problem import Problem, Solution
from dnnsplit_onnx.planning.waiting import Station, link_station, tier_station
from dnnsplit_onnx.work.analysis import Analysis

# Minimum cuts of small networks, of larger ones, and of those which take a tenth of a second each.
_CUTS = ((400, 16), (2_000, 5), (5_000, 3))
#: So many in a row that better nothing are enough.
_PATIENCE = 4
_EAGER, _KNOWN = 1.5, 2.0


def lower_bound(problem: Problem, analysis: Analysis, known: Figures | None = None) -> float | None:
    """What no plan over the DAG can fall below; see `plans.Plan.lower_bound`.

    A known plan tells where to look for that of throughput. None where machines share rows: what they
    take is no sum over nodes.
    """
    if problem.costs.rows is not None:
        return None
    if problem.objective == "throughput":
        return slowest_step_bound(problem, known)
    optimum = dag_optimum(problem, analysis)
    return None if optimum is None else optimum.value


def slowest_step_bound(problem: Problem, known: Figures | None = None) -> float:
    """Seconds that the slowest step of any plan takes at least, for throughput."""
    per_node = np.diff(problem.costs.seconds_below, axis=1)
    if not per_node.size:
        return 0.0
    shares = np.array([station.capacity for station in _stations(problem)[: len(per_node)]])
    quickest = (per_node / shares[:, None]).min(axis=0)
    work = per_node.min(axis=0).sum() / shares.sum()
    bound = max(float(quickest.max()), float(work)) * (1 - ROUNDING)
    return max(bound, _bottleneck(problem, bound, known))


def _bottleneck(problem: Problem, bound: float, known: Figures | None) -> float:
    """The largest bound of weighted means; `bound` if none is larger, or they take too long."""
    topology, analysis = problem.topology, problem.analysis
    work = problem.costs.size * len(topology.links)
    if analysis is None or not topology.links or problem.accounting != "live":
        return bound
    cuts = next((count for most, count in _CUTS if work <= most), 0)  # on larger networks not even one
    bare = replace(problem, costs=replace(problem.costs, memory=None))  # of all figures, seconds alone count
    weights = np.full(len(topology.tiers) + len(topology.links), 1.0)
    if known is not None and 0 < (steps := _steps(problem, known)).max() < math.inf:
        weights = np.exp(_KNOWN * steps / steps.max())
    weights /= weights.sum()
    waited = 0
    for _ in range(cuts):
        optimum = minimum_of(problem, analysis, _mean(problem, weights))
        if optimum is None or waited == _PATIENCE:
            break
        least = optimum.value * (1 - ROUNDING)
        waited = 0 if least > bound * (1 + 1e-3) else waited + 1
        bound = max(bound, least)
        plan = Solution.of_sets(optimum.sets, problem.costs.size, 1)
        steps = _steps(bare, bare.in_order(plan.order).figures(plan.cuts))
        slowest = steps.max()
        if not math.isfinite(slowest) or slowest <= bound * (1 + ROUNDING):
            break  # the mean's own plan is as fast as the bound: no bound is larger
        weights = weights * np.exp(_EAGER * steps / slowest)
        weights /= weights.sum()
    return bound


def _stations(problem: Problem) -> list[Station]:
    """Tiers, then links, as what requests pass."""
    topology = problem.topology
    return [
        *(tier_station(topology, t) for t in range(len(topology.tiers))),
        *(link_station(topology, t) for t in range(len(topology.links))),
    ]


def _steps(problem: Problem, figures: Figures) -> NDArray[np.float64]:
    """Seconds between requests of each tier, then of each link."""
    seconds = [*(stage.seconds for stage in figures.stages), *(link.seconds for link in figures.links)]
    return np.array([one.step(taken) for one, taken in zip(_stations(problem), seconds, strict=True)])


def _mean(problem: Problem, weights: NDArray[np.float64]) -> DagFigure:
    """The mean of all steps, weighted, as a figure over the DAG."""
    tiers = len(problem.topology.tiers)
    shares = [float(w) / one.capacity for w, one in zip(weights, _stations(problem), strict=True)]
    below = problem.costs.seconds_below * np.array(shares[:tiers])[:, None]
    links = [
        LinkRates.none().plus(share, rates_of(link, "latency", None, problem.costs.passes))
        for share, link in zip(shares[tiers:], problem.topology.links, strict=True)
    ]
    return DagFigure(below, tuple(links))
