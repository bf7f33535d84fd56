"""Planner `exact`: provably best over the DAG or the graph's order, for any number of tiers.

For a sum within rules on nodes, the minimum cut over the DAG is the plan. Where limits that
are no sums, or limits at all, come in, several orders are searched (`several`).

Along an order without limits the best plan is a shortest path over (tier, stop), found exactly in time
linear in the positions. Under limits it is a label search (`labels`), narrowed first by
Lagrangian bounds where there is much to search. Throughput is a min-max (`throughput`).

Where the candidates are proven to suffice (`Problem.is_dominated`), they are all that is
searched; everywhere else all positions are.

A function of the user's own is no sum, so nothing of this holds for it: `trying` looks for
its best plan, and says whether that is proven.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from dnnsplit_onnx.errors import InfeasibleError
from dnnsplit_onnx.planning.additive import Additive
from dnnsplit_onnx.planning.figures import Measure
from dnnsplit_onnx.planning.objective import keeps
from dnnsplit_onnx.planning.planners import coded, exhaustive
from dnnsplit_onnx.planning.planners.chain import Chain, chain_of, least
from dnnsplit_onnx.planning.planners.infeasible import infeasible
from dnnsplit_onnx.planning.planners.labels import Bound, TooManyLabelsError, bound_of, prune, search
from dnnsplit_onnx.planning.planners.lagrange import Duals, Relaxation
from dnnsplit_onnx.planning.planners.several import best_of_orders
from dnnsplit_onnx.planning.planners.throughput import widest
from dnnsplit_onnx.planning.planners.trying import try_out
from dnnsplit_onnx.planning.problem import Problem, Solution
from dnnsplit_onnx.work.codes import RAW

#: Searches of fewer (link, position) pairs go without Lagrangian bounds: they cost more.
SMALL = 200
#: Partial plans that a search may keep, some hundred megabytes.
MOST_LABELS = 4_000_000


def plan(problem: Problem) -> Solution:
    """The best plan over the DAG where that is a minimum cut, else along several orders.

    Raises:
        TopologyError: Energy is asked for and cannot be known.
        InfeasibleError: No plan keeps to the limits.
    """
    if problem.costs.codes:
        return along_order(problem)  # no minimum cut knows codes
    return best_of_orders(problem, along_order, is_feasible)


def along_order(problem: Problem) -> Solution:
    """The best plan over the positions of the problem's own order, and over codes if any are allowed.

    Raises:
        TopologyError: Energy is asked for and cannot be known.
        InfeasibleError: No plan along it keeps to the limits.
    """
    if problem.costs.codes:
        if problem.objective == "custom":
            return unsplit(problem, exhaustive.plan(problem))
        found = coded.plan(problem, within)
    elif problem.objective == "throughput":
        found = widest(problem, within)
    elif problem.objective == "custom":
        return unsplit(problem, try_out(problem, along_order))
    else:
        measures = (problem.objective, *problem.limits)
        found = within(problem, problem.objective, chain_of(problem, measures))
    if found is None:
        raise infeasible(problem, within)
    return unsplit(problem, found)


def is_feasible(problem: Problem) -> bool:
    """Whether some plan along the problem's order keeps to the limits."""
    aim: Measure = next(iter(problem.limits), "latency")
    return within(problem, aim, chain_of(problem, tuple(problem.limits))) is not None


def unsplit(problem: Problem, found: Solution) -> Solution:
    """A single tier, where one is as good and no slower: nobody should split for nothing."""
    mine = problem.figures(found.cuts, found.codes)
    singles = [problem.figures(cuts) for cuts in problem.single_tier]
    equals = [one for one in singles if not problem.is_better(mine, one) and not problem.violations(one)]
    best = min([*equals, mine], key=lambda one: one.value("latency"))
    return replace(found, cuts=best.cuts, codes=best.codes if any(code != RAW for code in best.codes) else ())


def within(problem: Problem, objective: Measure, chain: Chain | None) -> Solution | None:
    """The plan of a chain that is best in one additive figure and keeps the limits.

    Returns:
        The plan, None if there is none.
    """
    if chain is None:
        return None
    evaluated = sum(len(stops) for stops in chain.stops)
    best = least(chain, problem.additive(objective))
    if not problem.violations(problem.figures(best)):
        return Solution(best, "order", evaluated)
    limited = [measure for measure in problem.limits if measure != objective]
    for measure in limited:
        most_modest = problem.figures(least(chain, problem.additive(measure)))
        if not keeps(most_modest, problem.topology.limits, measure):
            return None
    if not limited:
        return None
    return _search(problem, chain, (objective, *limited))


def _search(problem: Problem, chain: Chain, measures: Sequence[Measure]) -> Solution | None:
    figures = [problem.additive(measure) for measure in measures]
    limits = [problem.limits.get(measure, math.inf) for measure in measures]
    found = Duals([1.0])
    if chain.count > SMALL:
        found = Relaxation(chain, figures, limits[1:], lambda cuts: _judge(problem, cuts, measures)).duals()
        limits[0] = min(limits[0], found.upper)
        bounds = _bounds(chain, figures, limits, found.weights)
        narrower = prune(chain, figures, bounds)
        if narrower is None:
            return None
        chain = narrower
    try:
        paths, made = search(chain, figures, _bounds(chain, figures, limits, found.weights), MOST_LABELS)
    except TooManyLabelsError:
        return _unproven(found)
    kept = next((cuts for cuts in paths if not problem.violations(problem.figures(cuts))), None)
    return None if kept is None else Solution(kept, "order", made)


def _bounds(
    chain: Chain, figures: Sequence[Additive], limits: Sequence[float], weights: Sequence[float]
) -> list[Bound]:
    """One bound a figure, and the Lagrangian's."""
    one = [[float(r == s) for s in range(len(figures))] for r in range(len(figures))]
    bounds = [bound_of(chain, figures, one[r], limit) for r, limit in enumerate(limits) if limit < math.inf]
    if len(weights) == len(figures) and limits[0] < math.inf and any(weights[1:]):
        total = sum(weight * limit for weight, limit in zip(weights, limits, strict=True) if weight)
        bounds.append(bound_of(chain, figures, weights, total))
    return bounds


def _unproven(found: Duals) -> Solution | None:
    """The best plan met, where the search is too large to finish."""
    if found.cuts is None:
        raise InfeasibleError(
            "no plan within the limits was found, and there are too many partial plans to prove that none is",
            hint="loosen a limit, or use fewer tiers",
        )
    bounds = f"between {found.lower:.9g} and {found.upper:.9g}"
    note = f"not proven best: too many partial plans to search; the best possible is {bounds}"
    return Solution(found.cuts, "none", 0, (note,))


def _judge(problem: Problem, cuts: tuple[int, ...], measures: Sequence[Measure]) -> tuple[list[float], bool]:
    figures = problem.figures(cuts)
    return [figures.value(measure) for measure in measures], not problem.violations(figures)
