"""`input_nbytes` of a tiers file: inputs that take other bytes on a link than in memory."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dnnsplit_onnx.errors import TopologyError
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.machines.tiers_file import load_topology, parse_topology
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.choosing import plan, problem_of
from dnnsplit_onnx.planning.costs import cost_table, on_links
from dnnsplit_onnx.planning.planners import get_planner
from dnnsplit_onnx.planning.planners.dag import dag_optimum
from dnnsplit_onnx.work.analysis import Analysis, measure
from dnnsplit_onnx.work.cuts import UNKNOWN
from dnnsplit_onnx.work.envelope import envelope
from dnnsplit_onnx.work.orders import in_order
from tests.dags import closed_sets, random_workload
from tests.strategies import random_topology

# image -> a -> c -> b -> e -> y, and the image goes around a to c.
MODEL = """
m (float[1000] image) => (float[200] y)
<int64[1] s = {200}>
{
    a = Exp(image)
    c = Add(a, image)
    b = ReduceMax <keepdims = 1> (c)
    e = Expand(b, s)
    y = Exp(e)
}
"""
# Bytes at each cut: image; a and image; c; b; e; nothing.
RAW = [4000, 8000, 4000, 4, 800, 0]


@pytest.fixture
def analysis(graph_text) -> Analysis:
    graph: Graph = graph_text(MODEL)
    return measure(graph, bind_shapes(graph))


def tiers(**more: Any) -> Topology:
    """1,000 FLOP/s on the edge, 2,000 above; a link of 1,000 byte/s."""
    table = {
        "tier": [{"name": "edge", "gflops": 1e-6}, {"name": "cloud", "gflops": 2e-6}],
        "link": [{"bandwidth_mbps": 0.008}],
    }
    return parse_topology(table | more, "tiers.toml")


def test_a_hand_example(analysis) -> None:
    flops = analysis.flops.tolist()
    raw = plan(analysis, tiers())
    assert raw.cuts == (3,)  # it would take 4 s to send the image, and b takes 0.004 s
    assert raw.figures.latency_s == pytest.approx(sum(flops[:3]) / 1000 + 0.004 + sum(flops[3:]) / 2000)
    encoded = plan(analysis, tiers(input_nbytes={"image": 250}))
    assert encoded.cuts == (0,)
    assert encoded.figures.links[0].nbytes == 250
    assert encoded.figures.latency_s == pytest.approx(0.25 + sum(flops) / 2000)
    assert [row.latency_s for row in encoded.single_tier] == pytest.approx(
        [sum(flops) / 1000, 0.25 + sum(flops) / 2000]
    )
    assert any("250 bytes" in note and "4,000 bytes" in note for note in encoded.notes)
    assert not raw.notes


def test_each_cut_that_the_input_crosses_has_its_new_size(analysis) -> None:
    encoded = tiers(input_nbytes={"image": 250})
    assert cost_table(analysis, tiers()).up_nbytes.tolist() == RAW
    assert cost_table(analysis, encoded).up_nbytes.tolist() == [250, 4250, 4000, 4, 800, 0]
    assert cost_table(analysis, encoded, "layer-input").up_nbytes.tolist() == [250, 4250, 4000, 4, 800, 0]
    problem = problem_of(analysis, encoded)
    assert problem.candidates == (0, 3, 5)
    assert problem.analysis is not None
    assert problem.analysis.candidates == (0, 3)


def test_memory_holds_the_tensor(analysis) -> None:
    raw, encoded = cost_table(analysis, tiers()), problem_of(analysis, tiers(input_nbytes={"image": 1})).costs
    assert raw.memory is not None
    assert encoded.memory is not None
    for start, stop in itertools.combinations(range(6), 2):
        assert encoded.memory.nbytes(start, stop) == raw.memory.nbytes(start, stop)
    again = on_links(analysis, tiers(input_nbytes={"image": 1}))
    assert again.memory.held.tolist() == raw.memory.held.tolist()


def test_the_order_stays_a_function_of_the_model(graph_text) -> None:
    graph = graph_text(
        """m (float[4] x, float[4] z) => (float[4] y)
        { a = Exp(x) b = Exp(z) c = Add(a, b) d = Exp(x) y = Add(c, d) }"""
    )
    analysis = measure(graph, bind_shapes(graph))
    sized = replace(analysis, input_nbytes={"x": 1_000_000})
    assert in_order(sized, "envelope").graph.nodes == in_order(analysis, "envelope").graph.nodes
    assert in_order(sized, "envelope").input_nbytes == {"x": 1_000_000}
    assert envelope(sized) != envelope(analysis)


def test_the_topology_decides(analysis) -> None:
    sized = on_links(analysis, tiers(input_nbytes={"image": 250}))
    assert on_links(sized, tiers()).cut_nbytes().tolist() == RAW
    assert on_links(analysis, tiers()) is analysis


@pytest.mark.parametrize("accounting", ["live", "layer-input"])
@pytest.mark.parametrize("objective", ["latency", "cost", "throughput"])
def test_exact_is_exhaustive_with_the_key(objective, accounting) -> None:
    changed = 0
    for seed in range(40):
        analysis, topology = random_case(seed)
        problem = problem_of(analysis, topology, objective, accounting)
        best = problem.figures(get_planner("exhaustive")(problem).cuts).value(objective)
        solution = get_planner("exact")(problem)
        found = problem.in_order(solution.order).figures(solution.cuts).value(objective)
        if objective == "throughput":  # over all sets of the DAG, where the other searches one order
            assert found >= best * (1 - 1e-9)
        else:
            assert found == pytest.approx(best)
        raw = problem_of(analysis, topology.model_copy(update={"input_nbytes": {}}), objective, accounting)
        changed += raw.figures(get_planner("exact")(raw).cuts).value(objective) != pytest.approx(best)
    assert changed >= 3  # the key is of consequence


def test_the_bound_over_the_dag_has_the_same_sizes() -> None:
    below_raw = 0
    for seed in range(60):
        analysis, topology = random_case(seed, count=2)
        problem = problem_of(analysis, topology)
        found = dag_optimum(problem, problem.analysis)
        assert found is not None
        assert found.value == pytest.approx(min(seconds(below, problem) for below in closed_sets(analysis)))
        raw = problem_of(analysis, topology.model_copy(update={"input_nbytes": {}}))
        other = dag_optimum(raw, raw.analysis)
        below_raw += other is not None and other.value != pytest.approx(found.value)
    assert below_raw > 5


def random_case(seed: int, count: int = 3) -> tuple[Analysis, Topology]:
    """A random graph, and a topology on which its inputs have other sizes."""
    rng = np.random.default_rng(seed)
    analysis = random_workload(rng, int(rng.integers(2, 7)))
    topology = random_topology(rng, count)
    rows = [tier.model_copy(update={"gflops": tier.gflops / 1e4}) for tier in topology.tiers]
    links = [link.model_copy(update={"delay_ms": 0.0}) for link in topology.links]
    sizes = {name: int(rng.integers(1, 20)) for name in analysis.graph.inputs if rng.random() < 0.8}
    limits = topology.limits.model_copy(update={"return_output": False})
    changes = {"tiers": tuple(rows), "links": tuple(links), "input_nbytes": sizes, "limits": limits}
    return analysis, topology.model_copy(update=changes)


def seconds(below: frozenset[int], problem: Any) -> float:
    """The latency of two tiers for any downward-closed set, from the design's section 3."""
    analysis, topology = problem.analysis, problem.topology
    graph, sizes = analysis.graph, topology.input_nbytes
    total = 0.0
    for at, flops in enumerate(analysis.flops.tolist()):
        total += flops / (topology.tiers[0 if at in below else 1].gflops * 1e9)
    there = {*graph.inputs, *(value for at in below for value in graph.nodes[at].outputs)}
    above = [node for at, node in enumerate(graph.nodes) if at not in below]
    crossing = there.intersection(value for node in above for value in node.inputs)
    nbytes = sum(sizes.get(value, analysis.types.nbytes(value)) for value in crossing)
    return total + 8 * nbytes / (topology.links[0].bandwidth_mbps * 1e6)


