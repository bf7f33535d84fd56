from __future__ import annotations

import onnx
import pytest

from dnnsplit_onnx.work.flops import GraphContext, Work, count_node
from tests.work.flops.counting import context_of, inferred

HEADER = '<ir_version: 10, opset_import: ["" : 21]>'


def last_node_work(text: str, trips: dict[str, int] | None = None) -> Work | None:
    model = inferred(HEADER + text)
    return count_node(model.graph.node[-1], context_of(model, trips))


def if_model(condition: str = "", parameter: str = "bool c, ") -> str:
    return f"""
        g ({parameter}float[3,4] a, float[4,5] b) => (float[M,N] y) {{
            {condition}
            y = If (c) <
                then_branch = t () => (float[3,5] p) {{ p = MatMul(a, b) }},
                else_branch = e () => (float[3,4] q) {{ r = Exp(a) q = Neg(r) }}
            >
        }}"""


def test_if_counts_the_larger_branch() -> None:
    assert last_node_work(if_model()) == Work(60, 0)


@pytest.mark.parametrize(("value", "work"), [(1, Work(60, 0)), (0, Work(0, 24))])
def test_if_with_a_constant_condition_counts_the_branch_taken(value: int, work: Work) -> None:
    constant = f"c = Constant <value = bool {{{value}}}> ()"
    assert last_node_work(if_model(constant, parameter="")) == work


def test_if_with_an_uncounted_branch_is_uncounted() -> None:
    text = if_model().replace("r = Exp(a)", "r = custom.Mystery(a)")
    text = text.replace("float[3,4] q", "float q")
    model = inferred(HEADER.replace("]>", ', "custom" : 1]>') + text)
    assert count_node(model.graph.node[-1], context_of(model)) is None


def loop_model(
    *,
    maximum: str = "M = Constant <value = int64 {5}> ()",
    condition: str = "o = Identity(i)",
    start: str = "go",
) -> str:
    """Five times Exp and Add of 12 elements, whose shape the body does not declare."""
    return f"""
        g (float[3,4] x, float[3,4] w, int64 n, bool flag) => (float[A,B] y, float[C,D,E] stack) {{
            {maximum}
            go = Constant <value = bool {{1}}> ()
            y, stack = Loop <body = b (k, i, s) => (o, t, u) {{
                {condition}
                e = Exp(s)
                t = Add(e, w)
                u = Identity(t)
            }}> (M, {start}, x)
        }}"""


def test_loop_with_a_provable_trip_count() -> None:
    assert last_node_work(loop_model()) == Work(0, 120)
    assert last_node_work(loop_model(condition="o = Constant <value = bool {1}> ()")) == Work(0, 120)
    assert last_node_work(loop_model(condition="j = Cast <to = 9> (i) o = Identity(j)")) == Work(0, 120)
    assert last_node_work(loop_model(start="")) == Work(0, 120)
    assert last_node_work(loop_model(maximum="M = Constant <value = int64 {1}> ()")) == Work(0, 24)


@pytest.mark.parametrize(
    "model",
    [
        loop_model(condition="z = ReduceMax(s) f = CastLike(z, i) o = Not(f)"),  # it may stop early
        loop_model(maximum="M = Identity(n)"),
        loop_model(maximum="M = Constant <value = int64 {9223372036854775807}> ()"),  # no maximum
        loop_model(start="flag"),  # it may not start
    ],
)
def test_loop_whose_trip_count_cannot_be_proven(model: str) -> None:
    assert last_node_work(model) is None
    stated = inferred(HEADER + model)
    stated.graph.node[-1].name = "decode"
    assert count_node(stated.graph.node[-1], context_of(stated, {"decode": 7})) is not None


COUNTED = """
    g (float[3,4] x, int64 seven, int64 anything) => (int64 last, float[3,4] y) {{
        zero = Constant <value = int64 {{0}}> ()
        one = Constant <value = int64 {{1}}> ()
        two = Constant <value = int64 {{2}}> ()
        {maximum}
        go = Constant <value = bool {{1}}> ()
        n = Constant <value = int64 {{7}}> ()
        last, y = Loop <body = b (int64 k, bool i, int64 c, float[3,4] s)
            => (bool o, int64 d, float[3,4] t) {{
            d = {step}
            {condition}
            t = Exp(s)
        }}> ({given}, go, zero, x)
    }}"""


