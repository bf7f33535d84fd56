"""Plans whose codes somebody must accept: the best of those that are, the others set aside.

What codes lose shows in a run, not in a price. So the best plan is shown to whoever runs it, and if
there is something against it, it is set aside, and with it every plan that codes the same cuts so:
more codes lose more. What is left is split by the first of those cuts that is coded otherwise, so the
next plan is the best of all that are left, and the search ends with one that is accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

from dnnsplit_onnx.errors import InfeasibleError
from dnnsplit_onnx.planning.figures import Figures
from dnnsplit_onnx.planning.planners import coded, exact
from dnnsplit_onnx.planning.problem import Problem, Solution
from dnnsplit_onnx.work.codes import RAW, base, is_allowed

#: Cuts and the codes of what crosses them.
Used = frozenset[tuple[int, str]]
#: What is wrong with a plan's cuts and codes, a sentence; None if nothing is.
Accept = Callable[[tuple[int, ...], tuple[str, ...]], "str | None"]

#: What chooses codes, or is told them.
_WITH_CODES = frozenset({"exact", "exhaustive", "at"})
#: Each is a run of the model on every sample.
MOST_TRIED = 200


def accepted(problem: Problem, accept: Accept) -> Solution:
    """The best plan over cuts and codes that is accepted, and what was tried before it.

    Args:
        problem: The problem, with codes, its objective no function of the user's own.
        accept: Asked once for each plan that has codes.

    Raises:
        InfeasibleError: No plan keeps to the limits, or none that does is accepted.
    """
    tried: dict[Used, str] = {}
    waiting: list[tuple[Used, Solution, Figures]] = []
    seen: set[Used] = set()

    def add(banned: Used) -> None:
        """The best plan without some codes of some cuts, if there is one."""
        found = None if banned in seen else coded.plan(problem, exact.within, banned)
        seen.add(banned)
        if found is not None:
            found = exact.unsplit(problem, found)
            waiting.append((banned, found, problem.figures(found.cuts, found.codes)))

    add(frozenset())
    while waiting and len(tried) < MOST_TRIED:
        banned, solution, _ = waiting.pop(_best(problem, waiting))
        used = codes_used(solution.cuts, solution.codes)
        aside = next((one for one in tried if one <= used), None)
        if aside is None:
            reason = accept(solution.cuts, solution.codes) if used else None
            if reason is None:
                return replace(solution, notes=(*solution.notes, *_told(tried)))
            tried[used] = reason
            aside = used
        for one in sorted(aside):
            add(banned | {one})
    raise InfeasibleError(
        f"no plan keeps to the limits whose codes are accepted; {len(tried)} were tried",
        context="; ".join(_told(tried)[:3]) or None,
        hint="loosen --tolerance, --agreement or a limit",
    )


def best_codes(problem: Problem, cuts: tuple[int, ...], accept: Accept | None = None) -> Solution:
    """Given cuts in the codes that are best for them, of those that are accepted."""
    positions = sorted(set(cuts))
    choices = [
        [RAW, *(code for code, one in problem.costs.codes.items() if one.applies[at])] for at in positions
    ]
    plans = []
    for chosen in product(*choices):
        of = dict(zip(positions, chosen, strict=True))
        codes = tuple(of[cut] for cut in cuts)
        links = problem.topology.links
        if all(is_allowed(code, link.codes) for code, link in zip(codes, links, strict=True)):
            plans.append(problem.figures(cuts, codes))
    plans.sort(
        key=lambda figures: figures.value(problem.objective), reverse=problem.objective == "throughput"
    )
    tried: dict[Used, str] = {}
    for figures in plans:
        used, plain = codes_used(figures.cuts, figures.codes), (RAW,) * len(cuts)
        reason = None if not used or accept is None else accept(figures.cuts, figures.codes)
        if reason is None:
            return Solution(
                cuts, "none", len(plans), _told(tried), codes=figures.codes if figures.codes != plain else ()
            )
        tried[used] = reason
    raise AssertionError("raw is always allowed, and accepted")


def codes_used(cuts: tuple[int, ...], codes: tuple[str, ...]) -> Used:
    """The cuts that have a code that loses something, each with it."""
    lossy = ((cut, base(code)) for cut, code in zip(cuts, codes, strict=False))
    return frozenset((cut, code) for cut, code in lossy if code != RAW)


def codes_notes(problem: Problem, planner: str, solution: Solution) -> tuple[str, ...]:
    """Over which codes a plan is best, and what their seconds are."""
    if not problem.costs.codes:
        return ()
    if planner not in _WITH_CODES and not solution.codes:
        return (f"planner `{planner}` knows no codes: what crosses is raw; `exact` chooses cuts and codes",)
    names = ", ".join(("raw", *problem.costs.codes))
    return (
        f"codes considered: {names}; where no profile has their seconds, these are of a model, bytes moved "
        "over memory bandwidth; and the Pareto front is of plans without codes",
    )


def _best(problem: Problem, waiting: list[tuple[Used, Solution, Figures]]) -> int:
    best = 0
    for at, (_, _, figures) in enumerate(waiting):
        if problem.is_better(figures, waiting[best][2]):
            best = at
    return best


def _told(tried: dict[Used, str]) -> tuple[str, ...]:
    """What was set aside, each a sentence."""
    return tuple(
        "set aside: " + " and ".join(f"{code} at cut {cut}" for cut, code in sorted(used)) + f", {why}"
        for used, why in tried.items()
    )
