"""Whether a plan is of a model, and the model in the order that the plan counts in.

Positions mean nothing without their order. A plan holds a digest of its own, and whoever uses
a plan asks here: the answer is the same nodes in that order, or an error.
"""

from __future__ import annotations

from dataclasses import replace

from dnnsplit_onnx.errors import PlanError
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.identity import model_digest, order_digest, with_order
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.graph.states import parse_states
from dnnsplit_onnx.machines.inputs import InputCode
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.work.analysis import CUSTOM, Analysis, measure
from dnnsplit_onnx.work.orders import in_order, in_order_of
from dnnsplit_onnx.work.pictured import pictured, pictured_graph


def graph_of(plan: Plan, graph: Graph, model: str | None = None) -> Graph:
    """A graph with its nodes in the order that a plan counts them in, and the plan's states.

    Args:
        plan: The plan.
        graph: The plan's model, in whatever order.
        model: The digest of the graph's model, where it is known already.

    Raises:
        PlanError: The plan is of another model, or of one that has changed, or counts in an
            order that cannot be made again.
    """
    given, graph = graph, pictured_graph(graph, _inputs(plan))
    model = model_digest(graph) if model is None or graph is not given else model
    _check_model(plan, graph, model)
    if plan.states is not None:
        pairs = tuple(state.pair for state in graph.states)
        if pairs != plan.states:
            states = parse_states(plan.states or ("none",), graph.inputs, graph.outputs)
            graph = replace(graph, states=states)
    if plan.order_digest is not None and order_digest(graph, model) == plan.order_digest:
        return graph
    ordered = _ordered(plan, graph)
    if plan.order_digest is not None and order_digest(ordered, model) != plan.order_digest:
        raise PlanError(
            f"the plan counts the nodes of `{graph.file.path.name}` in an order that this release does "
            f"not make: `{plan.order}` is another one now",
            hint="plan again",
        )
    return ordered


def analysis_of(plan: Plan, analysis: Analysis) -> Analysis:
    """An analysis in the order that a plan's positions count in.

    Args:
        plan: A plan of the analysis, or of another one of the same model.
        analysis: The analysis, in whatever order.

    Raises:
        PlanError: As for `graph_of`.
    """
    analysis = pictured(analysis, _inputs(plan))
    if plan.order_digest is None and plan.order in (analysis.order, "file"):
        _check_model(plan, analysis.graph, analysis.model_digest)
        return in_order(analysis, plan.order)
    graph = graph_of(plan, analysis.graph, analysis.model_digest)
    if graph.nodes == analysis.graph.nodes:
        return analysis if graph.states == analysis.graph.states else replace(analysis, graph=graph)
    return replace(in_order_of(analysis, graph), order=plan.order)


def _inputs(plan: Plan) -> dict[str, InputCode]:
    """The plan's inputs that are pictures."""
    said = (plan.topology or {}).get("input", {})
    return {name: InputCode(**row) for name, row in said.items()}


def _check_model(plan: Plan, graph: Graph, model: str) -> None:
    """Holds a plan against a model, by the model's digest, or its number of nodes in old plans."""
    name, size = graph.file.path.name, len(graph.nodes)
    counted = plan.figures.stages[-1].stop
    if counted != size:
        raise PlanError(
            f"the plan is of another model than `{name}`: of {counted:,} nodes in place of {size:,}",
            hint="plan again, for this model",
        )
    if plan.model is not None and plan.model.digest not in (None, model):
        raise PlanError(
            f"the plan is of another model than `{name}`, or the model has changed since: operators, "
            "their attributes or shapes differ",
            hint="plan again, for this model",
        )


def _ordered(plan: Plan, graph: Graph) -> Graph:
    """A graph in the order that a plan names or holds."""
    if plan.node_order is not None:
        try:
            return with_order(graph, plan.node_order)
        except ValueError as error:
            raise PlanError(f"the plan's order of nodes is none: {error}", hint="plan again") from None
    if plan.order == CUSTOM:
        raise PlanError(
            "the plan cuts at sets of nodes, in an order of its own that it does not hold",
            hint="plan again, or give `split` the tiers file and the same --at that made it",
        )
    return in_order(replace(measure(graph, bind_shapes(graph)), order=CUSTOM), plan.order).graph