@pytest.mark.parametrize(
    ("condition", "step", "maximum", "trips"),
    [
        ("o = Less(d, n)", "Add(c, one)", None, 7),
        ("o = LessOrEqual(d, n)", "Add(c, one)", None, 8),
        ("o = Greater(n, d)", "Add(one, c)", None, 7),
        ("o = Less(d, n)", "Add(c, two)", None, 4),
        ("o = Less(c, n)", "Add(c, one)", None, 8),
        ("e = Sub(n, k) o = GreaterOrEqual(e, two)", "Add(c, one)", None, 7),
        ("f = Cast <to = 1> (d) h = Cast <to = 1> (n) a = Less(f, h) o = And(a, a)", "Add(c, one)", None, 7),
        ("o = Less(d, n)", "Add(c, one)", "M = Constant <value = int64 {5}> ()", 5),
        ("o = Less(d, n)", "Add(c, one)", "M = Identity(anything)", None),
        ("o = Less(d, n)", "Sub(c, one)", None, None),  # it never ends
        ("o = Less(d, n)", "Mul(c, two)", None, None),
        ("o = Less(d, n)", "Add(c, c)", None, None),
        ("o = Less(d, anything)", "Add(c, one)", None, None),
        ("o = Constant <value = bool {0}> ()", "Add(c, one)", None, 1),
    ],
)
def test_loop_that_a_counter_ends(condition: str, step: str, maximum: str | None, trips: int | None) -> None:
    text = COUNTED.format(condition=condition, step=step, maximum=maximum or "", given="M" if maximum else "")
    counted = last_node_work(text)
    scalars = condition.count("=") + 1  # of the condition and the counter
    if trips is None:
        assert counted is None
    else:
        assert counted is not None
        assert counted.elementwise - trips * 12 in range(0, trips * (scalars + 1) + 1)


@pytest.mark.parametrize(("op_type", "left"), [("Less", 1), ("And", 0), ("Identity", 0)])
def test_a_condition_without_its_operands_is_uncounted(op_type: str, left: int) -> None:
    text = COUNTED.format(condition="o = Less(d, n)", step="Add(c, one)", maximum="", given="")
    model = inferred(HEADER + text)
    node = model.graph.node[-1].attribute[0].g.node[1]
    node.op_type = op_type
    del node.input[left:]
    assert count_node(model.graph.node[-1], context_of(model)) is None


def test_a_condition_that_doubles_with_every_node_ends() -> None:
    nodes = " ".join(f"a{at + 1} = And(a{at}, a{at})" for at in range(60))
    condition = f"a0 = Less(d, n) {nodes} o = Identity(a60)"
    text = COUNTED.format(condition=condition, step="Add(c, one)", maximum="", given="")
    assert last_node_work(text) is None


def test_stated_trips_come_first() -> None:
    model = inferred(HEADER + loop_model())
    model.graph.node[-1].name = "decode"
    assert count_node(model.graph.node[-1], context_of(model, {"decode": 7})) == Work(0, 168)
    assert count_node(model.graph.node[-1], context_of(model, {"other": 7})) == Work(0, 120)


def test_loops_that_never_run() -> None:
    assert last_node_work(loop_model(maximum="M = Constant <value = int64 {0}> ()")) == Work(0, 0)
    never = loop_model(maximum="M = Identity(n) no = Constant <value = bool {0}> ()", start="no")
    assert last_node_work(never) == Work(0, 0)


def test_loop_whose_carried_value_grows_is_uncounted() -> None:
    # Its second iteration does not have the shapes of the first.
    growing = loop_model().replace("t = Add(e, w)", "t = Concat <axis = 0> (e, w)")
    assert last_node_work(growing) is None


