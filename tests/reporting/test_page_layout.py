"""Rows and lanes of the drawn graph: what runs beside a cut is what crosses it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings

from dnnsplit_onnx.graph.graph import Graph, load_graph
from dnnsplit_onnx.reporting.page.axes import Scale, fitted
from dnnsplit_onnx.reporting.page.bands import letter
from dnnsplit_onnx.reporting.page.layout import Layout, lay_out
from dnnsplit_onnx.work.cuts import live_values
from tests.conftest import light
from tests.dags import random_workload
from tests.strategies import generators

BRANCH = """
agraph (float[4] x) => (float[4] y)
{ a = Relu(x) b = Neg(a) c = Exp(b) d = Add(a, c) y = Relu(d) }
"""


def crossing(layout: Layout, position: int) -> set[str]:
    """The values of the wires that run past the cut at a position where a row starts."""
    at = next((i for i, row in enumerate(layout.rows) if row.start == position), len(layout.rows))
    return {value for wire in layout.wires if wire.source < at <= wire.readers[-1] for value in wire.values}


def check(graph: Graph, layout: Layout) -> None:
    """What must hold of every layout."""
    rows = [row for row in layout.rows if not row.value]
    assert [row.value for row in layout.rows if row.value] == list(graph.inputs)
    bounds = [(0, 0), *((row.start, row.stop) for row in rows), (len(graph.nodes),) * 2]
    assert all(one[1] == two[0] for one, two in pairwise(bounds))
    for row in rows:
        assert crossing(layout, row.start) == set(live_values(graph, row.start))
    for at, row in enumerate(layout.rows):
        assert 0 <= row.lane < layout.lanes
        # Nothing runs through the mark of a row.
        assert not any(w.lane == row.lane and w.source < at < w.readers[-1] for w in layout.wires)
    for one, two in pairwise(sorted(layout.wires, key=lambda w: (w.lane, w.source))):
        assert one.lane != two.lane or one.readers[-1] <= two.source


def test_a_branch_has_a_lane_of_its_own(graph_text: Callable[..., Graph]) -> None:
    graph = graph_text(BRANCH)
    layout = lay_out(graph, [0] * 5)
    check(graph, layout)
    assert [row.lane for row in layout.rows] == [0, 0, 1, 1, 0, 0]
    assert layout.lanes == 2


@settings(max_examples=100, deadline=None)
@given(generators)
def test_lanes_are_what_is_live(rng: np.random.Generator) -> None:
    graph = random_workload(rng, int(rng.integers(1, 12))).graph
    stages = sorted(rng.integers(0, 3, len(graph.nodes)).tolist())
    for most_single, most_rows in ((100, 100), (2, 100), (2, 3)):
        layout = lay_out(graph, stages, most_single, most_rows)
        check(graph, layout)
        for row in layout.rows:
            assert row.value or {stages[at] for at in range(row.start, row.stop)} == {row.stage}


@pytest.mark.parametrize("name", ["densenet121", "inception_v2", "resnet50"])
def test_real_models(name: str) -> None:
    graph = load_graph(light(name))
    size = len(graph.nodes)
    stages = [0] * (size // 2) + [1] * (size - size // 2)
    single, chains = lay_out(graph, stages), lay_out(graph, stages, most_single=10)
    check(graph, single)
    check(graph, chains)
    assert sum(not row.value for row in single.rows) == size
    assert len(chains.rows) < 0.6 * size
    few = lay_out(graph, stages, most_single=10, most_rows=20)
    check(graph, few)
    assert len(few.rows) <= 25


def test_scales() -> None:
    scale = Scale(1.0, 1000.0, 0.0, 300.0, is_log=True)
    assert [scale(value) for value in (0.5, 1, 10, 1000, 2000)] == pytest.approx([0, 0, 100, 300, 300])
    assert scale.ticks(10) == pytest.approx([1, 10, 100, 1000])
    assert scale.ticks(2) == pytest.approx([1, 100])
    assert Scale(2.0, 9.0, 0, 1, is_log=True).ticks(4) == pytest.approx([2, 5])
    assert Scale(0.0, 10.0, 0, 1).ticks(4) == pytest.approx([0, 2.5, 5, 7.5, 10])
    assert Scale(3.0, 3.0, 0, 1).ticks(4) == [3.0]


def test_scales_fit_what_they_show() -> None:
    assert fitted([1, 2, 3], 0, 1).is_log is False
    assert fitted([1, 100], 0, 1).is_log is True
    assert fitted([0, 100], 0, 1).is_log is False
    alone = fitted([5], 0, 1)
    assert 0 < alone(5) < 1
    nothing = fitted([0], 0, 1)
    assert nothing.low < nothing.high


def test_letters_go_on() -> None:
    assert [letter(at) for at in (0, 25, 26, 27, 52, 701, 702)] == ["A", "Z", "AA", "AB", "BA", "ZZ", "AAA"]
