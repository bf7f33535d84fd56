"""Types at a boundary: proved where they can be, never guessed."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h

from dnnsplit_onnx.errors import CutError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.slicing import SliceIndex, extract
from tests.slicing.constructs import CONSTRUCTS, model, value


def index_of(built: onnx.ModelProto, folder: Path) -> SliceIndex:
    onnx.save(built, folder / "m.onnx")
    return SliceIndex(load_graph(folder / "m.onnx"))


def inputs_at(built: onnx.ModelProto, at: int, folder: Path) -> tuple[Port, ...]:
    index = index_of(built, folder)
    return extract(index, at, len(index.graph.nodes)).inputs


@pytest.mark.parametrize(
    ("name", "at", "shape"),
    [
        ("skip_connections", 3, (3, 4)),
        ("stale_declarations", 1, ("N", 4)),
        ("stale_declarations", 2, (None, 4)),
        ("stale_declarations", 3, (None, 4)),
        ("negative_dimensions", 1, (None, 2, None, None)),
        ("dynamic_rank", 2, (None, None, None)),
    ],
)
def test_shapes_are_what_is_proved(name: str, at: int, shape: tuple[object, ...], tmp_path: Path) -> None:
    found = {port.name: port.shape for port in inputs_at(CONSTRUCTS[name]()[0], at, tmp_path)}
    assert shape in found.values()


def test_a_shape_nobody_can_know_is_left_out(tmp_path: Path) -> None:
    built, _ = CONSTRUCTS["loop_with_captures"]()
    state = next(p for p in inputs_at(built, 3, tmp_path) if p.name == "s")
    assert (state.dtype, state.shape) == ("float", None)


@pytest.mark.parametrize(
    ("name", "at", "kind"), [("sequence_boundary", 2, "sequence"), ("optional_boundary", 2, "optional")]
)
def test_kinds_other_than_tensors(name: str, at: int, kind: str, tmp_path: Path) -> None:
    assert kind in {port.kind for port in inputs_at(CONSTRUCTS[name]()[0], at, tmp_path)}


@pytest.mark.parametrize(
    ("op", "others", "dtype"),
    [
        ("Add", ["w"], "double"),
        ("Where", ["w"], "bool"),
        ("Not", [], "bool"),
        ("Concat", ["w"], "double"),
        ("Gather", [], None),
    ],
)
def test_what_reads_a_value_may_settle_its_type(
    op: str, others: list[str], dtype: str | None, tmp_path: Path
) -> None:
    nodes = [
        h.make_node("Mystery", ["x"], ["a"], domain="org.example"),
        h.make_node("Identity", ["a"], ["b"]),
        h.make_node(op, {"Where": ["b", "w", "w"], "Gather": ["b", "i"]}.get(op, ["b", *others]), ["y"]),
    ]
    if op == "Concat":
        nodes[2].attribute.add(name="axis", type=onnx.AttributeProto.INT, i=0)
    weights = [h.make_tensor("w", T.DOUBLE, [1], [1.0]), h.make_tensor("i", T.INT64, [1], [0])]
    y = onnx.ValueInfoProto(name="y")
    graph = h.make_graph(nodes, "g", [value("x")], [y], weights)
    index = index_of(model(graph, opsets=[h.make_opsetid("org.example", 1)]), tmp_path)
    if dtype is None:
        with pytest.raises(CutError, match="its type is unknown"):
            extract(index, 1, 3)
    else:
        assert [extract(index, at, 3).inputs[0].dtype for at in (1, 2)] == [dtype, dtype]


def custom(*, declared: bool) -> onnx.ModelProto:
    """An operator that neither onnx nor onnxruntime knows, between two that they do."""
    nodes = [
        h.make_node("Relu", ["x"], ["a"]),
        h.make_node("Mystery", ["a"], ["b"], domain="org.example", name="riddle"),
        h.make_node("Neg", ["b"], ["c"]),
        h.make_node("Abs", ["c"], ["y"]),
    ]
    infos = [value("b", T.DOUBLE, (3, 4))] if declared else []
    outputs = [value("y", T.DOUBLE)] if declared else [onnx.ValueInfoProto(name="y")]
    graph = h.make_graph(nodes, "g", [value("x")], outputs, value_info=infos)
    return model(graph, opsets=[h.make_opsetid("org.example", 1)])


def test_a_declared_type_counts_its_dimensions_do_not(tmp_path: Path) -> None:
    index = index_of(custom(declared=True), tmp_path)
    for start in (2, 3):
        (port,) = extract(index, start, 4).inputs
        assert (port.dtype, port.shape) == ("double", (None, None))


def test_an_unknown_type_is_an_error_that_names_value_and_node(tmp_path: Path) -> None:
    index = index_of(custom(declared=False), tmp_path)
    with pytest.raises(CutError, match=r"cannot cut at value `b`.*`riddle`") as caught:
        extract(index, 2, 4)
    assert caught.value.hint is not None
    assert extract(index, 1, 4).inputs[0].name == "a"


def test_onnxruntime_is_asked_for_its_own_operators(tmp_path: Path) -> None:
    index = index_of(CONSTRUCTS["microsoft_operators"]()[0], tmp_path)
    (b, a) = sorted(extract(index, 2, 4).inputs, key=lambda port: port.name, reverse=True)
    assert (a.name, a.dtype, a.shape) == ("a", "float", (3, 4))
    assert (b.name, b.dtype, b.shape) == ("b", "float", (3, 4))


def test_onnxruntime_is_asked_for_ranks_that_its_operators_hide(tmp_path: Path) -> None:
    built, _ = CONSTRUCTS["microsoft_operators"]()
    built.graph.node[3].input[1] = "w_row"  # settles the element type of all, and no rank
    built.graph.initializer.append(h.make_tensor("w_row", T.FLOAT, [4], [1.0] * 4))
    (c,) = inputs_at(built, 3, tmp_path)
    assert (c.name, c.dtype, c.shape) == ("c", "float", (3, 4))


def test_without_onnxruntime_their_neighbours_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    index = index_of(CONSTRUCTS["microsoft_operators"]()[0], tmp_path)
    assert {(port.dtype, port.shape) for port in extract(index, 2, 4).inputs} == {("float", None)}


def test_without_onnxruntime_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    index = index_of(custom(declared=False), tmp_path)
    with pytest.raises(CutError) as caught:
        extract(index, 2, 4)
    assert "not installed" in str(caught.value.context)


def test_an_output_of_the_model_without_a_type_cannot_cross(tmp_path: Path) -> None:
    nodes = [
        onnx.helper.make_node("Mystery", ["x"], ["v"], name="maker", domain="tests"),
        onnx.helper.make_node("Mystery", ["v"], ["y"], domain="tests"),
    ]
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("tests", 1)]
    graph = onnx.helper.make_graph(nodes, "g", [x], [onnx.ValueInfoProto(name="v"), y])
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "m.onnx")
    index = SliceIndex(load_graph(tmp_path / "m.onnx"))
    with pytest.raises(CutError, match="`v`"):
        extract(index, 1, 2)
