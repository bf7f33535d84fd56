"""Cuts: live values against brute force, the paper's accounting, the staircase."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnnsplit_onnx.cuts import (
    UNKNOWN,
    crossing_values,
    cut_nbytes,
    live_values,
    live_values_of_all,
    outputs_above,
    staircase,
)
from dnnsplit_onnx.graph import Graph, load_graph
from dnnsplit_onnx.shapes import bind_shapes
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
