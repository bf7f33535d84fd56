from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.work.flops import (
    GraphContext,
    NodeView,
    TensorType,
    Work,
    count_node,
    counted_ops,
    register,
    registry,
    uncounted_reasons,
)
from tests.work.flops.counting import MS, Shapes, context_of, count, elementwise


def onnx_operators() -> set[tuple[str, str]]:
    """Every operator of every version; a schema's default domain is empty."""
    return {(schema.domain, schema.name) for schema in onnx.defs.get_all_schemas_with_history()}


def onnxruntime_operators() -> set[tuple[str, str]]:
    pytest.importorskip("onnxruntime")
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    domains = (MS, registry.NCHWC, registry.NHWC)
    return {
        (schema.domain, schema.name) for schema in state.get_all_operator_schema() if schema.domain in domains
    }


@pytest.mark.parametrize("operators", [onnx_operators, onnxruntime_operators])
def test_every_operator_has_a_formula_or_a_reason(operators: object) -> None:
    known = counted_ops() | uncounted_reasons().keys()
    assert callable(operators)
    assert sorted(operators() - known) == []


def test_the_test_above_can_fail() -> None:
    assert ("", "Conv") in onnx_operators()
    assert ("", "Mystery") not in counted_ops() | uncounted_reasons().keys()
    assert len(onnx_operators()) >= 200


def test_no_operator_has_a_formula_and_a_reason_not_to() -> None:
    assert counted_ops().isdisjoint(uncounted_reasons())
    assert all(uncounted_reasons().values())


def test_unknown_is_not_zero_and_movement_is() -> None:
    assert count("Mystery", [(2, 3)]) is None
    assert count("Relu", [(2, 3)], domain="com.example") is None
    assert count("Relu", ["?"]) is None
    assert count("Reshape", ["?", "?"]) == Work(0, 0)
    assert count("TfIdfVectorizer", [(2, 3)]) is None


def test_both_spellings_of_the_default_domain() -> None:
    assert elementwise("Relu", [(2, 3)], domain="ai.onnx") == 6


@pytest.mark.parametrize(
    ("op_type", "opset"),
    [
        ("Slice", 1),
        ("Slice", 13),
        ("Squeeze", 1),
        ("Squeeze", 13),
        ("Pad", 2),
        ("Pad", 18),
        ("Split", 2),
        ("Cast", 1),
    ],
)
def test_movement_of_every_opset(op_type: str, opset: int) -> None:
    assert elementwise(op_type, [(2, 3)], opset=opset) == 0


@pytest.fixture
def own_formula() -> Iterator[None]:
    @register("ScaledAdd", domain="com.example")
    def scaled_add(node: NodeView) -> Work:
        return Work(elementwise=2 * node.output_size())

    yield
    del registry._FORMULAS["com.example", "ScaledAdd"]


@pytest.mark.usefixtures("own_formula")
def test_own_operator() -> None:
    assert elementwise("ScaledAdd", [(2, 3), (2, 3)], [(2, 3)], domain="com.example") == 12
    assert count("ScaledAdd", [(2, 3), (2, 3)], ["?"], domain="com.example") is None
    assert ("com.example", "ScaledAdd") in counted_ops()


@pytest.mark.usefixtures("own_formula")
def test_formulas_are_replaced_only_on_purpose() -> None:
    def seven(node: NodeView) -> Work:
        return Work(elementwise=7)

    with pytest.raises(InputError, match=r"`ScaledAdd` of domain `com\.example` has a formula already"):
        register("ScaledAdd", domain="com.example")(seven)
    register("ScaledAdd", domain="com.example", replace=True)(seven)
    assert elementwise("ScaledAdd", [(2, 3)], domain="com.example") == 7


