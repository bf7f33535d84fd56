"""Planner `cost-aware`: the split of Luger, Aral and Brandic, EdgeSys 2023.

D. Luger, A. Aral and I. Brandic, "Cost-aware neural network splitting and dynamic
rescheduling for edge intelligence", EdgeSys 2023, pages 42-47. A network is split in two, for
an edge server and the cloud. From clock speed, bandwidth and latency it predicts for each
layer what splitting there would take in time and in money, and picks the layer by both, a
parameter tuning it "toward faster response or lower costs".

The formula of the combination is not public. What is assumed, with L(s) and C(s) the latency
and the cost of the split at s:

1. Objective `latency` and `cost` are the two ends of the parameter: least L, least C.
   Objective `weighted` is what lies between: least w_L L(s) + w_C C(s).
2. C(s) is what edge server and cloud are rented for while they compute, both of them, as the
   abstract has it. Links have no price: Kayal and Leon-Garcia (IEEE Access 2024, section
   II-A) note that bandwidth costs are left out. The plan is judged with them.
3. L(s) takes the problem's seconds, delays included.
4. A DAG is cut along its order. Limits are unknown to it: its plan may break them, and then
   says so. More than two tiers: see `published`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.planning.objective import weigh
from dnnsplit_onnx.planning.planners.published.pairs import Pair, need_objective, scan
from dnnsplit_onnx.planning.problem import Problem, Solution
from dnnsplit_onnx.planning.weights import Weights

_NAME = "cost-aware"
_NOTE = "links were taken to be free, as published"


def plan(problem: Problem) -> Solution:
    """The best single split for latency, for cost, or for a weighted sum of the two.

    Raises:
        InputError: The objective is another, or weighs energy.
        InfeasibleError: There is no position to cut at.
    """
    need_objective(problem, _NAME, "latency", "cost", "weighted")
    if problem.objective == "weighted" and problem.weights is not None:
        weights = problem.weights
    else:
        weights = Weights(latency=1.0) if problem.objective == "latency" else Weights(cost=1.0)
    if weights.energy:
        raise InputError(f"planner `{_NAME}` weighs latency and cost, as published, not energy")

    def score(pair: Pair) -> NDArray[np.float64]:
        edge, cloud = pair.computed("cost")
        rent = edge + cloud
        return weigh(weights, pair.total("latency"), rent, np.zeros_like(rent))

    is_priced = any(link.usd_per_hour or link.usd_per_gb for link in problem.topology.links)
    return scan(problem, _NAME, score, (_NOTE,) if weights.cost and is_priced else ())
