"""What a model asks of machines: counts by node, calls of functions included."""

from __future__ import annotations

import pytest

from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.work.analysis import measure
from tests.conftest import light

FUNCTIONS = 'ir_version: 10, opset_import: ["" : 17, "own" : 1]'

CALLS = """
g (float[2, 3] x, bool flag) => (float[2, 5] y)
<float[3, 4] w = {1,2,3,4,5,6,7,8,9,10,11,12},
 float[4, 5] v = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20}>
{
   a = own.dense (x, w)
   b = own.dense (a, v)
   y = If (flag) <
      then_branch = t () => (float[2, 5] t1) { t1 = own.twice (b) },
      else_branch = e () => (float[2, 5] e1) { e1 = Relu (b) }
   >
}
<domain: "own", opset_import: ["" : 17]>
dense (p, q) => (r) { m = MatMul (p, q)  r = Relu (m) }
<domain: "own", opset_import: ["" : 17, "own" : 1]>
twice (p) => (r) { m = own.half (p)  r = own.half (m) }
<domain: "own", opset_import: ["" : 17]>
half (p) => (r) { c = Constant <value_float = 0.5> ()  r = Mul (p, c) }
"""


def test_functions_are_counted_through_calls_bodies_and_other_functions(graph_text):
    graph = graph_text(CALLS, header=FUNCTIONS)
    analysis = measure(graph, bind_shapes(graph))
    assert analysis.uncounted == {}
    assert analysis.macs.tolist() == [2 * 3 * 4, 2 * 4 * 5, 0]
    # Relu of each dense; of the branches, the larger: two multiplications an element.
    assert analysis.flops.tolist() == [2 * 24 + 8, 2 * 40 + 10, 20]


def test_an_unknown_operator_in_a_function_is_not_taken_to_be_free(graph_text):
    graph = graph_text(
        """g (float[2] x) => (float[2] y) { y = own.f (x) }
        <domain: "own", opset_import: ["" : 17, "far" : 1]>
        f (p) => (r) { r = far.Away (p) }""",
        header='ir_version: 10, opset_import: ["" : 17, "own" : 1, "far" : 1]',
    )
    analysis = measure(graph, bind_shapes(graph))
    assert analysis.work == (None,)
    assert analysis.uncounted == {"own::f": 1}


@pytest.mark.parametrize(("name", "macs"), [("resnet50", 4_089_184_256)])
def test_macs_counted_by_hand(name, macs):
    graph = load_graph(light(name))
    analysis = measure(graph, bind_shapes(graph))
    assert analysis.macs.sum() == macs
    conv = sum(int(m) for node, m in zip(graph.nodes, analysis.macs, strict=True) if node.op_type == "Conv")
    assert conv == 4_087_136_256
    assert analysis.uncounted == {}


def test_bytes_of_a_node(graph_text):
    graph = graph_text(
        """g (float[2, 3] x) => (float[2, 3] y) <float[3] w = {1, 2, 3}>
        { a = Add (x, w)
          y = Mul (a, w) }"""
    )
    analysis = measure(graph, bind_shapes(graph))
    assert analysis.output_nbytes(0) == 24
    assert analysis.weight_nbytes(0) == analysis.weight_nbytes(1) == 12
    assert analysis.total_weight_nbytes == 12
    assert analysis.moved_nbytes.tolist() == [24 + 12 + 24] * 2


def test_a_table_that_is_also_read_transposed_is_one_weight(graph_text):
    graph = graph_text("""
        g (int64[1, s] ids) => (float[1, s, 3] y)
            <float[3, 2] table = {1, 2, 3, 4, 5, 6}, float[2] bias = {1, 2}>
        {
            turned = Transpose <perm = [1, 0]> (table)
            doubled = Add (bias, bias)
            e = Gather (table, ids)
            b = Add (e, bias)
            c = Add (b, doubled)
            y = MatMul (c, turned)
        }
    """)
    # What is computed of a weight is another one.
    assert measure(graph, bind_shapes(graph, {"s": 1})).total_weight_nbytes == 4 * (6 + 2 + 2)