def test_loop_whose_body_declares_its_shapes() -> None:
    # Nothing is known of the shape before the loop, and nothing needs to be.
    text = """
        g (float[A,B] x) => (float[C,D] y) {
            M = Constant <value = int64 {5}> ()
            y = Loop <body = b (int64 k, bool i, float[3,4] s) => (bool o, float[3,4] t) {
                o = Identity(i)
                t = Exp(s)
            }> (M, , x)
        }"""
    assert last_node_work(text) == Work(0, 60)
    assert last_node_work(text.replace("[3,4]", "[P,Q]")) is None


@pytest.mark.parametrize(
    ("new_shape", "work"),
    [("Constant <value_ints = [3, 4]> ()", Work(0, 60)), ("Identity(given)", None)],
)
def test_loop_body_reads_shapes_from_outside(new_shape: str, work: Work | None) -> None:
    # Without the value of the shape, anything could come out of the body.
    text = f"""
        g (float[3,4] x, int64[2] given) => (float[A,B] y) {{
            shape = {new_shape}
            M = Constant <value = int64 {{5}}> ()
            y = Loop <body = b (k, i, s) => (o, t) {{
                o = Identity(i)
                e = Exp(s)
                t = Reshape(e, shape)
            }}> (M, , x)
        }}"""
    assert last_node_work(text) == work


def test_loop_body_with_initializers() -> None:
    # A small one that is a shape, and a large one that is a weight.
    text = """
        g (float[3,100] x) => (float[A,B] y) {
            M = Constant <value = int64 {5}> ()
            y = Loop <body = b (k, i, s) => (o, t) {
                o = Identity(i)
                m = MatMul(s, w)
                t = Reshape(m, shape)
            }> (M, , x)
        }"""
    model = onnx.parser.parse_model(HEADER + text)
    body = model.graph.node[-1].attribute[0].g
    body.initializer.append(onnx.helper.make_tensor("w", 1, [100, 100], bytes(40_000), raw=True))
    body.initializer.append(onnx.helper.make_tensor("shape", 7, [2], [3, 100]))
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    assert count_node(model.graph.node[-1], context_of(model)) == Work(150_000, 0)


def test_loop_with_too_few_operands_is_uncounted() -> None:
    node = inferred(HEADER + loop_model()).graph.node[-1]
    del node.input[2]
    assert count_node(node, GraphContext(onnx.GraphProto(), opsets={"": 21}, trips={"": 1})) is None
    node.name = "loop"
    assert count_node(node, GraphContext(onnx.GraphProto(), opsets={"": 21}, trips={"loop": 1})) is None


def test_loop_in_loop_and_captures_of_both_levels() -> None:
    text = """
        g (float[3,4] x, float[4,4] w) => (float[A,B] y) {
            M = Constant <value = int64 {5}> ()
            y = Loop <body = b (k, i, s) => (o, float[3,4] t) {
                o = Identity(i)
                N = Constant <value = int64 {2}> ()
                v = MatMul(s, w)
                t = Loop <body = inner (k2, i2, s2) => (o2, t2) {
                    o2 = Identity(i2)
                    m = MatMul(s2, w)
                    t2 = Add(m, v)
                }> (N, , v)
            }> (M, , x)
        }"""
    # 5 x (48 + 2 x (48 MACs and 12 additions))
    assert last_node_work(text) == Work(720, 120)


def test_scan_counts_the_scanned_axis() -> None:
    text = """
        g (float[4] h, float[7,4] xs) => (float[4] hn, float[7,4] ys) {
            hn, ys = Scan <num_scan_inputs = 1, body = b (float[4] s, float[4] x) => (float[4] t, float[4] y)
            {
                t = Add(s, x)
                y = Tanh(t)
            }> (h, xs)
        }"""
    assert last_node_work(text) == Work(0, 56)
    other_axis = text.replace("num_scan_inputs = 1", "num_scan_inputs = 1, scan_input_axes = [1]")
    assert last_node_work(other_axis.replace("[7,4]", "[4,7]")) == Work(0, 56)
    unknown = text.replace("[7,4]", "[T,4]")
    assert last_node_work(unknown) is None
    model = inferred(HEADER + unknown)
    model.graph.node[-1].name = "steps"
    assert count_node(model.graph.node[-1], context_of(model, {"steps": 3})) == Work(0, 24)


