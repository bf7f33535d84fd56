"""Small legal models, one for each construct that tools lose.

Each is a function that returns a model and inputs to run it on. `CONSTRUCTS` has them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

Feeds = dict[str, Any]
Construct = Callable[[], tuple[onnx.ModelProto, Feeds]]
CONSTRUCTS: dict[str, Construct] = {}
#: Legal, and yet refused by onnxruntime, so that onnx's reference implementation runs them.
REFERENCE_ONLY: dict[str, Construct] = {}

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
W = np.cos(np.arange(16, dtype=np.float32)).reshape(4, 4)


def construct(build: Construct) -> Construct:
    CONSTRUCTS[build.__name__] = build
    return build


def reference_only(build: Construct) -> Construct:
    REFERENCE_ONLY[build.__name__] = build
    return build


def parse(
    body: str, header: str = 'ir_version: 8, opset_import: ["" : 17]', functions: str = ""
) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"<{header}>\n{body}\n{functions}")


def value(name: str, dtype: int = T.FLOAT, shape: Any = (3, 4)) -> onnx.ValueInfoProto:
    return h.make_tensor_value_info(name, dtype, shape)


def model(graph: onnx.GraphProto, opset: int = 17, ir: int = 8, **options: Any) -> onnx.ModelProto:
    opsets = [h.make_opsetid("", opset), *options.pop("opsets", [])]
    return h.make_model(graph, opset_imports=opsets, ir_version=ir, **options)


@construct
def skip_connections() -> tuple[onnx.ModelProto, Feeds]:
    return parse(
        """g (float[3,4] x) => (float[3,4] y) {
            a = Relu(x)  b = Tanh(a)  c = Sigmoid(b)  d = Add(c, a)  e = Mul(d, x)  y = Sub(e, b)
        }"""
    ), {"x": X}


@construct
def constants_on_both_sides() -> tuple[onnx.ModelProto, Feeds]:
    return parse(
        """g (float[3,4] x) => (float[3,4] y)
           <float[4] w = {1.0, 2.0, 3.0, 4.0}, int64[2] shape = {3, 4}> {
            axes = Constant<value_ints = [0]>()
            row = Unsqueeze(w, axes)
            full = ConstantOfShape<value = float[1] {0.5}>(shape)
            scale = Mul(full, row)
            a = Mul(x, scale)  b = Relu(a)  c = Add(b, row)  y = Sub(c, scale)
        }"""
    ), {"x": X}


@construct
def if_nested_captures() -> tuple[onnx.ModelProto, Feeds]:
    return parse(
        """g (float[3,4] x, bool p) => (float[3,4] y, float[3,4] z)
           <float[4] w = {1.0, 2.0, 3.0, 4.0}> {
            k = Constant<value = float[1] {3.0}>()
            a = Relu(x)
            b = Tanh(x)
            q = Not(p)
            c = If(p) <
                then_branch = t () => (float[3,4] t1) {
                    t0 = Mul(a, w)
                    t1 = If(q) <then_branch = tt () => (float[3,4] u) { u = Add(t0, b) },
                                else_branch = te () => (float[3,4] v) { v = Sub(t0, k) }>
                },
                else_branch = e () => (float[3,4] e1) { e1 = Add(b, k) }
            >
            y = Neg(c)
            z = Add(a, w)
        }"""
    ), {"x": X, "p": np.array(True)}


@reference_only
def branch_returns_outer_value() -> tuple[onnx.ModelProto, Feeds]:
    then = h.make_graph([], "then", [], [value("a")])
    other = h.make_graph([h.make_node("Neg", ["b"], ["n"])], "else", [], [value("n")])
    nodes = [
        h.make_node("Relu", ["x"], ["a"]),
        h.make_node("Tanh", ["x"], ["b"]),
        h.make_node("Abs", ["b"], ["c"]),
        h.make_node("If", ["p"], ["d"], then_branch=then, else_branch=other),
        h.make_node("Add", ["c", "d"], ["y"]),
    ]
    inputs = [value("x"), value("p", T.BOOL, ())]
    return model(h.make_graph(nodes, "g", inputs, [value("y")])), {"x": X, "p": np.array(True)}


@construct
def loop_with_captures() -> tuple[onnx.ModelProto, Feeds]:
    return parse(
        """g (float[3,4] x) => (float[3,4] y, float[n,3,4] stack)
           <int64 trips = {3}, bool go = {1}, float[4] w = {0.5, 0.25, 0.125, 2.0}> {
            a = Relu(x)
            b = Sigmoid(x)
            s, stack = Loop(trips, go, a) <body = body (int64 i, bool c, float[3,4] s0)
                => (bool c1, float[3,4] s1, float[3,4] o) {
                c1 = Identity(c)
                m = Mul(s0, w)
                s1 = Add(m, b)
                o = Identity(s1)
            }>
            y = Add(s, b)
        }"""
    ), {"x": X}


@construct
def scan() -> tuple[onnx.ModelProto, Feeds]:
    return parse(
        """g (float[3,4] x) => (float[4] last, float[3,4] y) <float[4] start = {0.0, 0.0, 0.0, 0.0}> {
            a = Tanh(x)
            k = Constant<value = float[4] {1.0, 2.0, 3.0, 4.0}>()
            last, sums = Scan<num_scan_inputs = 1, body = body (float[4] s, float[4] e)
                => (float[4] s1, float[4] o) {
                t = Mul(e, k)
                s1 = Add(s, t)
                o = Identity(s1)
            }>(start, a)
            y = Add(sums, a)
        }"""
    ), {"x": X}


_FUNCTIONS = """
<domain: "outer", opset_import: ["" : 17, "inner" : 1]> twice_plus (a) => (r) {
    t = inner.double(a)
    k = Constant<value = float[1] {1.0}>()
    r = Add(t, k)
}
<domain: "inner", opset_import: ["" : 17]> double (a) => (r) { r = Add(a, a) }
<domain: "inner", opset_import: ["" : 17]> unused (a) => (r) { r = Neg(a) }
<domain: "inner", opset_import: ["" : 17]> in_branch (a) => (r) { r = Sqrt(a) }
"""


@construct
def functions() -> tuple[onnx.ModelProto, Feeds]:
    header = 'ir_version: 9, opset_import: ["" : 17, "outer" : 1, "inner" : 1]'
    body = """g (float[3,4] x, bool p) => (float[3,4] y) {
        a = Abs(x)
        b = outer.twice_plus(a)
        c = If(p) <then_branch = t () => (float[3,4] t1) { t1 = inner.in_branch(b) },
                   else_branch = e () => (float[3,4] e1) { e1 = Neg(b) }>
        y = Add(c, a)
    }"""
    return parse(body, header, _FUNCTIONS), {"x": X, "p": np.array(True)}


def _sparse(name: str) -> onnx.SparseTensorProto:
    values = nh.from_array(np.array([1.5, -2.0, 3.25], np.float32), name)
    return h.make_sparse_tensor(values, nh.from_array(np.array([0, 5, 11], np.int64), f"{name}_at"), [3, 4])


@construct
def sparse_weights() -> tuple[onnx.ModelProto, Feeds]:
    nodes = [
        h.make_node("Constant", [], ["k"], sparse_value=_sparse("")),
        h.make_node("Add", ["x", "s"], ["a"]),
        h.make_node("Relu", ["a"], ["b"]),
        h.make_node("Mul", ["b", "k"], ["c"]),
        h.make_node("Add", ["c", "s"], ["y"]),
    ]
    graph = h.make_graph(nodes, "g", [value("x")], [value("y")], sparse_initializer=[_sparse("s")])
    return model(graph), {"x": X}


@construct
def sequence_boundary() -> tuple[onnx.ModelProto, Feeds]:
    return parse(
        """g (float[3,4] x) => (float[3,4] y, float[1,4] last) {
            a = Relu(x)
            seq = SplitToSequence<axis = 0>(a)
            one = Constant<value = int64 {1}>()
            middle = SequenceAt(seq, one)
            longer = SequenceInsert(seq, middle)
            shorter = SequenceErase(longer, one)
            y = ConcatFromSequence<axis = 0>(shorter)
            end = Constant<value = int64 {-1}>()
            last = SequenceAt(shorter, end)
        }"""
    ), {"x": X}


@construct
def optional_boundary() -> tuple[onnx.ModelProto, Feeds]:
    return parse(
        """g (float[3,4] x) => (float[3,4] y, bool has) {
            a = Relu(x)
            maybe = Optional(a)
            has = OptionalHasElement(maybe)
            b = OptionalGetElement(maybe)
            y = Neg(b)
        }""",
        'ir_version: 8, opset_import: ["" : 18]',
    ), {"x": X}


@construct
def initializers_as_inputs_ir3() -> tuple[onnx.ModelProto, Feeds]:
    nodes = [
        h.make_node("MatMul", ["x", "w"], ["a"]),
        h.make_node("Relu", ["a"], ["b"]),
        h.make_node("MatMul", ["b", "w"], ["c"]),
        h.make_node("Add", ["c", "bias"], ["y"]),
    ]
    inputs = [value("bias", shape=(4,)), value("x"), value("w", shape=(4, 4))]
    weights = [nh.from_array(W, "w"), nh.from_array(W[0], "bias")]
    return model(h.make_graph(nodes, "g", inputs, [value("y")], weights), opset=9, ir=3), {"x": X}


@construct
def overridable_initializer() -> tuple[onnx.ModelProto, Feeds]:
    built, feeds = initializers_as_inputs_ir3()
    built.ir_version = 8
    del built.graph.input[0]
    return built, feeds


@construct
def odd_outputs() -> tuple[onnx.ModelProto, Feeds]:
    """Outputs that are used inside, inputs, initializers, and computed constants."""
    nodes = [
        h.make_node("Relu", ["x"], ["a"]),
        h.make_node("Constant", [], ["k"], value=nh.from_array(W[1])),
        h.make_node("Neg", ["k"], ["minus_k"]),
        h.make_node("Add", ["a", "w"], ["b"]),
        h.make_node("Tanh", ["b"], ["c"]),
    ]
    outputs = [
        value("b"),
        value("x"),
        value("w", shape=(4,)),
        value("minus_k", shape=(4,)),
        value("a"),
        value("c"),
    ]
    graph = h.make_graph(nodes, "g", [value("x")], outputs, [nh.from_array(W[0], "w")])
    return model(graph), {"x": X}


@construct
def only_constants() -> tuple[onnx.ModelProto, Feeds]:
    nodes = [h.make_node("Neg", ["w"], ["y"])]
    graph = h.make_graph(nodes, "g", [], [value("y", shape=(4, 4))], [nh.from_array(W, "w")])
    return model(graph), {}


@construct
def stage_without_inputs() -> tuple[onnx.ModelProto, Feeds]:
    nodes = [
        h.make_node("RandomUniform", [], ["r"], shape=[3, 4], seed=1.0),
        h.make_node("Abs", ["r"], ["s"]),
        h.make_node("Add", ["x", "s"], ["y"]),
    ]
    return model(h.make_graph(nodes, "g", [value("x")], [value("y")])), {"x": X}


@construct
def dead_nodes() -> tuple[onnx.ModelProto, Feeds]:
    nodes = [
        h.make_node("Relu", ["x"], ["y"]),
        h.make_node("Tanh", ["x"], ["dead0"]),
        h.make_node("Neg", ["dead0"], ["dead1"]),
        h.make_node("TopK", ["x", "k"], ["top", "dead_index"]),
        h.make_node("Abs", ["top"], ["z"]),
    ]
    weights = [nh.from_array(np.array([2], np.int64), "k")]
    outputs = [value("y"), value("z", shape=(3, 2))]
    return model(h.make_graph(nodes, "g", [value("x")], outputs, weights)), {"x": X}


@construct
def omitted_optional_names() -> tuple[onnx.ModelProto, Feeds]:
    gru = {"W": np.ones((1, 6, 4)), "R": np.ones((1, 6, 2)) / 4, "h0": np.ones((1, 3, 2))}
    weights = [nh.from_array(a.astype(np.float32), n) for n, a in gru.items()]
    weights.append(nh.from_array(np.float32(1.0), "high"))
    nodes = [
        h.make_node("Clip", ["x", "", "high"], ["a"]),
        h.make_node("Unsqueeze", ["a", "zero"], ["b"]),
        h.make_node("GRU", ["b", "W", "R", "", "", "h0"], ["", "last"], hidden_size=2),
        h.make_node("Squeeze", ["last", "zero"], ["y"]),
    ]
    weights.append(nh.from_array(np.array([0], np.int64), "zero"))
    return model(h.make_graph(nodes, "g", [value("x")], [value("y", shape=(3, 2))], weights)), {"x": X}


@reference_only
def duplicate_node_names() -> tuple[onnx.ModelProto, Feeds]:
    nodes = [
        h.make_node("Relu", ["x"], ["a"], name="same"),
        h.make_node("Tanh", ["a"], ["b"], name="same"),
        h.make_node("Neg", ["b"], ["y"]),
    ]
    return model(h.make_graph(nodes, "g", [value("x")], [value("y")])), {"x": X}


@construct
def unsorted_file() -> tuple[onnx.ModelProto, Feeds]:
    built, feeds = constants_on_both_sides()
    nodes = list(built.graph.node)[::-1]
    del built.graph.node[:]
    built.graph.node.extend(nodes)
    return built, feeds


@construct
def quantized_qdq() -> tuple[onnx.ModelProto, Feeds]:
    w8 = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)
    weights = [
        nh.from_array(np.float32(0.05), "s"), nh.from_array(np.int8(3), "z"), nh.from_array(w8, "w8"),
        nh.from_array(np.float32(0.1), "ws"), nh.from_array(np.int8(0), "wz"),
    ]  # fmt: skip
    nodes = [
        h.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        h.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        h.make_node("DequantizeLinear", ["w8", "ws", "wz"], ["wd"]),
        h.make_node("MatMul", ["xd", "wd"], ["m"]),
        h.make_node("QuantizeLinear", ["m", "s", "z"], ["mq"]),
        h.make_node("DequantizeLinear", ["mq", "s", "z"], ["y"]),
    ]
    return model(h.make_graph(nodes, "g", [value("x")], [value("y")], weights)), {"x": X}


@construct
def quantized_dynamically() -> tuple[onnx.ModelProto, Feeds]:
    w8 = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)
    nodes = [
        h.make_node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"]),
        h.make_node("MatMulInteger", ["q", "w8", "qz"], ["i"]),
        h.make_node("Cast", ["i"], ["f"], to=T.FLOAT),
        h.make_node("Mul", ["f", "qs"], ["y"]),
    ]
    return model(h.make_graph(nodes, "g", [value("x")], [value("y")], [nh.from_array(w8, "w8")])), {"x": X}


@construct
def strings() -> tuple[onnx.ModelProto, Feeds]:
    text = np.array(["b", "a", "c"], dtype=object)
    nodes = [
        h.make_node("StringConcat", ["t", "suffix"], ["u"]),
        h.make_node("Identity", ["u"], ["v"]),
        h.make_node("StringConcat", ["v", "suffix"], ["y"]),
    ]
    weights = [h.make_tensor("suffix", T.STRING, [1], [b"!"])]
    t, y = value("t", T.STRING, (3,)), value("y", T.STRING, (3,))
    return model(h.make_graph(nodes, "g", [t], [y], weights), opset=20, ir=9), {"t": text}


def _through(dtype: int, opset: int, ir: int) -> tuple[onnx.ModelProto, Feeds]:
    """A model whose inner values are of a given type."""
    nodes = [
        h.make_node("Cast", ["x"], ["a"], to=dtype),
        h.make_node("Identity", ["a"], ["b"]),
        h.make_node("Cast", ["b"], ["c"], to=T.FLOAT),
        h.make_node("Neg", ["c"], ["y"]),
    ]
    return model(h.make_graph(nodes, "g", [value("x")], [value("y")]), opset=opset, ir=ir), {"x": X}


@construct
def float16_values() -> tuple[onnx.ModelProto, Feeds]:
    return _through(T.FLOAT16, 17, 8)


@construct
def bfloat16_values() -> tuple[onnx.ModelProto, Feeds]:
    return _through(T.BFLOAT16, 19, 9)


@construct
def float8_values() -> tuple[onnx.ModelProto, Feeds]:
    return _through(T.FLOAT8E4M3FN, 19, 9)


@construct
def int4_weights_and_values() -> tuple[onnx.ModelProto, Feeds]:
    packed = h.make_tensor("w4", T.INT4, [3, 4], list(range(-6, 6)))
    nodes = [
        h.make_node("QuantizeLinear", ["x", "s", "z"], ["a"]),
        h.make_node("DequantizeLinear", ["a", "s", "z"], ["b"]),
        h.make_node("DequantizeLinear", ["w4", "s", "z"], ["w"]),
        h.make_node("Mul", ["b", "w"], ["y"]),
    ]
    weights = [packed, nh.from_array(np.float32(0.5), "s"), h.make_tensor("z", T.INT4, [], [1])]
    return model(h.make_graph(nodes, "g", [value("x")], [value("y")], weights), opset=21, ir=10), {"x": X}


@construct
def microsoft_operators() -> tuple[onnx.ModelProto, Feeds]:
    """Operators that onnx does not know and onnxruntime does; nothing is declared."""
    nodes = [
        h.make_node("FusedMatMul", ["x", "w"], ["a"], domain="com.microsoft", alpha=0.5),
        h.make_node("Gelu", ["a"], ["b"], domain="com.microsoft"),
        h.make_node("Relu", ["b"], ["c"]),
        h.make_node("Add", ["c", "a"], ["y"]),
    ]
    graph = h.make_graph(nodes, "g", [value("x")], [value("y")], [nh.from_array(W, "w")])
    return model(graph, opsets=[h.make_opsetid("com.microsoft", 1)]), {"x": X}


@construct
def stale_declarations() -> tuple[onnx.ModelProto, Feeds]:
    """A batch size was edited, and what the file says of inner values was forgotten."""
    nodes = [
        h.make_node("Relu", ["x"], ["a"]),
        h.make_node("Reshape", ["a", "shape"], ["b"]),
        h.make_node("Neg", ["b"], ["c"]),
        h.make_node("Abs", ["c"], ["y"]),
    ]
    stale = [value(name, shape=(1, 4)) for name in "abc"]
    weights = [nh.from_array(np.array([-1, 4], np.int64), "shape")]
    outputs = [value("c", shape=(1, 4)), value("y", shape=("N", 4))]
    graph = h.make_graph(nodes, "g", [value("x", shape=("N", 4))], outputs, weights, value_info=stale)
    return model(graph), {"x": X}


@construct
def negative_dimensions() -> tuple[onnx.ModelProto, Feeds]:
    weights = [nh.from_array(np.ones((2, 1, 3, 3), np.float32), "k")]
    nodes = [
        h.make_node("Conv", ["x", "k"], ["a"], strides=[2, 2]),
        h.make_node("Relu", ["a"], ["b"]),
        h.make_node("Conv", ["b", "k2"], ["y"]),
    ]
    weights.append(nh.from_array(np.ones((1, 2, 1, 1), np.float32), "k2"))
    x = value("x", shape=(-1, 1, -1, -1))
    built = model(h.make_graph(nodes, "g", [x], [value("y", shape=(-1, 1, -1, -1))], weights))
    return built, {"x": np.arange(81, dtype=np.float32).reshape(1, 1, 9, 9)}


@construct
def dynamic_rank() -> tuple[onnx.ModelProto, Feeds]:
    """The target of a Reshape is data: its rank is certain, its dimensions are not."""
    nodes = [
        h.make_node("Relu", ["x"], ["a"]),
        h.make_node("Reshape", ["a", "target"], ["b"]),
        h.make_node("Neg", ["b"], ["c"]),
        h.make_node("Reshape", ["c", "flat"], ["y"]),
    ]
    weights = [nh.from_array(np.array([-1], np.int64), "flat")]
    inputs = [value("x"), value("target", T.INT64, (3,))]
    graph = h.make_graph(nodes, "g", inputs, [value("y", shape=(None,))], weights)
    return model(graph), {"x": X, "target": np.array([2, 3, 2])}


@construct
def multiple_outputs_and_diamonds() -> tuple[onnx.ModelProto, Feeds]:
    return parse(
        """g (float[3,4] x) => (float[3,2] l, float[3,2] y, int64[3,1] i) <int64[1] one = {1}> {
            l, r = Split<axis = 1>(x)
            a = Relu(l)  b = Tanh(l)  c = Mul(a, b)
            v, i = TopK(r, one)
            d = Add(c, v)
            y = Sub(d, r)
        }""",
    ), {"x": X}


@construct
def map_input_and_output() -> tuple[onnx.ModelProto, Feeds]:
    ml = "ai.onnx.ml"
    nodes = [
        h.make_node("DictVectorizer", ["m"], ["v"], domain=ml, string_vocabulary=["a", "b", "c"]),
        h.make_node("Neg", ["v"], ["n"]),
        h.make_node("ZipMap", ["n"], ["z"], domain=ml, classlabels_strings=["a", "b", "c"]),
        h.make_node("Abs", ["n"], ["y"]),
    ]
    floats = h.make_tensor_type_proto(T.FLOAT, [])
    m = onnx.ValueInfoProto(name="m", type=h.make_map_type_proto(T.STRING, floats))
    z = onnx.ValueInfoProto(
        name="z", type=h.make_sequence_type_proto(h.make_map_type_proto(T.STRING, floats))
    )
    graph = h.make_graph(nodes, "g", [m], [z, value("y", shape=(1, 3))])
    return model(graph, opsets=[h.make_opsetid(ml, 3)]), {"m": {"a": 1.5, "c": 2.5}}
