"""The registry: names, functions, and a notebook's cell that runs twice."""

from __future__ import annotations

import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.planning import planners
from dnnsplit_onnx.planning.planners import Planner, Problem, Solution, get_planner, planner_of, register


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planners, "PLANNERS", dict(planners.PLANNERS))


def cell() -> Planner:
    """What a cell of a notebook defines, anew at each run."""

    def mine(problem: Problem) -> Solution:
        return Solution((0,) * len(problem.topology.links), "none", 1)

    return mine


def other(problem: Problem) -> Solution:
    return Solution((problem.costs.size,) * len(problem.topology.links), "none", 1)


def test_a_cell_that_runs_again_replaces_its_planner() -> None:
    first, second = cell(), cell()
    register("mine", first)
    register("mine", second)
    assert get_planner("mine") is second


def test_another_function_needs_to_say_so() -> None:
    register("mine", cell())
    with pytest.raises(InputError, match="planner `mine` exists already") as caught:
        register("mine", other)
    assert "replace=True" in (caught.value.hint or "")
    register("mine", other, replace=True)
    assert get_planner("mine") is other


def test_two_lambdas_are_two_functions() -> None:
    register("mine", lambda _: Solution((0,), "none", 1))
    with pytest.raises(InputError, match="exists already"):
        register("mine", lambda _: Solution((1,), "none", 1))


@pytest.mark.parametrize("name", ["exact", "dads"])
def test_names_of_ours_are_taken(name: str) -> None:
    with pytest.raises(InputError, match=f"planner `{name}` exists already"):
        register(name, other)


def test_a_planner_is_a_function() -> None:
    with pytest.raises(InputError, match="planner `mine` is no function but `3`"):
        register("mine", 3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`planner` is `3`"):
        planner_of(3)  # type: ignore[arg-type]


def test_a_function_has_its_own_name() -> None:
    name, _ = planner_of(other)
    assert name == "other"
    assert planner_of("exact") == ("exact", get_planner("exact"))


def test_an_answer_that_is_no_solution_names_the_planner() -> None:
    def hasty(problem: Problem) -> Solution:
        return (1,)  # type: ignore[return-value]

    _, planner = planner_of(hasty)
    with pytest.raises(InputError, match="planner `hasty` returned a tuple"):
        planner(None)  # type: ignore[arg-type]
