"""Pictures of a model and of planners: what they show, labelled, the same each time."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dnnsplit_onnx.graph.graph import Graph, load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.planning.comparing import Comparison, Row
from dnnsplit_onnx.reporting.comparison_plot import plot_comparison
from dnnsplit_onnx.reporting.figure import is_log, plain
from dnnsplit_onnx.reporting.inspect_plot import plot_inspection
from dnnsplit_onnx.work.analysis import measure
from dnnsplit_onnx.work.inspection import Inspection
from dnnsplit_onnx.work.orders import in_order
from tests.conftest import light

pytest.importorskip("matplotlib")


def inspected(graph: Graph, **settings: Any) -> Inspection:
    return Inspection(in_order(measure(graph, bind_shapes(graph)), "envelope"), **settings)


def svg(draw: Callable[..., None], file: Path, of: object) -> str:
    """The text of a picture, which comes out the same when it is drawn again."""
    draw(file, of)
    text = file.read_text(encoding="utf-8")
    draw(file, of, force=True)
    assert file.read_text(encoding="utf-8") == text
    return text


def marks(text: str, colour: str) -> int:
    """How many points are filled or edged with a colour, the legend's not counted apart."""
    return len(re.findall(rf"<use [^>]*(?:fill|stroke): {colour}", text, flags=re.IGNORECASE))


@pytest.mark.parametrize(("accounting", "label"), [("live", "live values"), ("layer-input", "input of one")])
def test_a_model_as_a_curve(tmp_path: Path, accounting: Any, label: str) -> None:
    found = inspected(load_graph(light("squeezenet")), accounting=accounting)
    text = svg(plot_inspection, tmp_path / "m.svg", found)
    for words in ("light_squeezenet.onnx", label, "(bytes)", "work below (FLOP)", "position of the cut"):
        assert words in text
    # Each candidate is marked in both panels, and its kind once in the legend.
    best = len(set(found.candidates) & set(found.envelope))
    others = len(found.candidates) - best
    assert marks(text, "#d55e00") == 2 * best + bool(best)
    assert marks(text, "#0072b2") == 2 * others + bool(others)
    assert ("candidate on the envelope" in text) is bool(best)


SYMBOLIC = "g (float[n, 4] x) => (float[n, 4] y) { a = Relu (x) y = Neg (a) }"
ONE_NODE = "g (float[2] x) => (float[2] y) { y = Relu (x) }"
UNCOUNTED = "g (float[2] x) => (float[2] y) { y = my.Thing (x) }"
HEADER = 'ir_version: 8, opset_import: ["" : 17, "my" : 1]'


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (SYMBOLIC, "no cut has a known size"),
        (ONE_NODE, "work below (FLOP)"),
        (UNCOUNTED, "counted work below (FLOP)"),
    ],
)
def test_models_of_which_little_is_known(
    graph_text: Callable[..., Graph], tmp_path: Path, body: str, words: str
) -> None:
    graph = graph_text(body, header=HEADER, name="a$b$.onnx")
    text = svg(plot_inspection, tmp_path / "m.svg", inspected(graph))
    assert words in text
    assert "a$b$.onnx" in text  # not a formula


def row(planner: str, value: float | None, **changes: Any) -> Row:
    settings = {"gap": None, "feasible": value is not None, "violations": (), "seconds": 1e-3} | changes
    cuts = None if value is None else (3,)
    return Row(planner, cuts, True, value, optimality="none", evaluated=1, **settings)


ROWS = (
    row("exact", 0.1, gap=0.0),
    row("slow", 0.15, gap=0.5, seconds=2.0),
    row("cheat", 0.05, gap=-0.5, feasible=False, violations=("too much",)),
    row("lost", None, reason="not for three tiers"),
)


def test_planners_beside_the_optimum(tmp_path: Path) -> None:
    found = Comparison("latency", ROWS, lower_bound=0.1, bound_gap=0.0)
    text = svg(plot_comparison, tmp_path / "c.svg", found)
    for words in ("exact", "slow", "cheat", "lost", "no plan", "+50.0%", "latency (s)", "planning time (s)"):
        assert f">{words}<" in text
    assert "optimum (proven)" in text
    assert "bound for any plan" not in text
    assert "keeps the limits" in text
    assert "breaks a limit" in text
    # Which planner took how long is known even where there is no plan.
    assert marks(text, "#e69f00") == 2  # the one that breaks a limit, and the legend's


@pytest.mark.parametrize(("gap", "drawn"), [(0.2, True), (3.0, False)])
def test_a_bound_is_drawn_where_it_says_something(tmp_path: Path, gap: float, drawn: bool) -> None:
    found = Comparison("throughput", (row("exact", 10.0, gap=0.0),), lower_bound=0.08, bound_gap=gap)
    text = svg(plot_comparison, tmp_path / "c.svg", found)
    assert "best found" in text
    assert "optimum (proven)" not in text
    assert ("bound for any plan" in text) is drawn
    assert "throughput (requests/s)" in text


def test_planners_that_all_fail(tmp_path: Path) -> None:
    found = Comparison("cost", (row("a", None, seconds=0.0), row("b", None)))
    text = svg(plot_comparison, tmp_path / "c.svg", found)
    assert text.count(">no plan<") == 2
    assert "best found" not in text


def test_values_far_apart_are_on_a_logarithmic_axis() -> None:
    assert is_log([1.0, 60.0])
    assert not is_log([1.0, 40.0])
    assert not is_log([0.0, 60.0])
    assert not is_log([])


def test_names_are_no_formulas() -> None:
    assert plain("a$b\n") == r"a\$b?"
