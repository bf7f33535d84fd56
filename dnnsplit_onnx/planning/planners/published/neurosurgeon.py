"""Planner `neurosurgeon`: the partition of Kang et al., ASPLOS 2017, layer by layer.

Y. Kang, J. Hauswald, C. Gao, A. Rovinski, T. Mudge, J. Mars and L. Tang, "Neurosurgeon:
Collaborative intelligence between the cloud and mobile edge", ASPLOS 2017, algorithm 1.

With TM_i and TC_i the seconds that layer i takes on the mobile device and in the cloud, PM_i
and PU the device's watts while it computes and while it sends, D_j the output of layer j and
B the bandwidth, so that TU_j = D_j / B, its partition point is

    latency:  argmin over j of  sum of TM_i, i <= j  +  TU_j  +  sum of TC_i, i > j
    energy:   argmin over j of  sum of TM_i PM_i, i <= j  +  TU_j PU

over all layers j, with everything in the cloud (j = 0) and on the device (j = N) among them.

What is assumed:

1. TM, TC and TU are the problem's own seconds, a link's delay and returning outputs
   included, where the system predicts them by regression from layer types.
2. It is for chains. A DAG is sorted topologically first (our order), as Hu et al. (INFOCOM
   2019, section V-A) did to compare with it; D_j is then whatever the problem charges a cut.
3. Energy is the device's, as published: tier 0 and its own link, and nothing while it waits.
   The plan is judged by the energy of all tiers.
4. Limits are unknown to it: its plan may break them, and then says so. More than two tiers:
   see `published`.
"""

from __future__ import annotations

from dataclasses import replace

from dnnsplit_onnx.errors import TopologyError
from dnnsplit_onnx.planning.planners.published.pairs import need_objective, scan
from dnnsplit_onnx.planning.problem import Problem, Solution

_NAME = "neurosurgeon"


def plan(problem: Problem) -> Solution:
    """The best partition point for the latency of a request, or the energy of the device.

    Raises:
        InputError: The objective is another.
        TopologyError: The energy of the device is unknown.
        InfeasibleError: There is no position to cut at.
    """
    need_objective(problem, _NAME, "latency", "energy")
    if problem.objective == "latency":
        return scan(problem, _NAME, lambda pair: pair.total("latency"))
    if problem.topology.tiers[0].watts is None:
        raise TopologyError(
            f"the energy of the device is unknown: tier `{problem.topology.names[0]}` has no `watts`",
            hint="add `watts` to each tier and link that a plan may use",
        )
    tiers = tuple(tier.model_copy(update={"idle_watts": 0.0}) for tier in problem.topology.tiers)
    busy = replace(problem, topology=problem.topology.model_copy(update={"tiers": tiers}))
    energy = busy.additive("energy")
    notes = ("the energy of the device alone was minimised, as published",)
    return scan(problem, _NAME, lambda _: energy.below[0] + energy.link[0], notes)
