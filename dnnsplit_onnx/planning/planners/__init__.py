"""Planners: functions from a `Problem` to a `Solution`, by name.

To add one, write such a function and `register` it, or hand it to `plan(planner=...)` as it is.
A package that others install names its planners as entry points in `dnnsplit_onnx.planners`:
`--planner` and `compare` find them here.

The planners of published systems live in a module each, which cites its paper and states
what had to be assumed. They are loaded when they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from dnnsplit_onnx.errors import DnnsplitError, InputError, check_name
from dnnsplit_onnx.planning.planners import exact, exhaustive
from dnnsplit_onnx.planning.planners.published import dnnsplit
from dnnsplit_onnx.planning.problem import Planner, Problem, Solution
from dnnsplit_onnx.plugins import is_same_definition, is_usable, load, package_of, plugins

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "PLANNERS",
    "Planner",
    "Problem",
    "Solution",
    "get_planner",
    "planner_names",
    "planner_of",
    "register",
    "usable_planners",
]

#: Those of this package, and those that were registered; plug-ins are not among them.
PLANNERS: dict[str, Planner] = {}


def register(name: str, planner: Planner, *, replace: bool = False) -> None:
    """Makes a planner known by a name.

    Args:
        name: Its name.
        planner: The function.
        replace: Whether it may take the place of another planner.

    Raises:
        InputError: It is no function, or the name is taken and `replace` is not set. The
            same function, defined again as a notebook's cell is run again, takes its own place.
    """
    if not callable(planner):
        raise InputError(
            f"planner `{name}` is no function but `{planner!r}`",
            hint="register a function Problem -> Solution",
        )
    before = PLANNERS.get(name)
    if before is not None and not replace and not is_same_definition(before, planner):
        raise InputError(
            f"planner `{name}` exists already",
            hint="choose another name, or register(..., replace=True)",
        )
    PLANNERS[name] = planner


def get_planner(name: str) -> Planner:
    """The planner of a name.

    Raises:
        InputError: There is none, or its package cannot be loaded; the hint lists those there are.
    """
    planner = PLANNERS.get(name)
    if planner is not None:
        return planner.load() if isinstance(planner, _Later) else planner
    check_name("planner", name, planner_names())
    return _planner_of_plugin(plugins(_GROUP)[name])


def planner_of(planner: str | Planner) -> tuple[str, Planner]:
    """A planner and what it is called, from its name or the function itself.

    Raises:
        InputError: There is none of this name, or it is neither name nor function.
    """
    if isinstance(planner, str):
        return planner, get_planner(planner)
    if not callable(planner):
        raise InputError(
            f"`planner` is `{planner!r}`", hint="give a planner's name, or a function Problem -> Solution"
        )
    name = str(getattr(planner, "__name__", type(planner).__name__))
    return name, _checked(name, planner)


def planner_names() -> tuple[str, ...]:
    """All names, those of other packages last; none of them is loaded."""
    return (*PLANNERS, *(name for name in plugins(_GROUP) if name not in PLANNERS))


def usable_planners() -> tuple[str, ...]:
    """All names but those of packages that cannot be loaded, which a warning names."""
    found = plugins(_GROUP)
    return tuple(name for name in planner_names() if name in PLANNERS or is_usable(found[name]))


_GROUP = "dnnsplit_onnx.planners"


@cache
def _planner_of_plugin(entry: EntryPoint) -> Planner:
    """A planner of another package, whose faults are errors that name it."""
    planner, package = load(entry), package_of(entry)
    if not callable(planner):
        raise InputError(f"planner `{entry.name}` of package `{package}` is no function")
    checked = _checked(entry.name, planner)

    def plan(problem: Problem) -> Solution:
        try:
            return checked(problem)
        except DnnsplitError:
            raise
        except Exception as error:
            raise InputError(
                f"planner `{entry.name}` of package `{package}` failed: {type(error).__name__}: {error}",
                hint="use planner `exact`, and tell the package's authors",
            ) from error

    return plan


def _checked(name: str, planner: Planner) -> Planner:
    """A planner whose answer is held against the signature."""

    def plan(problem: Problem) -> Solution:
        solution: object = planner(problem)
        if not isinstance(solution, Solution):
            raise InputError(
                f"planner `{name}` returned a {type(solution).__name__}",
                hint='return Solution(cuts, "none", evaluated)',
            )
        return solution

    return plan


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
register("liu", _Later("published.liu"))
register("ipsga", _Later("published.ipsga"))
register("dina", _Later("published.dina"))
register("coedge", _Later("published.coedge"))
