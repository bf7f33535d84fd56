"""Half precision: the whole is made to round where a cut does, and then every bit agrees."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.measuring.fences import Readers, fence
from dnnsplit_onnx.measuring.verification import verify
from tests.running.folders import edit_slice, split, update_hashes

UNARY = ("Sigmoid", "Tanh", "Erf", "Exp", "Sqrt", "Softmax", "Relu", "Softplus", "Gelu")
BINARY = ("Add", "Mul", "Sub", "Div", "MatMul")


def half(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 1.5, shape).astype(np.float16)


def stack(path: Path, operators: list[str], opset: int = 20, size: int = 24) -> Path:
    """A line of operators on float16 matrices; every third value is read again two steps later."""
    nodes, weights, last, seen = [], [], "x", ["x"]
    for at, op_type in enumerate(operators):
        reads = [last]
        if op_type in BINARY:
            if at % 3 == 2:
                reads.append(seen[-2])
            else:
                scale = np.float16(1 / size if op_type == "MatMul" else 1)
                weights.append(numpy_helper.from_array(half((size, size), at) * scale, f"w{at}"))
                reads.append(f"w{at}")
        last = f"v{at}"
        nodes.append(helper.make_node(op_type, reads, [last], name=f"n{at}"))
        seen.append(last)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [size, size]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "stack", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


@pytest.mark.parametrize("seed", range(6))
def test_random_stacks_of_half_precision_are_bitwise_at_every_cut(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    operators = [str(name) for name in rng.choice([*UNARY, *BINARY], 5)]
    path = stack(tmp_path / "m.onnx", operators)
    inputs = {"x": half((24, 24), 99)}
    for low, high in pairwise(range(6)):
        found = verify(split(path, low, high, name=f"{low}"), inputs=inputs)
        assert found.passed, (operators, low, found.notes)
        assert found.bitwise


def test_the_whole_as_it_is_lies_elsewhere_and_that_is_told(tmp_path: Path) -> None:
    path = stack(tmp_path / "m.onnx", ["Mul", "Add", "Mul", "Add"])
    found = verify(split(path, 2), inputs={"x": half((24, 24), 1)})
    forced = found.forced_rounding
    assert found.passed
    assert forced is not None
    assert set(forced.values) == {"v0", "v1"}
    assert 0 < forced.whole_max_abs_diff < 0.05
    assert any("half precision" in note for note in found.notes)
    assert found.to_dict()["forced_rounding"]["values"] == forced.values


def test_full_precision_needs_no_fence(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17]> g (float[8] x) => (float[8] z) '
            "{ y = Sigmoid(x) z = Exp(y) }"
        ),
        path,
    )
    assert verify(split(path, 1)).forced_rounding is None


@pytest.mark.parametrize("opset", [7, 9, 11, 13])
def test_opsets_before_sequences(opset: int, tmp_path: Path) -> None:
    path = stack(tmp_path / "m.onnx", ["Mul", "Exp", "Add", "Sigmoid"], opset)
    for cut in (1, 2, 3):
        found = verify(split(path, cut, name=f"{cut}"), inputs={"x": half((24, 24), 3)})
        assert found.passed, found.notes
        assert found.bitwise


def test_a_slice_that_computes_something_else_still_fails(tmp_path: Path) -> None:
    path = stack(tmp_path / "m.onnx", ["Mul", "Add", "Mul", "Add"])
    folder = split(path, 2)

    def nudge(model: onnx.ModelProto) -> None:
        # The first constant in the upper slice, by one unit of its last place.
        tensor = model.graph.initializer[0]
        bits = numpy_helper.to_array(tensor).view(np.uint16) + np.uint16(1)
        tensor.CopyFrom(numpy_helper.from_array(bits.view(np.float16), tensor.name))

    edit_slice(folder, "t1", nudge)
    update_hashes(folder)
    found = verify(folder, inputs={"x": half((24, 24), 1)})
    assert not found.passed
    assert found.forced_rounding is not None


def test_readers_inside_a_branch_read_the_rounded_value(
    model_text: Callable[..., Path], tmp_path: Path
) -> None:
    body = """
    g (float16[64] x, bool c) => (float16[64] y)
    {
        a = Mul(x, x)
        b = Mul(a, x)
        y = If (c) <
            then_branch = t () => (float16[64] p) { q = Mul(b, b) p = Add(q, a) },
            else_branch = e () => (float16[64] r) { r = Identity(b) }
        >
    }
    """
    path = model_text(body)
    for cut in (1, 2):
        for condition in (True, False):
            inputs = {"x": half((64,), 5), "c": np.array(condition)}
            found = verify(split(path, cut, name=f"{cut}{condition}"), inputs=inputs)
            assert found.passed, found.notes
            assert found.bitwise


def moving(path: Path, rng: np.random.Generator) -> Path:
    """Gemm by Gemm as an unrolled LSTM has them: each is split, and what comes of it joined with the rest."""
    nodes, weights, last, kept = [], [], "x", ["x"]
    for at in range(4):
        weights.append(numpy_helper.from_array(half((24, 48), at) / np.float16(24), f"w{at}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{at}"], [f"g{at}"]))
        nodes.append(helper.make_node("Split", [f"g{at}"], [f"a{at}", f"b{at}"], axis=1, num_outputs=2))
        first, second = (str(name) for name in rng.choice(["Sigmoid", "Tanh", "Exp"], 2))
        nodes.append(helper.make_node(first, [f"a{at}"], [f"c{at}"]))
        nodes.append(helper.make_node(second, [f"b{at}"], [f"d{at}"]))
        nodes.append(helper.make_node("Mul", [f"c{at}", f"d{at}"], [f"h{at}"]))
        last = f"h{at}"
        kept.append(last)
        if rng.integers(2):
            nodes.append(helper.make_node("Concat", kept[-2:], [f"j{at}"], axis=0))
            nodes.append(helper.make_node("ReduceMax", [f"j{at}"], [f"m{at}"]))
            nodes.append(helper.make_node("Add", [last, f"m{at}"], [f"s{at}"]))
            last = f"s{at}"
    nodes.append(helper.make_node("Concat", [*kept, last], ["all"], axis=0))
    nodes.append(helper.make_node("Exp", ["all"], ["y"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [2, 24])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)
    graph = helper.make_graph(nodes, "moving", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


@pytest.mark.parametrize("seed", range(3))
def test_nodes_that_move_data_round_where_a_slice_has_them_round(seed: int, tmp_path: Path) -> None:
    # Split and Concat run in float16 or move float32, as their neighbours and a graph's ends have it.
    path = moving(tmp_path / "m.onnx", np.random.default_rng(seed))
    inputs = {"x": half((2, 24), 7)}
    count = len(load_graph(path).nodes)
    for cut in range(1, count, 3 if seed else 2):
        found = verify(split(path, cut, name=f"{cut}"), inputs=inputs)
        assert found.passed, (cut, found.notes)
        assert found.bitwise


def test_model_fence_model() -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float16[4] x) => (float16[4] z)
        { a = Exp(x)  b = Mul(a, x)  z = Add(a, b) }
        """
    )
    fence(model, {"a": Readers(joined=frozenset({2}))})
    made = [(node.op_type, list(node.input), list(node.output)) for node in model.graph.node]
    assert made == [
        ("Exp", ["x"], ["a"]),
        ("Mul", ["a", "x"], ["b"]),
        ("Constant", [], ["a/fence_at"]),
        ("SequenceConstruct", ["a"], ["a/fence_list"]),
        ("SequenceAt", ["a/fence_list", "a/fence_at"], ["a/fence"]),
        ("Sum", ["a/fence"], ["a/fence_sum"]),
        ("Add", ["a/fence_sum", "b"], ["z"]),
    ]
    onnx.checker.check_model(model)
