"""What enters and leaves a range of nodes, case by case."""

from __future__ import annotations

import pytest

from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.work.ranges import Boundary, boundary

# p feeds the first node and the last; `dead` is read by nobody, `w` is a weight that is an output.
MODEL = """
m (float[8] p, float[8] q) => (float[8] y, float[8] w, float[8] early)
<float[8] w = {0, 1, 2, 3, 4, 5, 6, 7}>
{
    a, dead = Split <axis = 0, num_outputs = 2> (p)
    early = Concat <axis = 0> (a, a)
    b = Add(early, q)
    c = Mul(b, w)
    y = Add(c, p)
}
"""


@pytest.fixture
def graph(graph_text) -> Graph:
    return graph_text(MODEL, header='ir_version: 10, opset_import: ["" : 21]')


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        # Nobody reads `dead`: it stays inside. p and q are live above, and pass.
        (0, 1, Boundary(("p",), ("a", "w"), ("p", "q"))),
        (0, 2, Boundary(("p",), ("early", "w"), ("p", "q"))),
        (1, 2, Boundary(("a",), ("early",), ("p", "q"))),
        # An output of the model leaves even if the reader is inside.
        (1, 3, Boundary(("q", "a"), ("early", "b"), ("p",))),
        (2, 4, Boundary(("q", "early"), ("c",), ("p",))),
        (4, 5, Boundary(("p", "c"), ("y",), ())),
        (0, 5, Boundary(("p", "q"), ("early", "y", "w"), ())),
        # Ranges of nothing: what is live passes.
        (0, 0, Boundary((), (), ("p", "q"))),
        (2, 2, Boundary((), (), ("p", "q", "early"))),
        (5, 5, Boundary((), (), ())),
    ],
)
def test_each_range(graph: Graph, start: int, stop: int, expected: Boundary) -> None:
    assert boundary(graph, start, stop) == expected


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (2, 6)])
def test_no_range_is_refused(graph: Graph, start: int, stop: int) -> None:
    with pytest.raises(ValueError, match=rf"\[{start}, {stop}\) is not a range of 5 nodes"):
        boundary(graph, start, stop)


def test_a_range_that_nobody_needs_makes_what_nobody_reads(graph_text) -> None:
    graph = graph_text("m (float[8] x) => (float[8] y) { y = Exp(x) a = Neg(x) b = Abs(a) }")
    assert boundary(graph, 1, 3) == Boundary(("x",), ("b",), ())


def test_weights_alone_are_made_by_the_one_range_of_a_graph_without_nodes(graph_text) -> None:
    graph = graph_text("m (float[1] x) => (float[1] w) <float[1] w = {1}> { }")
    assert boundary(graph, 0, 0) == Boundary((), ("w",), ())


def test_an_output_that_is_listed_twice_leaves_once(graph_text) -> None:
    graph = graph_text("m (float[1] x) => (float[1] w, float[1] w) <float[1] w = {1}> { y = Exp(x) }")
    assert boundary(graph, 0, 1).outputs == ("w",)


def test_inputs_come_in_the_order_of_the_model_then_as_they_are_made(graph_text) -> None:
    graph = graph_text(
        """m (float[8] x, float[8] z) => (float[8] y)
        {
            d, c = Split <axis = 0, num_outputs = 2> (x)
            b = Exp(x)
            e = Concat <axis = 0> (c, d)
            f = Sum(b, e, z)
            y = Add(f, x)
        }""",
        header='ir_version: 10, opset_import: ["" : 21]',
    )
    # As they are read it would be c, d, b, e, z.
    assert boundary(graph, 2, 5).inputs == ("x", "z", "d", "c", "b")
