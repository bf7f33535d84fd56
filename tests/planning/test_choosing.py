"""`plan` and what it is made of: what goes into a plan, and what of it may be left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dnnsplit_onnx.errors import CutError, ShapeError
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.graph.states import State
from dnnsplit_onnx.machines.tiers_file import parse_topology
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning import choosing
from dnnsplit_onnx.planning.choosing import plan, plan_of, problem_of, single_tiers
from dnnsplit_onnx.planning.fitting import analysis_of
from dnnsplit_onnx.planning.problem import Solution
from dnnsplit_onnx.planning.weights import Weights
from dnnsplit_onnx.work.analysis import Analysis, measure

# x (4,000 bytes) -> a (4,000) -> c (4,000) -> b (40) -> e (4,000) -> y, with x going around a.
MODEL = """
m (float[1000] x) => (float[100, 10] y)
<int64[1] s = {10}, int64[1] zero = {0}, int64[2] wide = {100, 10}>
{
    a = Exp(x)
    c = Add(a, x)
    b = Slice(c, zero, s)
    e = Expand(b, wide)
    y = Exp(e)
}
"""
FLOPS = [1000, 1000, 0, 0, 1000]
# A second of the edge costs 1 USD and takes 2 J, one of the cloud 10 USD and 20 J.
TIERS = [
    {"name": "edge", "gflops": 1e-6, "usd_per_hour": 3600, "watts": 2},
    {"name": "cloud", "gflops": 1e-5, "usd_per_hour": 36000, "watts": 20},
]
LINK = {"bandwidth_mbps": 0.008, "watts": 0}  # 1,000 byte/s


def tiers(**more: Any) -> Topology:
    return parse_topology({"tier": TIERS, "link": [LINK]} | more, "tiers.toml")


@pytest.fixture
def analysis(graph_text) -> Analysis:
    graph: Graph = graph_text(MODEL)
    return measure(graph, bind_shapes(graph))


def test_all_that_a_plan_says(analysis) -> None:
    made = plan(analysis.graph, tiers(limits={"deadline_ms": 3000}), weights={"latency": 1, "cost": 2})
    assert analysis.flops.tolist() == FLOPS
    # Two seconds on the edge, 40 bytes in 0.04 s, and 0.1 s on the cloud.
    assert (made.cuts, made.planner, made.objective, made.order) == ((3,), "exact", "latency", "envelope")
    assert made.figures.latency_s == pytest.approx(2.14)
    assert made.figures.cost_usd == pytest.approx(3)
    assert made.figures.weighted == pytest.approx(2.14 + 2 * 3)
    assert (made.feasible, made.violations, made.optimality) == (True, (), "dag")
    assert made.lower_bound == pytest.approx(2.14)
    assert made.gap == 0
    assert made.evaluated > 1
    assert made.limits["deadline_ms"] == 3000
    assert None not in made.limits.values()
    assert made.weights == Weights.of({"latency": 1, "cost": 2})
    assert made.cost_models == ("gflops", "gflops")
    assert made.topology == tiers(limits={"deadline_ms": 3000}).model_dump(
        mode="json", by_alias=True, exclude_defaults=True
    )
    assert made.figures.links[0].values == ("b",)
    assert (made.notes, made.bindings, made.permutation) == ((), {}, None)
    assert [point.cuts for point in made.pareto]


def test_numbers_for_dimensions_stay_with_the_plan(graph_text) -> None:
    graph = graph_text("m (float[n] x) => (float[n] y) { y = Exp(x) }")
    made = plan(graph, tiers(), bindings={"n": 500})
    assert made.bindings == {"n": 500}
    # 0.5 s on the edge; the cloud would wait 2 s for the input.
    assert made.cuts == (1,)
    assert made.figures.latency_s == pytest.approx(0.5)


def test_the_front_and_the_bound_can_be_left_out(analysis) -> None:
    whole = plan(analysis, tiers())
    for made in (
        plan(analysis, tiers(), pareto=False, bound=False),
        plan_of(problem_of(analysis, tiers()), pareto=False, bound=False),
    ):
        assert (made.pareto, made.lower_bound, made.gap, made.optimality) == ((), None, None, "dag")
        assert made.figures == whole.figures


def test_there_is_a_front_and_a_bound_unless_somebody_says_no(analysis) -> None:
    made = plan_of(problem_of(analysis, tiers()))
    assert made.pareto
    assert made.planner == "exact"
    assert made.lower_bound is not None


def test_cuts_of_the_user_are_priced_and_no_more(analysis) -> None:
    made = plan(analysis, tiers(limits={"deadline_ms": 2500}), cuts=[1])
    # One second, 8,000 bytes, and 2,000 FLOPs above.
    assert made.figures.latency_s == pytest.approx(1 + 8 + 0.2)
    assert (made.cuts, made.planner, made.optimality, made.evaluated) == ((1,), "at", "none", 1)
    assert (made.pareto, made.lower_bound, made.gap) == ((), None, None)
    assert not made.feasible
    assert len(made.violations) == 1
    assert made.figures.links[0].values == ("x", "a")


def test_the_papers_accounting_has_no_bound(analysis) -> None:
    made = plan(analysis, tiers(), accounting="layer-input")
    assert (made.accounting, made.lower_bound, made.gap) == ("layer-input", None, None)
    assert made.optimality != "dag"
    # The cloud's node reads the 40 bytes of b, and the two constants of the slice are no values.
    assert made.figures.links[0].values == ("b",)
    given = plan(analysis, tiers(), accounting="layer-input", cuts=[2])
    assert given.figures.links[0].values == ("c",)


def test_cuts_that_part_a_state_are_refused(analysis) -> None:
    stateful = replace(analysis, graph=replace(analysis.graph, states=(State("x", "y"),)))
    with pytest.raises(CutError, match="cut 2 parts state `x`"):
        plan(stateful, tiers(), cuts=[2])


def test_everything_on_one_tier(analysis) -> None:
    problem = problem_of(analysis, tiers(limits={"deadline_ms": 3000}), "weighted", weights={"energy": 1})
    edge, cloud = single_tiers(problem)
    assert (edge.tier, cloud.tier) == ("edge", "cloud")
    assert (edge.feasible, cloud.feasible) == (True, False)
    assert edge.latency_s == pytest.approx(3)
    assert cloud.latency_s == pytest.approx(4 + 0.3)
    assert (edge.cost_usd, cloud.cost_usd) == (pytest.approx(3), pytest.approx(3))
    assert (edge.energy_j, cloud.energy_j) == (pytest.approx(6), pytest.approx(6))
    assert edge.throughput_per_s == pytest.approx(1 / 3)
    assert cloud.throughput_per_s == pytest.approx(1 / 4)
    assert edge.weighted == edge.energy_j


def test_an_exact_planner_that_breaks_a_limit_is_caught(analysis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "planner_of", lambda name: (name, lambda _: Solution((0,), "order", 1)))
    limited = tiers(limits={"deadline_ms": 2500})
    with pytest.raises(AssertionError, match="planner `exact` chose a plan that breaks its limits"):
        plan(analysis, limited)
    # The published ones know no limits: their plans are said to break them.
    assert not plan(analysis, limited, planner="neurosurgeon").feasible


@pytest.mark.parametrize("weights", [{"latency": 2.0}, Weights.of({"latency": 2.0})])
def test_weights_are_numbers_by_name_or_weights(analysis, weights) -> None:
    assert problem_of(analysis, tiers(), weights=weights).weights == Weights.of({"latency": 2.0})


def test_an_input_of_open_size_is_for_the_user_to_bind(graph_text) -> None:
    graph = graph_text("m (float[n] x) => (float[n] y) { a = Exp(x) y = Exp(a) }")
    unbound = measure(graph, bind_shapes(graph))
    with pytest.raises(ShapeError, match="cannot size value `x`") as refused:
        plan(unbound, tiers())
    assert refused.value.hint == "pass --bind n=1"
    # One tier sends nothing; bytes of the user's own make it known.
    alone = parse_topology({"tier": TIERS[:1]}, "tiers.toml")
    assert plan(unbound, alone).cuts == ()
    assert plan(unbound, tiers(input_nbytes={"x": 8})).feasible


def test_sizes_that_data_decide_rule_out_their_cuts_alone(graph_text) -> None:
    graph = graph_text(
        "m (float[1000] x) => (int64[1, n] y) { a = Exp(x) b = NonZero(a) c = Neg(b) y = Abs(c) }"
    )
    made = plan(graph, tiers())
    assert made.cuts in {(0,), (1,), (4,)}


def test_inputs_of_other_sizes_are_said(analysis, graph_text) -> None:
    (note,) = plan(analysis, tiers(input_nbytes={"x": 1234})).notes
    assert note == (
        "input `x` is priced as 1,234 bytes on a link (`input_nbytes`); the runtime sends its tensor, "
        "4,000 bytes"
    )
    graph = graph_text("m (float[n] x) => (float[n] y) { a = Exp(x) y = Exp(a) }")
    unbound = measure(graph, bind_shapes(graph))
    (note,) = plan(unbound, tiers(input_nbytes={"x": 8})).notes
    assert note.endswith("the runtime sends its tensor")
    alone = parse_topology({"tier": TIERS[:1], "input_nbytes": {"x": 8}}, "tiers.toml")
    assert plan(graph, alone).notes == ()


# a and b are made first and travel last: no prefix of this order keeps only c's ten below.
CROSSED = """
m (float[10] p, float[1000] q) => (float[1000] y)
<int64[1] s = {1000}>
{
    a = Expand(p, s)
    b = ReduceSum <keepdims = 1> (q)
    c = Exp(a)
    y = Add(c, b)
}
"""


def test_a_plan_of_its_own_order_leads_back_to_the_workload(graph_text) -> None:
    graph = graph_text(CROSSED)
    analysis = measure(graph, bind_shapes(graph))
    made = plan(analysis, tiers(), cuts=[1])
    assert analysis_of(made, analysis) is analysis
    moved = plan(analysis, tiers(), cuts=["q+b"])
    assert (moved.cuts, moved.order, moved.node_order) == ((1,), "custom", (1, 0, 2, 3))
    again = analysis_of(moved, analysis)
    assert [node.outputs[0] for node in again.graph.nodes] == ["b", "a", "c", "y"]
    assert again.flops.tolist() == [analysis.flops.tolist()[at] for at in (1, 0, 2, 3)]
