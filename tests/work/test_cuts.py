"""Cuts: live values against brute force, the paper's accounting, the staircase."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnnsplit_onnx.errors import CutError
from dnnsplit_onnx.graph.graph import Graph, load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.graph.states import State
from dnnsplit_onnx.work.cuts import (
    UNKNOWN,
    check_states,
    crossing_values,
    cut_nbytes,
    fed_back,
    live_values,
    live_values_of_all,
    outputs_above,
    parted_states,
    staircase,
)
from tests.conftest import LIGHT, light


def brute_force_live(graph: Graph, position: int) -> set[str]:
    below, above = graph.nodes[:position], graph.nodes[position:]
    made = set(graph.inputs).union(*(node.outputs for node in below))
    return made.intersection(*[set().union(*(node.inputs for node in above))])


@pytest.mark.parametrize("path", sorted(LIGHT.glob("*.onnx")), ids=lambda path: path.stem)
def test_live_values_are_those_made_below_and_read_above(path):
    graph = load_graph(path)
    types = bind_shapes(graph)
    nbytes = cut_nbytes(graph, types.nbytes)
    everywhere = list(live_values_of_all(graph))
    assert len(nbytes) == len(everywhere) == len(graph.nodes) + 1
    for position in range(0, len(graph.nodes) + 1, 7):
        expected = brute_force_live(graph, position)
        assert set(live_values(graph, position)) == set(everywhere[position]) == expected
        assert nbytes[position] == sum(types.need_nbytes(value) for value in expected)


def candidates_in_elements(name: str, accounting: str) -> list[int]:
    graph = load_graph(light(name))
    nbytes = cut_nbytes(graph, bind_shapes(graph).nbytes, accounting)
    return [int(nbytes[at]) // 4 for at in staircase(nbytes)]


def test_resnet50_has_the_candidates_counted_by_hand():
    assert candidates_in_elements("resnet50", "live") == [150528, 100352, 2048, 1000]
    assert candidates_in_elements("resnet50", "layer-input") == [150528, 100352, 50176, 25088, 2048, 1000]


def test_a_value_with_many_readers_crosses_once(graph_text):
    graph = graph_text(
        """g (float[8] x) => (float[8] y)
        { a = Relu (x)
          b = Neg (a)
          c = Add (a, b)
          y = Add (c, a) }"""
    )
    size = bind_shapes(graph).nbytes
    assert live_values(graph, 2) == ("a", "b")
    assert cut_nbytes(graph, size).tolist() == [32, 32, 64, 64, 0]
    assert cut_nbytes(graph, size, "layer-input").tolist() == [32, 32, 64, 64, 0]
    assert crossing_values(graph, 1, "layer-input") == ("a",)
    assert crossing_values(graph, 4, "layer-input") == ()


def test_the_layer_input_accounting_forgets_the_skip(graph_text):
    graph = graph_text(
        """g (float[8] x) => (float[8] y)
        { a = Relu (x)
          b = Neg (a)
          c = Abs (b)
          y = Add (c, a) }"""
    )
    size = bind_shapes(graph).nbytes
    assert cut_nbytes(graph, size)[2] == 64
    assert cut_nbytes(graph, size, "layer-input")[2] == 32


def test_outputs_do_not_cross_unless_they_are_read_above(graph_text):
    graph = graph_text(
        """g (float[8] x) => (float[8] a, float[8] y)
        { a = Relu (x)
          b = Neg (x)
          y = Add (a, b) }"""
    )
    assert live_values(graph, 1) == ("x", "a")
    assert outputs_above(graph, bind_shapes(graph).nbytes).tolist() == [64, 32, 32, 0]


def test_an_unread_input_never_crosses(graph_text):
    graph = graph_text("g (float[8] x, float[99] unused) => (float[8] y) { y = Relu (x) }")
    assert live_values(graph, 0) == ("x",)


def test_cuts_of_unknown_size_say_so(graph_text):
    graph = graph_text(
        """g (float[8] x) => (int64[1, n] y)
        { a = Relu (x)
          b = NonZero (a)
          c = Neg (b)
          y = Abs (c) }"""
    )
    nbytes = cut_nbytes(graph, bind_shapes(graph).nbytes)
    assert nbytes.tolist() == [32, 32, UNKNOWN, UNKNOWN, 0]
    assert staircase(nbytes) == (0,)
    assert outputs_above(graph, bind_shapes(graph).nbytes).tolist() == [UNKNOWN] * 4 + [0]


@given(st.lists(st.integers(-1, 9), min_size=1, max_size=30), st.integers(0, 5))
def test_the_staircase_is_where_bytes_fall_below_all_before(sizes, start):
    expected = [
        at
        for at, nbytes in enumerate(sizes)
        if at >= start and nbytes != UNKNOWN
        and all(before == UNKNOWN or nbytes < before for before in sizes[start:at])
    ]  # fmt: skip
    assert list(staircase(np.array([*sizes, 0]), start)) == expected


def test_bytes_are_whole_numbers_of_64_bits(graph_text):
    graph = graph_text(
        """g (float[8] x) => (float[8] a, float[0] b)
        <int64[1] z = {0}>
        { a = Relu (x)
          b = Slice (a, z, z) }"""
    )
    size = bind_shapes(graph).nbytes
    for nbytes in (cut_nbytes(graph, size), outputs_above(graph, size)):
        assert nbytes.dtype == np.int64
    assert outputs_above(graph, size).tolist() == [32, 0, 0]  # b has no bytes
    huge = cut_nbytes(graph, {"x": 2**53 + 1, "a": 1}.get)
    assert huge.tolist() == [2**53 + 1, 1, 0]
    assert outputs_above(graph, {"a": 2**53 + 1, "b": 0}.get).tolist() == [2**53 + 1, 0, 0]


def test_each_accounting_charges_its_values(graph_text):
    graph = graph_text(
        "g (float[8] x) => (float[8] y) { a = Relu (x) b = Neg (a) c = Abs (b) y = Add (c, a) }"
    )
    assert crossing_values(graph, 2) == crossing_values(graph, 2, "live") == ("a", "b")
    assert crossing_values(graph, 2, "layer-input") == ("b",)
    assert crossing_values(graph, 4) == ()


# Nodes 1, 2 and 4 keep the state `s`: two read it, the last makes it.
STATEFUL = """g (float[8] x, float[8] s) => (float[8] y, float[8] t)
    { a = Relu (x)
      b = Add (a, s)
      c = Mul (b, s)
      d = Neg (c)
      t = Add (c, d)
      y = Abs (d) }"""


@pytest.fixture
def stateful(graph_text) -> Graph:
    return replace(graph_text(STATEFUL), states=(State("s", "t"),))


def test_a_state_is_kept_by_its_readers_and_never_travels_down(stateful):
    assert [ends for _, *ends in fed_back(stateful)] == [[(1, 2), 4]]
    assert parted_states(stateful).tolist() == [False, False, True, True, True, False, False]
    assert "s" not in live_values(stateful, 0)
    assert live_values(replace(stateful, states=()), 0) == ("x", "s")


@pytest.mark.parametrize("position", [2, 3, 4])
def test_a_cut_that_parts_a_state_is_refused_wherever_it_is(stateful, position):
    with pytest.raises(CutError) as refused:
        check_states(stateful, [0, position])
    assert refused.value.message == f"cut {position} parts state `s` from `t`"
    assert refused.value.context == (
        "a state never travels down: what reads it runs where it is made, or above"
    )
    assert refused.value.hint == "the nearest cuts are 1 and 5; or --state none sends it each time"


def test_the_state_that_is_parted_is_the_one_that_is_named(graph_text):
    graph = graph_text(
        """g (float[8] x, float[8] s, float[8] u) => (float[8] y, float[8] t, float[8] v)
        { a = Add (x, s)
          t = Neg (a)
          b = Add (t, u)
          v = Abs (b)
          y = Relu (v) }"""
    )
    both = replace(graph, states=(State("s", "t"), State("u", "v"), State("x", "gone"), State("no", "gone")))
    with pytest.raises(CutError, match="cut 3 parts state `u`") as refused:
        check_states(both, [3])
    assert refused.value.hint is not None
    assert "cuts are 2 and 4" in refused.value.hint
    with pytest.raises(CutError, match="cut 1 parts state `s`"):
        check_states(both, [1])


def test_whole_cuts_and_graphs_without_states_pass(stateful):
    check_states(stateful, [0, 1, 5, 6])
    check_states(stateful, [-1, 7, 100])  # no cuts at all: that is for others to say
    check_states(replace(stateful, states=()), [2, 3, 4])


def test_the_staircase_of_nothing_is_empty():
    assert staircase(np.array([0])) == ()
    assert staircase(np.array([5, 3, 0]), 2) == ()
