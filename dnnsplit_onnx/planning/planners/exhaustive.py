"""Planner `exhaustive`: every combination of cuts, one after the other.

It is the oracle of the tests, so it shares nothing with `exact` but the objective.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations_with_replacement, product
from math import comb

from dnnsplit_onnx.errors import InfeasibleError, InputError
from dnnsplit_onnx.planning.problem import Problem, Solution
from dnnsplit_onnx.work.codes import RAW

#: More combinations than this take minutes.
MOST = 1_000_000


def plan(problem: Problem) -> Solution:
    """The best of all nondecreasing combinations of positions.

    Raises:
        InputError: There are more than `MOST` combinations.
        InfeasibleError: None keeps to the limits.
    """
    size, links = problem.costs.size, len(problem.topology.links)
    known = 1 + len(problem.costs.codes)
    count = comb(size + 1 + links - 1, links) * known**links
    if count > MOST:
        raise InputError(
            f"planner `exhaustive` would try {count:.3g} combinations of cuts, and stops at {MOST:,}",
            hint="use planner `exact`: its answer is the same",
        )
    best, is_sum = None, problem.objective != "throughput"
    for cuts in combinations_with_replacement(range(size + 1), links):
        for codes in _codings(problem, cuts):
            if not all(problem.in_code(codes[t]).open[t, cut] for t, cut in enumerate(cuts)):
                continue
            figures = problem.figures(cuts, codes)
            if problem.violations(figures) or (is_sum and math.isinf(figures.value(problem.objective))):
                continue
            if best is None or problem.is_better(figures, best):
                best = figures
    if best is None:
        raise InfeasibleError("no combination of cuts keeps to the limits", hint="planner `exact` says why")
    return Solution(best.cuts, "order", count, codes=best.codes if problem.costs.codes else ())


def _codings(problem: Problem, cuts: tuple[int, ...]) -> Iterator[tuple[str, ...]]:
    """The ways to write what crosses these cuts: one code for each position."""
    positions = sorted(set(cuts))
    choices = [
        [RAW, *(code for code, one in problem.costs.codes.items() if one.applies[at])] for at in positions
    ]
    for chosen in product(*choices):
        of = dict(zip(positions, chosen, strict=True))
        yield tuple(of[cut] for cut in cuts)