def test_scan_whose_body_does_not_declare_its_shapes() -> None:
    text = """
        g (float[6,2,3] x, float[2,4] h, float[3,4] w) => (float[A,B] last, float[C,D,E] all) {
            last, all = Scan <num_scan_inputs = 1, body = b (float[n,4] s, float[n,3] e)
                => (float[n,4] t, float[n,4] u) {
                p = MatMul(e, w)
                t = Add(s, p)
                u = Identity(t)
            }> (h, x)
        }"""
    assert last_node_work(text) == Work(6 * 2 * 3 * 4, 6 * 8)
    computed = text.replace("t = Add(s, p)", "sh = Shape(s) q = Reshape(p, sh) t = Add(s, q)")
    assert last_node_work(computed) == Work(6 * 2 * 3 * 4, 6 * 8)


def test_scan_without_a_state() -> None:
    text = """<ir_version: 4, opset_import: ["" : 9]>
        g (float[7,4] xs) => (float[7,4] ys) {
            ys = Scan <num_scan_inputs = 1, body = b (float[4] x) => (float[4] y) { y = Tanh(x) }> (xs)
        }"""
    model = inferred(text)
    assert count_node(model.graph.node[-1], context_of(model)) == Work(0, 28)


def test_scan_of_opset_8_has_a_batch_axis() -> None:
    text = """<ir_version: 3, opset_import: ["" : 8]>
        g (float[2,4] h, float[2,7,4] xs) => (float[2,4] hn, float[2,7,4] ys) {
            hn, ys = Scan <num_scan_inputs = 1, body = b (float[4] s, float[4] x) => (float[4] t, float[4] y)
            {
                t = Add(s, x)
                y = Tanh(t)
            }> (, h, xs)
        }"""
    model = inferred(text)
    assert count_node(model.graph.node[-1], context_of(model)) == Work(0, 112)


def test_sequence_map_needs_its_length() -> None:
    text = """
        g (float[3] a, float[3] b) => (seq(float[3]) y) {
            s = SequenceConstruct(a, b)
            y = SequenceMap <body = f (float[3] i) => (float[3] o) { o = Exp(i) }> (s)
        }"""
    model = inferred(HEADER + text)
    node = model.graph.node[-1]
    node.name = "map"
    assert count_node(node, context_of(model)) is None
    assert count_node(node, context_of(model, {"map": 2})) == Work(0, 6)


def test_nodes_without_their_subgraphs_are_uncounted() -> None:
    context = GraphContext(onnx.GraphProto(), opsets={"": 21})
    for op_type in ("If", "Loop", "Scan", "SequenceMap"):
        assert count_node(onnx.helper.make_node(op_type, ["a", "b"], ["c"]), context) is None


def test_a_branch_whose_shapes_are_computed_from_lengths() -> None:
    """Inference of the whole model stops at the Range; the branch by itself is followed further."""
    text = """
    g (bool c, float[6, 4] x) => (float[N, 1] y)
    <int64 zero = {0}, int64 one = {1}, int64[1] last = {1}> {
        y = If (c) <
            then_branch = a () => (float[N, 1] p) {
                shape = Shape (x)
                count = Gather <axis = 0> (shape, zero)
                numbers = Range (zero, count, one)
                floats = Cast <to = 1> (numbers)
                column = Unsqueeze (floats, last)
                e1 = Exp (column) e2 = Exp (e1) e3 = Exp (e2) e4 = Exp (e3)
                p = Exp (e4)
            },
            else_branch = b () => (float[N, 1] q) {
                q = ReduceSum <keepdims = 1> (x, last)
            }
        >
    }
    """
    # Five times Exp of six numbers, and the Range that makes them; the sum of the other takes 24.
    work = last_node_work(text)
    assert work is not None
    assert work.flops >= 30
    assert last_node_work(text.replace("(x)\n", "(z)\n", 1)) is None  # of unknown length, it is not counted
