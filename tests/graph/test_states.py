"""States: what one run hands to the next, and which cuts that leaves."""

from __future__ import annotations

import re
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.errors import CutError, InputError
from dnnsplit_onnx.graph.graph import Graph, load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.graph.states import State, named_states, parse_states
from dnnsplit_onnx.machines.topology import parse_topology
from dnnsplit_onnx.models import write_model
from dnnsplit_onnx.planning.choosing import plan, problem_of
from dnnsplit_onnx.planning.planners import get_planner
from dnnsplit_onnx.work.analysis import measure
from dnnsplit_onnx.work.cuts import UNKNOWN, check_states, live_values, parted_states
from tests.dags import parts_a_state, random_workload, with_states

SIZES = {"batch": 1, "sequence": 4, "past_sequence": 12}
TIERS = parse_topology(
    {
        "tier": [{"name": "edge", "gflops": 0.1, "memory_gb": 0.001}, {"name": "cloud", "gflops": 10}],
        "link": [{"bandwidth_mbps": 10}],
    },
    "test",
)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decoder") / "decoder.onnx"
    write_model("tiny_decoder", path)
    return path


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("past_key_values.3.key", "present.3.key"),
        ("past_key_values.3.decoder.value", "present.3.decoder.value"),
        ("past_key_values.3.key", "present_key_values.3.key"),
        ("past_key_self_3", "present_key_self_3"),
        ("past_3", "present_3"),
        ("past.3.key", "present.3.key"),
    ],
)
def test_exporters_names_are_known(given: str, made: str) -> None:
    assert named_states(["input_ids", given], ["logits", made]) == (State(given, made),)


@pytest.mark.parametrize(
    ("given", "made"),
    [("past_3", "present_2"), ("pasta_3", "presenta_3"), ("repast_0", "represent_0"), ("x", "present")],
)
def test_other_names_are_not(given: str, made: str) -> None:
    assert named_states([given], [made]) == ()


def test_states_that_a_user_names() -> None:
    inputs, outputs = ["x", "h", "c=1"], ["y", "hn", "cn"]
    assert parse_states(["h=hn", "c=1=cn"], inputs, outputs) == (State("h", "hn"), State("c=1", "cn"))
    assert parse_states(["none"], inputs, outputs) == ()
    for wrong, what in [
        ("h", "cannot read"),
        ("g=hn", "no input `g`"),
        ("h=gn", "no output `gn`"),
    ]:
        with pytest.raises(InputError, match=what):
            parse_states([wrong], inputs, outputs)
    with pytest.raises(InputError, match="another state"):
        parse_states(["h=hn", "x=hn"], inputs, outputs)


def test_a_decoders_caches_cross_no_cut(decoder: Path) -> None:
    graph = load_graph(decoder)
    kept = {state.input for state in graph.states}
    assert len(kept) == 6
    assert graph.fresh_inputs == ("input_ids",)
    assert graph.results == ("logits",)
    for position in range(len(graph.nodes) + 1):
        assert kept.isdisjoint(live_values(graph, position))
    # Where they are plain inputs, every cut below a layer sends what its layer needs.
    plain = load_graph(decoder, ["none"])
    assert kept <= set(live_values(plain, 0))
    sizes = [measure(g, bind_shapes(g, SIZES)).cut_nbytes() for g in (graph, plain)]
    caches = 6 * 4 * 12 * 16 * 4
    assert sizes[1][0] - sizes[0][0] == caches


def test_parted_states_against_the_definition() -> None:
    seen = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        analysis = with_states(rng, random_workload(rng, 7))
        parted = parted_states(analysis.graph)
        for position in range(8):
            assert parted[position] == parts_a_state(analysis, frozenset(range(position)))
        seen += parted.any()
        assert (analysis.cut_nbytes()[parted] == UNKNOWN).all()
        assert not parted[[0, -1]].any()
    assert seen > 10


def test_a_plan_never_parts_a_state_and_is_the_best_that_does_not() -> None:
    topology = parse_topology(
        {
            "tier": [
                {"name": "a", "gflops": 1e-9},
                {"name": "b", "gflops": 3e-9},
                {"name": "c", "gflops": 1e-8},
            ],
            "link": [{"bandwidth_mbps": 1e-5}, {"bandwidth_mbps": 3e-5}],
        },
        "test",
    )
    for seed in range(40):
        rng = np.random.default_rng([seed, 5])
        analysis = with_states(rng, random_workload(rng, 6))
        problem = problem_of(analysis, topology)
        parted = parted_states(analysis.graph)
        chosen = problem.figures(get_planner("exact")(problem).cuts)
        assert not parted[list(chosen.cuts)].any()
        least = min(
            problem.figures(cuts).latency_s
            for cuts in combinations_with_replacement(range(7), 2)
            if not parted[list(cuts)].any()
        )
        assert chosen.latency_s == least


def test_memory_holds_the_states_of_the_layers_it_has(decoder: Path) -> None:
    graph = load_graph(decoder)
    analysis = measure(graph, bind_shapes(graph, SIZES))
    first = 1 + max(at for at, node in enumerate(graph.nodes) if "layer0" in node.name)
    second = 1 + max(at for at, node in enumerate(graph.nodes) if "layer1" in node.name)
    memory = analysis.memory
    kept = set(memory.weight_ids[memory.weight_ends[first] : memory.weight_ends[second]].tolist())
    weights = {name for node in graph.nodes[first:second] for name in node.weights}
    caches = 2 * 4 * 12 * 16 * 4
    expected = sum(analysis.types.need_nbytes(name) for name in weights) + caches
    assert memory.weight_nbytes[sorted(kept)].sum() == expected
    # Every stage has its own layers' caches only, and all of them have all.
    assert memory.nbytes(0, len(graph.nodes)) > 3 * caches
    assert memory.nbytes(first, second) < memory.nbytes(0, second)


def test_cutting_into_a_state_says_where_else_to_cut(decoder: Path) -> None:
    graph = load_graph(decoder)
    inside = int(np.flatnonzero(parted_states(graph))[3])
    with pytest.raises(CutError, match=r"parts state `past_key_values\.0\.key`") as caught:
        plan(graph, TIERS, cuts=[inside], bindings=SIZES)
    named = re.findall(r"nearest cuts are (\d+) and (\d+)", caught.value.hint or "")[0]
    check_states(graph, [int(position) for position in named])


def test_reordering_keeps_the_states(decoder: Path) -> None:
    graph: Graph = load_graph(decoder)
    assert graph.reordered(range(len(graph.nodes))).states == graph.states
