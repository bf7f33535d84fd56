"""The best plan over the DAG, or along the best of several orders of it.

1. An additive objective within rules: the minimum cut over the DAG is the best plan there is.
   Where it keeps the limits too, nothing else need be searched.
2. Else, limits that no minimum cut knows (sums beside the objective, memory, `max_mb`, numbers
   of nodes) are kept along orders: the one at hand, that of the file, and those in which the
   minimum cuts for the objective and for each limited figure are prefixes. The best plan of
   all is taken; it is best along its order, and the minimum cut bounds what others can reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from dnnsplit_onnx.errors import InfeasibleError
from dnnsplit_onnx.planning.figures import Measure
from dnnsplit_onnx.planning.planners.dag import NO_GAP, dag_optimum, gap_above, tangent_optimum
from dnnsplit_onnx.planning.planners.ideals import widest_of_ideals
from dnnsplit_onnx.planning.planners.nested import DagOptimum
from dnnsplit_onnx.planning.problem import Planner, Problem, Solution

#: Further orders of larger graphs are searched only if the first has no plan at all.
LARGE = 5_000

#: Minimum cuts along tangents, each at the plan that the one before found.
_TOUCHES = 4

_Order = tuple[int, ...]


def best_of_orders(
    problem: Problem, along_order: Planner, is_feasible: Callable[[Problem], bool]
) -> Solution:
    """The best plan that is found; see the module.

    Args:
        problem: The problem.
        along_order: Finds the best plan along a problem's own order.
        is_feasible: Whether there is any.

    Raises:
        InfeasibleError: No order that was tried has a plan; the message says which were.
    """
    own, refusal = _try(problem, along_order)
    if problem.analysis is None or problem.allowed is not None or problem.accounting != "live":
        return _must(own, refusal)
    if not problem.topology.links or problem.objective == "custom":
        return _must(own, refusal)
    if problem.costs.rows is not None:  # what machines that share rows take is no sum over nodes
        return _must(own, refusal)
    if problem.objective == "throughput" and not problem.limits and not _has_no_sums(problem):
        widest = widest_of_ideals(problem, own)
        if widest is not None:
            return widest
    optimum = dag_optimum(problem)
    if optimum is not None and problem.queues is None:
        best = _proven(problem, own, optimum)
        if best is not None:
            return best
    if own is None or (problem.costs.size <= LARGE and _has_limits(problem)):
        own = _along_others(problem, own, refusal, optimum, along_order, is_feasible)
    if problem.queues is not None and problem.costs.size <= LARGE:
        return _touched(problem, own)
    bound = None if optimum is None else optimum.value
    return replace(own, bound=bound)


def _touched(problem: Problem, best: Solution) -> Solution:
    """With waiting: the plan, or a better one that a minimum cut along its tangents finds."""
    bound: float | None = None
    for _ in range(_TOUCHES):
        figures = problem.in_order(best.order).figures(best.cuts)
        optimum = tangent_optimum(problem, figures)
        if optimum is None:
            break
        bound = optimum.value if bound is None else max(bound, optimum.value)
        if not gap_above(bound, problem, figures):
            return replace(best, optimality="dag", bound=bound)
        other = Solution.of_sets(optimum.sets, problem.costs.size, best.evaluated + 1)
        there = problem.in_order(other.order)
        theirs = there.figures(other.cuts)
        if there.violations(theirs) or not problem.is_better(theirs, figures):
            break
        best = replace(other, optimality="order")
    return replace(best, bound=bound)


def _try(problem: Problem, along_order: Planner) -> tuple[Solution | None, InfeasibleError | None]:
    try:
        return along_order(problem), None
    except InfeasibleError as error:
        return None, error


def _must(found: Solution | None, refusal: InfeasibleError | None) -> Solution:
    if found is None:
        assert refusal is not None, "either there is a plan, or why there is none"
        raise refusal
    return found


def _proven(problem: Problem, own: Solution | None, optimum: DagOptimum) -> Solution | None:
    """The best plan over the DAG, if it keeps the limits: the one at hand where that is as good."""
    if own is not None and not gap_above(optimum.value, problem, problem.figures(own.cuts)):
        return replace(own, optimality="dag", bound=optimum.value)
    best = Solution.of_sets(optimum.sets, problem.costs.size, 1)
    there = problem.in_order(best.order)
    figures = there.figures(best.cuts)
    if there.violations(figures):
        return None
    assert abs(gap_above(optimum.value, there, figures)) <= NO_GAP, "a minimum cut is what it weighs"
    evaluated = 1 if own is None else own.evaluated + 1
    return replace(best, optimality="dag", bound=optimum.value, evaluated=evaluated)


def _has_limits(problem: Problem) -> bool:
    return (
        problem.objective == "throughput"
        or problem.has_rates
        or bool(problem.limits)
        or _has_no_sums(problem)
    )


def _has_no_sums(problem: Problem) -> bool:
    """Whether something is limited that is no sum over nodes and values."""
    is_memory = problem.costs.memory is not None and any(
        t.memory_gb is not None for t in problem.topology.tiers
    )
    is_capped = any(link.max_mb is not None for link in problem.topology.links)
    if problem.costs.rows is not None:
        return True
    return is_memory or is_capped or (problem.rules is not None and problem.rules.counts)


def _along_others(
    problem: Problem,
    own: Solution | None,
    refusal: InfeasibleError | None,
    optimum: DagOptimum | None,
    along_order: Planner,
    is_feasible: Callable[[Problem], bool],
) -> Solution:
    """The best plan along other orders and the one at hand."""
    assert problem.analysis is not None, "only a graph has other orders"
    tried = [f"`{problem.analysis.order}`"]
    best = None if own is None else (own, problem.figures(own.cuts))
    for name, order in _orders(problem, optimum):
        there = problem.in_order(order)
        tried.append(name)
        found, _ = _try(there, along_order) if is_feasible(there) else (None, None)
        if found is None:
            continue
        figures = there.figures(found.cuts)
        if best is None or problem.is_better(figures, best[1]):
            best = replace(found, order=order), figures
    if best is not None:
        return best[0]
    assert refusal is not None, "either there is a plan, or why there is none"
    if problem.rules is not None and problem.rules.contradiction is not None:
        raise refusal
    searched = f"searched along the orders {', '.join(tried)}" if len(tried) > 1 else f"along {tried[0]}"
    raise InfeasibleError(refusal.message, context=searched, hint=refusal.hint)


def _orders(problem: Problem, optimum: DagOptimum | None) -> Iterator[tuple[str, _Order]]:
    """Other orders worth a search, each once, by what they are called."""
    assert problem.analysis is not None, "only a graph has other orders"
    size = problem.costs.size
    places = [node.index for node in problem.analysis.graph.nodes]
    seen = {tuple(range(size))}
    candidates: list[tuple[str, _Order | None]] = []
    candidates.append(("`file`", tuple(sorted(range(size), key=places.__getitem__))))
    if optimum is not None:
        candidates.append(("of the minimum cut", Solution.of_sets(optimum.sets, size, 1).order))
    for measure in _aims(problem):
        found = dag_optimum(problem, measure=measure)
        if found is not None:
            order = Solution.of_sets(found.sets, size, 1).order
            candidates.append((f"of the minimum cut for {measure}", order))
    for name, order in candidates:
        if order is not None and order not in seen:
            seen.add(order)
            yield name, order


def _aims(problem: Problem) -> tuple[Measure, ...]:
    """Figures other than the objective whose minimum cuts may keep what its own breaks."""
    aims = [*problem.limits, "latency", "cost"]
    return tuple(dict.fromkeys(aim for aim in aims if aim != problem.objective))