NUMBERS = st.integers(-3, 9)
# fmt: off
TEXTS = st.sampled_from([
    "", "linear", "nearest", "cubic", "sum", "relu", "swiglu", "Tanh", "LEAF", "L2", "RBF", "SOFTMAX",
    "delta", "gated_delta", "avg", "euclidean", "PER_TENSOR",
    "ij,jk", "...i,i", "ij,i,j->", "->", "ab->ba", "i.j", "??",
])
# fmt: on
BY_TYPE = {
    onnx.defs.OpSchema.AttrType.INT: NUMBERS,
    onnx.defs.OpSchema.AttrType.FLOAT: st.sampled_from([0.0, 1.0, 0.5]),
    onnx.defs.OpSchema.AttrType.STRING: TEXTS,
    onnx.defs.OpSchema.AttrType.INTS: st.lists(NUMBERS, min_size=1, max_size=4),
    onnx.defs.OpSchema.AttrType.FLOATS: st.lists(st.just(1.0), min_size=1, max_size=9),
    onnx.defs.OpSchema.AttrType.STRINGS: st.lists(TEXTS, min_size=1, max_size=4),
}


def attributes_of(operator: tuple[str, str]) -> st.SearchStrategy[dict[str, object]]:
    """Attributes of the right type and any value, for whichever version of the operator."""
    found = {}
    for schema in SCHEMAS.get(operator, []):
        found |= {a.name: BY_TYPE[a.type] for a in schema.attributes.values() if a.type in BY_TYPE}
    # onnx has no schemas of com.microsoft.
    microsoft = {
        **dict.fromkeys(
            ["num_heads", "kv_num_heads", "q_num_heads", "N", "K", "Nq", "Nkv", "groups", "k"], NUMBERS
        ),
        **dict.fromkeys(
            ["transA", "transBatchA", "transB", "do_rotary", "unidirectional", "smooth_softmax"], NUMBERS
        ),
        **dict.fromkeys(
            ["activation", "activation_type", "metric", "mode", "k_quant_type", "update_rule"], TEXTS
        ),
        **dict.fromkeys(
            ["swiglu_fusion", "signal_ndim", "past_present_share_buffer", "channels_last"], NUMBERS
        ),
        **dict.fromkeys(["kernel_shape", "qkv_hidden_sizes"], st.lists(NUMBERS, min_size=1, max_size=4)),
        "activations": st.lists(TEXTS, min_size=1, max_size=4),
    }
    return st.fixed_dictionaries({}, optional=found or (microsoft if operator[0] == MS else {}))


SCHEMAS: dict[tuple[str, str], list[onnx.defs.OpSchema]] = {}
for _schema in onnx.defs.get_all_schemas_with_history():
    SCHEMAS.setdefault((_schema.domain, _schema.name), []).append(_schema)
OPERANDS = (
    st.none() | st.tuples(*[st.integers(0, 5)] * 4).map(lambda s: s) | st.lists(st.integers(0, 5), max_size=5)
)


@settings(max_examples=500, deadline=None)
@given(
    data=st.data(),
    operator=st.sampled_from(sorted(counted_ops())),
    operands=st.lists(OPERANDS, max_size=12),
    results=st.lists(OPERANDS, max_size=2),
    opset=st.integers(1, 28),
)
def test_no_node_is_too_broken_to_count(
    data: st.DataObject,
    operator: tuple[str, str],
    operands: list[list[int] | None],
    results: list[list[int] | None],
    opset: int,
) -> None:
    # A model may be invalid in any way; its nodes are then uncounted, and counting goes on.
    domain, op_type = operator
    inputs = {f"x{i}": shape for i, shape in enumerate(operands)}
    outputs = {f"y{i}": shape for i, shape in enumerate(results)}
    types = {
        name: TensorType(1, tuple(shape)) for name, shape in (inputs | outputs).items() if shape is not None
    }
    constants = {f"x{i}": np.array(data.draw(NUMBERS)) for i, shape in enumerate(operands) if shape == []}
    attributes = data.draw(attributes_of(operator))
    node = onnx.helper.make_node(op_type, [*inputs], [*outputs], domain=domain, **attributes)
    work = count_node(node, Shapes(types, constants, {domain: opset}))
    assert work is None or (work.macs >= 0 and work.elementwise >= 0)


