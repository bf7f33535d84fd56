"""Cuts by position, by value name, by node name, and by sets of names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx.parser
import pytest

from dnnsplit_onnx.errors import CutError
from dnnsplit_onnx.graph.cut_names import ancestors, resolve_cut, resolve_cuts
from dnnsplit_onnx.graph.graph import Graph, load_graph

TWO_ARMS = """g (float[3] x) => (float[3] y) <float[3] w = {1.0, 2.0, 3.0}> {
    [left0] a = Relu(x)
    [right0] b = Tanh(x)
    [left1] c = Mul(a, w)
    [right1] d = Neg(b)
    [join] y = Add(c, d)
}"""


@pytest.fixture
def graph(graph_text: Callable[..., Graph]) -> Graph:
    return graph_text(TWO_ARMS)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("0", 0),
        ("5", 5),
        (" 3 ", 3),
        ("x", 0),
        ("c", 3),
        ("left1", 3),
        ("value:c", 3),
        ("node:join", 5),
        ("y", 5),
    ],
)
def test_one_cut(graph: Graph, text: str, position: int) -> None:
    assert resolve_cut(graph, text) == position
    assert resolve_cuts(graph, [text]) == (graph, (position,))


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("6", "no position 6", "0 to 5"),
        ("-1", "no position -1", "0 to 5"),
        ("lefty0", "no node or value `lefty0`", "did you mean `left0`"),
        ("zzzz", "no node or value `zzzz`", "inspect"),
        ("w", "`w` is a weight", "depends on the model's inputs"),
        ("node:c", "no node or value `c`", "did you mean"),
        ("1+2", "joins positions", "one --at for each link"),
        ("a+zzzz", "no node or value `zzzz`", "inspect"),
    ],
)
def test_not_a_cut(graph: Graph, text: str, message: str, hint: str) -> None:
    with pytest.raises(CutError, match=message) as caught:
        resolve_cuts(graph, [text])
    assert hint in str(caught.value.hint)


def test_a_name_for_two_things(graph_text: Callable[..., Graph]) -> None:
    graph = graph_text("g (float[3] x) => (float[3] y) { [b] a = Relu(x) [c] b = Neg(a) [d] y = Abs(b) }")
    with pytest.raises(CutError, match="is a value at position 2 and a node at position 1") as caught:
        resolve_cut(graph, "b")
    assert "value:b" in str(caught.value.hint)
    assert (resolve_cut(graph, "value:b"), resolve_cut(graph, "node:b")) == (2, 1)


def test_nodes_of_one_name(graph_text: Callable[..., Graph]) -> None:
    graph = graph_text("g (float[3] x) => (float[3] y) { [n] a = Relu(x) [n] b = Neg(a) y = Abs(b) }")
    with pytest.raises(CutError, match="2 nodes are named `n`") as caught:
        resolve_cut(graph, "n")
    assert "1, 2" in str(caught.value.hint)


def test_names_that_are_numbers(tmp_path: Path) -> None:
    body = "g (float[3] x) => (float[3] y) { a = Relu(x) b = Neg(a) y = Abs(b) }"
    built = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {body}')
    built.graph.node[1].name = "7"
    onnx.save(built, tmp_path / "m.onnx")
    graph = load_graph(tmp_path / "m.onnx")
    with pytest.raises(CutError, match="no position 7") as caught:
        resolve_cut(graph, "7")
    assert "`node:7`" in str(caught.value.hint)
    assert resolve_cut(graph, "node:7") == 2


def test_a_set_reorders_as_little_as_needed(graph: Graph) -> None:
    reordered, cuts = resolve_cuts(graph, ["left1+x"])
    assert cuts == (2,)
    assert [node.name for node in reordered.nodes] == ["left0", "left1", "right0", "right1", "join"]
    assert resolve_cuts(graph, ["c+d"]) == (graph, (4,))


def test_nested_sets(graph: Graph) -> None:
    reordered, cuts = resolve_cuts(graph, ["right0+x", "right1+x", "5"])
    assert cuts == (1, 2, 5)
    assert [node.name for node in reordered.nodes] == ["right0", "right1", "left0", "left1", "join"]


def test_cuts_that_are_not_nested(graph: Graph) -> None:
    with pytest.raises(CutError, match=r"cut `right1\+x` comes before cut `left1`: it lacks node `left0`"):
        resolve_cuts(graph, ["left1", "right1+x"])
    with pytest.raises(CutError, match="cut `1` comes before cut `3`"):
        resolve_cuts(graph, ["3", "1"])


def test_ancestors_are_the_least_cut(graph: Graph) -> None:
    assert ancestors(graph, [3]) == {1, 3}
