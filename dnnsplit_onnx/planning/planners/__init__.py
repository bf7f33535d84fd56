"""Planners: functions from a `Problem` to a `Solution`, by name.

To add one, write a module whose `plan` is such a function, and `register` it: `--planner` and
`compare` find it here.

The planners of published systems live in a module each, which cites its paper and states
what had to be assumed. They are loaded when they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.planning.planners import exact, exhaustive
from dnnsplit_onnx.planning.planners.published import dnnsplit
from dnnsplit_onnx.planning.problem import Planner, Problem, Solution

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
        planner = PLANNERS[name]
    except KeyError:
        raise InputError(
            f"no planner is named `{name}`", hint=f"known planners: {', '.join(PLANNERS)}"
        ) from None
    return planner.load() if isinstance(planner, _Later) else planner


@dataclass(frozen=True)
class _Later:
    """A planner whose module is loaded when it is first asked for."""

    module: str

    def load(self) -> Planner:
        planner: Planner = import_module(f"{__name__}.{self.module}").plan
        return planner

    def __call__(self, problem: Problem) -> Solution:
        return self.load()(problem)


register("exact", exact.plan)
register("dnnsplit", dnnsplit.plan)
register("exhaustive", exhaustive.plan)
register("neurosurgeon", _Later("published.neurosurgeon"))
register("dads", _Later("published.dads"))
register("dnn-surgery", _Later("published.dnn_surgery"))
register("decc", _Later("published.decc"))
register("cost-aware", _Later("published.cost_aware"))
register("pso-ga", _Later("published.pso_ga"))
register("ddpqn", _Later("published.ddpqn"))