def test_context_reads_a_graph() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["ai.onnx" : 21, "com.microsoft" : 1]>
        g (float[2,N] x, seq(float[2]) s, float[] y, float scalar, float[0,3] empty) => (float[] z)
        <float[2,3] w = {1, 2, 3, 4, 5, 6}>
        {
            c = Constant <value_ints = [4, 5]> ()
            z = Identity(y)
        }""")
    context = context_of(model)
    assert context.type_of("w") == TensorType(1, (2, 3))
    assert context.type_of("x") == TensorType(1, None)  # a dimension is symbolic
    assert context.type_of("y") == TensorType(1, None)
    assert context.type_of("scalar") == TensorType(1, ())
    assert context.type_of("empty") == TensorType(1, (0, 3))
    assert context.type_of("c") == TensorType(7, (2,))
    assert context.type_of("s") is None
    assert context.type_of("nowhere") is None
    constant = context.constant("c")
    assert constant is not None
    assert constant.tolist() == [4, 5]
    assert context.constant("x") is None
    assert (context.opset(""), context.opset("com.microsoft"), context.opset("other")) == (21, 1, 0)


def test_context_of_a_subgraph_looks_outwards() -> None:
    outer = onnx.parser.parse_graph("""
        g (float[2] x) => (float[2] y) {
            scalar = Constant <value_float = 2.0> ()
            list = Constant <value_floats = [1.0, 2.0]> ()
            one = Constant <value_int = 1> ()
            text = Constant <value_string = "a"> ()
            y = Identity(x)
        }""")
    inner = onnx.parser.parse_graph("h (float[3] z) => (float[3] w) { w = Identity(z) }")
    context = GraphContext(inner, outer=GraphContext(outer, opsets={"": 21}, trips={"loop": 3}))
    assert context.type_of("z") == TensorType(1, (3,))
    assert context.type_of("x") == TensorType(1, (2,))
    assert context.type_of("scalar") == TensorType(1, ())
    assert context.type_of("list") == TensorType(1, (2,))
    assert context.type_of("one") == TensorType(7, ())
    assert context.type_of("text") is None
    one = context.constant("one")
    assert one is not None
    assert one.item() == 1
    assert context.constant("z") is None
    assert (context.opset(""), context.trips) == (21, {"loop": 3})


def test_context_knows_sparse_tensors() -> None:
    values = onnx.helper.make_tensor("weights", 1, [2], [1.0, 2.0])
    indices = onnx.helper.make_tensor("indices", 7, [2], [0, 5])
    sparse = onnx.helper.make_sparse_tensor(values, indices, [4, 5])
    typed = onnx.helper.make_sparse_tensor_value_info("x", 1, [6, 7])
    context = GraphContext(onnx.GraphProto(sparse_initializer=[sparse], input=[typed]), opsets={"": 21})
    assert context.type_of("weights") == TensorType(1, (4, 5))
    assert context.type_of("x") == TensorType(1, (6, 7))
    assert context.constant("weights") is None


def test_context_leaves_weights_alone() -> None:
    large = onnx.helper.make_tensor("large", 1, [5000], bytes(20_000), raw=True)
    elsewhere = onnx.helper.make_tensor("elsewhere", 1, [1], bytes(4), raw=True)
    elsewhere.data_location = onnx.TensorProto.EXTERNAL
    graph = onnx.GraphProto(initializer=[large, elsewhere])
    context = GraphContext(graph, opsets={"": 21})
    assert context.type_of("large") == TensorType(1, (5000,))
    assert context.constant("large") is None
    assert context.constant("elsewhere") is None


def test_import_is_light() -> None:
    script = (
        "import sys, onnx, numpy; known = set(sys.modules); import dnnsplit_onnx.work.flops;"
        "heavy = {'onnxruntime', 'torch', 'tensorflow', 'matplotlib', 'scipy'};"
        "print(*sorted(heavy & (set(sys.modules) - known)), 'onnx.reference' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False"]


@pytest.mark.parametrize("work", [Work(-1, 1), Work(1, -1), Work(-1, -1)])
def test_less_than_nothing_is_unknown(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._FORMULAS, ("tests", "Broken"), lambda _: work)
    assert count("Broken", [(2,)], domain="tests") is None
