"""What a plan takes where many clients ask for it: what planners for many requesters minimise.

With an offered rate that is the latency of a request, waiting included. Without one all
clients ask at once, each with its own tier 0 and link 0, and share everything above: a line of
machines that equal jobs pass in turn, of which the last is done after

    sum over steps of its seconds + max over shared steps of (rounds - 1) x seconds,

rounds being clients over replicas, rounded up. For one machine a step that is exact (the makespan
of a flow shop of equal jobs); for several it is a bound that no schedule is below.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.planning.problem import Problem

_Floats = NDArray[np.float64]


def delays(problem: Problem, cuts: NDArray[np.intp]) -> _Floats:
    """Delay of each plan of many.

    Args:
        problem: A problem.
        cuts: Shape (plans, K - 1), ascending along each row.

    Returns:
        Shape (plans,); infinite where a plan cuts where it may not.
    """
    size = np.full((len(cuts), 1), problem.costs.size)
    bounds = np.concatenate((np.zeros_like(size), cuts, size), axis=1)
    figure, clients = problem.additive("latency"), problem.topology.workload.clients
    total, longest = np.zeros(len(cuts)), np.zeros(len(cuts))
    for t, (below, tier) in enumerate(zip(problem.costs.seconds_below, problem.topology.tiers, strict=True)):
        starts, stops = bounds[:, t], bounds[:, t + 1]
        seconds = below[stops] - below[starts]
        total += seconds + figure.waiting(t, starts, stops)
        if t:
            longest = np.maximum(longest, (math.ceil(clients / tier.replicas) - 1) * seconds)
    for t, is_open in enumerate(problem.open):
        total += np.where(is_open[cuts[:, t]], figure.link[t][cuts[:, t]], np.inf)
        if t and clients > 1:
            longest = np.maximum(longest, (clients - 1) * problem.link_seconds[t][cuts[:, t]])
    return total if problem.queues is not None else total + longest
