"""Planners: functions from a `Problem` to a `Solution`, by name.

To add one, write a module whose `plan` is such a function, and `register` it: `--planner` and
`compare` find it here.
"""

from __future__ import annotations

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.planners import (
    cost_aware,
    dads,
    ddpqn,
    decc,
    dnn_surgery,
    dnnsplit,
    exact,
    exhaustive,
    neurosurgeon,
    pso_ga,
)
from dnnsplit_onnx.planners.problem import Planner, Problem, Solution

__all__ = ["PLANNERS", "Planner", "Problem", "Solution", "get_planner", "register"]

PLANNERS: dict[str, Planner] = {}


def register(name: str, planner: Planner) -> None:
    """Makes a planner known by a name.

    Raises:
        ValueError: The name is taken.
    """
    if name in PLANNERS:
        raise ValueError(f"planner `{name}` exists already")
    PLANNERS[name] = planner


def get_planner(name: str) -> Planner:
    """The planner of a name.

    Raises:
        InputError: There is none; the hint lists those there are.
    """
    try:
        return PLANNERS[name]
    except KeyError:
        raise InputError(
            f"no planner is named `{name}`", hint=f"known planners: {', '.join(PLANNERS)}"
        ) from None


register("exact", exact.plan)
register("dnnsplit", dnnsplit.plan)
register("exhaustive", exhaustive.plan)
register("neurosurgeon", neurosurgeon.plan)
register("dads", dads.plan)
register("dnn-surgery", dnn_surgery.plan)
register("decc", decc.plan)
register("cost-aware", cost_aware.plan)
register("pso-ga", pso_ga.plan)
register("ddpqn", ddpqn.plan)