def test_a_given_size_stands_in_for_an_open_one(graph_text) -> None:
    graph = graph_text("m (float[n] x) => (float[1] y) { b = ReduceMax <keepdims = 1> (x) y = Neg(b) }")
    analysis = measure(graph, bind_shapes(graph))
    assert cost_table(analysis, tiers()).up_nbytes[0] == UNKNOWN
    made = plan(analysis, tiers(input_nbytes={"x": 77}), cuts=[0])
    assert made.figures.links[0].nbytes == 77


def test_unknown_inputs_are_refused(analysis) -> None:
    with pytest.raises(TopologyError, match="`imag`") as caught:
        plan(analysis, tiers(input_nbytes={"imag": 5}))
    assert caught.value.hint == "did you mean `image`?"
    with pytest.raises(TopologyError, match="`c`, which is no input") as caught:
        cost_table(analysis, tiers(input_nbytes={"c": 5}))  # a value, but made by a node
    assert caught.value.hint == "its inputs are image"


@pytest.mark.parametrize(
    ("value", "said"),
    [("0", "greater than 0"), ("-3", "greater than 0"), ("1.5", "integer"), ("true", "integer"),
     ('"9"', "integer"), ("nan", "integer")],
)  # fmt: skip
def test_sizes_are_positive_whole_numbers(tmp_path, value, said) -> None:
    path = tmp_path / "tiers.toml"
    path.write_text(f'[[tier]]\nname = "only"\ngflops = 1\n[input_nbytes]\n"in.0" = {value}\n')
    with pytest.raises(TopologyError, match=rf"`input_nbytes\.in\.0` = .*{said}"):
        load_topology(path)
