"""Model files that claim more than there is, nest without end, or refer to themselves."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from dnnsplit_onnx.cli.failures import one_line
from dnnsplit_onnx.errors import DnnsplitError, ModelError, ShapeError
from dnnsplit_onnx.graph.bounds import MOST_DIMS, check_bounds
from dnnsplit_onnx.graph.functions import MOST_EXPANDED, MOST_LEVELS, check_functions
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.protobuf import MOST_FIELDS
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.work.analysis import measure
from tests.hostile import claims
from tests.hostile.claims import ATTRIBUTE, NODE, empty, functions, model, relu, whole, wrap
from tests.hostile.confined import confined, refused

TOO_MANY = MOST_FIELDS + 1

# A few megabytes each, most of them two bytes an entry.
CLAIMS: dict[str, tuple[Callable[[], bytes], str]] = {
    "nodes": (lambda: whole(empty(NODE, TOO_MANY)), "fields"),
    "initializers": (lambda: whole(empty(5, TOO_MANY)), "fields"),
    "attributes": (lambda: whole(wrap(NODE, empty(ATTRIBUTE, TOO_MANY))), "fields"),
    "attributes of small nodes": (
        lambda: whole(wrap(NODE, wrap(4, b"Relu") + empty(ATTRIBUTE, 500)) * (TOO_MANY // 500 + 1)),
        "nodes, values, weights and attributes",
    ),
    "names in one node": (lambda: whole(wrap(NODE, empty(1, TOO_MANY))), "fields"),
    "dimensions": (lambda: whole(claims.wide_input([1 << 40] * 1_000_000)), "dimensions"),
    "dimensions of a weight": (lambda: whole(wrap(5, wrap(1, b"\1" * 5_000_000))), "dimensions"),
}


def einsum(equation: str) -> bytes:
    """A model of one Einsum."""
    return bytes(
        model([helper.make_node("Einsum", ["x"], ["y"], equation=equation)], [1, 2], None).SerializeToString()
    )


# Known at once, from the structure alone.
STRUCTURES: dict[str, tuple[Callable[[], bytes], str]] = {
    "subgraphs 5000 deep": (lambda: whole(claims.nested_ifs(5000)), "nested more than 100 deep"),
    # Below the wire reader's threshold, it is the protobuf library that refuses.
    "subgraphs 40 deep": (lambda: whole(claims.nested_ifs(40)), "is not an ONNX model"),
    "types 5000 deep": (lambda: whole(claims.nested_sequences(5000)), "is not an ONNX model"),
    "a function that calls itself": (
        lambda: functions({"f0": ["f0"]}).SerializeToString(),
        "function `f0` calls itself",
    ),
    "functions that call each other": (
        lambda: functions({"f0": ["f1"], "f1": ["Relu", "f0"]}).SerializeToString(),
        "function `f0` calls itself",
    ),
    "a chain of 3000 functions": (
        lambda: functions({f"f{n}": [f"f{n + 1}"] for n in range(3000)}).SerializeToString(),
        f"nest more than {MOST_LEVELS} deep",
    ),
    "functions that double 60 times": (
        lambda: functions({f"f{n}": [f"f{n + 1}"] * 2 for n in range(60)}).SerializeToString(),
        f"more than {MOST_EXPANDED} nodes",
    ),
    "a name that is not UTF-8": (
        lambda: relu().SerializeToString().replace(b"Relu", b"\xff\xfe\xff\xfe"),
        "is not UTF-8",
    ),
    "a name of a million characters": (
        lambda: model(
            [helper.make_node("Relu", ["x"], ["y"], name="n" * 10**6)], [1], [1]
        ).SerializeToString(),
        "has 1000000 characters",
    ),
    # onnx's shape inference never comes back from these.
    "an equation of dots": (lambda: einsum("...."), "is not an equation"),
    "an equation of two ellipses": (lambda: einsum("...a..."), "is not an equation"),
    "an equation of digits": (lambda: einsum("...1"), "is not an equation"),
    "a function twice": (
        lambda: functions({"f0": ["Relu"]}).SerializeToString() + wrap(25, wrap(1, b"f0") + wrap(10, b"f")),
        "defined twice",
    ),
}

SIZES = {
    "a product beyond 64 bits": [2**63 - 1, 2**63 - 1],
    "a product that wraps to 0": [2**32, 2**32],
    "a product that wraps to 4": [2**62 + 1, 4],
}


@pytest.mark.parametrize("name", CLAIMS)
def test_claims_of_millions_are_refused_within_bounds(name: str, tmp_path: Path) -> None:
    make, reason = CLAIMS[name]
    path = tmp_path / "claim.onnx"
    path.write_bytes(make())
    refused(confined("inspect", path), reason)


@pytest.mark.parametrize("name", STRUCTURES)
def test_broken_structures_are_refused(name: str, tmp_path: Path) -> None:
    make, reason = STRUCTURES[name]
    path = tmp_path / "m.onnx"
    path.write_bytes(make())
    with pytest.raises(ModelError, match=reason) as caught:
        load_graph(path)
    assert str(path) in f"{caught.value} {caught.value.context}"


@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_no_integer_holds_are_refused(name: str, tmp_path: Path) -> None:
    made = model([helper.make_node("Add", ["x", "w"], ["y"])], [2], None)
    made.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=SIZES[name], raw_data=b"1234")
    refuse_to_measure(made.SerializeToString(), tmp_path, "`w` claims")


def test_work_that_no_integer_holds_is_refused(tmp_path: Path) -> None:
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"])], [1 << 19, 1 << 38], None)
    made.graph.input.add().CopyFrom(helper.make_tensor_value_info("w", TensorProto.FLOAT, [1 << 38, 1 << 19]))
    refuse_to_measure(made.SerializeToString(), tmp_path, "more than 2\\^61 FLOPs")


def test_loops_in_loops_that_never_end_are_refused(tmp_path: Path) -> None:
    made = model([*trips(1 << 40, endless(3, 1 << 40), "x", "y")], [2], [2])
    refuse_to_measure(made.SerializeToString(), tmp_path, "more than 2\\^61 FLOPs")


def test_sparse_tensors_that_claim_to_be_dense_are_refused(tmp_path: Path) -> None:
    made = model([helper.make_node("Add", ["x", "s"], ["y"])], [2], None)
    values = helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("", TensorProto.INT64, [1], [0])
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2**62, 2**62]))
    refuse_to_measure(made.SerializeToString(), tmp_path, "`s` claims")


def test_what_is_large_and_legal_is_read(tmp_path: Path) -> None:
    # The limits must not be in the way of anything in use.
    names = [f"f{n}" for n in range(MOST_LEVELS - 2)]
    calls = {name: [following, "Relu"] for name, following in zip(names, [*names[1:], "Relu"], strict=True)}
    check_functions(functions(calls))
    for equation in ("ij", "ij->ji", "...j -> ...", "i...,j"):
        check_bounds(onnx.load_from_string(einsum(equation)))
    path = tmp_path / "m.onnx"
    path.write_bytes(whole(claims.wide_input([1] * MOST_DIMS)))
    assert load_graph(path).inputs == ("x", "q")


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"offset": "9" * 100_000}, "broken reference"),
        ({"offset": "1_0"}, "broken reference"),
        ({"offset": " 1"}, "broken reference"),
        ({"offset": "\N{ARABIC-INDIC DIGIT ONE}"}, "broken reference"),
        ({"offset": str(2**64)}, "past the end"),
        ({"offset": str(2**63 - 1), "length": str(2**63 - 1)}, "past the end"),
        ({"length": str(2**64 + 4)}, "past the end"),
        ({"length": "-4"}, "negative"),
    ],
)
def test_ranges_that_no_file_has(entries: dict[str, str], reason: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(4000))
    made = model([helper.make_node("Add", ["x", "w"], ["y"])], [1000], None)
    weight = made.graph.initializer.add(name="w", data_type=1, dims=[1000], data_location=1)
    for key, value in {"location": "w.bin", **entries}.items():
        weight.external_data.add(key=key, value=value)
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    with pytest.raises(ModelError, match=reason):
        load_graph(path)


def test_duplicates_among_many_are_found_in_time(tmp_path: Path) -> None:
    made = relu()
    for at in [*range(100_000), 99_999]:
        made.graph.initializer.add(name=f"w{at}", data_type=1, dims=[1], raw_data=b"1234")
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    refused(confined("inspect", path), "initializer `w99999` is given twice")


def test_a_long_chain_of_unknown_types_takes_linear_time(tmp_path: Path) -> None:
    # Written backwards, each pass over all nodes would settle one.
    count = 20_000
    nodes = [
        helper.make_node("Add", [f"v{n}", f"v{n}"], [f"v{n + 1}" if n < count else "y"])
        for n in range(1, count + 1)
    ]
    made = model([*reversed(nodes), helper.make_node("Magic", ["x"], ["v1"], domain="who")], [2], None)
    made.opset_import.add(domain="who", version=1)
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    (tmp_path / "tiers.toml").write_text(
        '[[tier]]\nname="a"\ngflops=1\n[[tier]]\nname="b"\ngflops=1\n[[link]]\nbandwidth_mbps=1\n'
    )
    words = (
        "split",
        path,
        "--tiers",
        tmp_path / "tiers.toml",
        "-o",
        tmp_path / "out",
        "--no-verify",
        "--at",
        "9",
    )
    ended = confined(*words)
    assert ended.code in (0, 2), ended
    assert "internal error" not in ended.err


def test_weights_that_all_lie_in_one_place_are_written_once(tmp_path: Path) -> None:
    """A thousand tensors over the same bytes must not become a thousand copies."""
    (tmp_path / "w.bin").write_bytes(os.urandom(1 << 20))
    sums = [helper.make_node("Sum", ["x", *(f"w{at}" for at in range(1000))], ["y"])]
    made = model(sums, [1 << 18], None)
    for at in range(1000):
        weight = made.graph.initializer.add(name=f"w{at}", data_type=1, dims=[1 << 18], data_location=1)
        for key, value in (("location", "w.bin"), ("length", str(1 << 20))):
            weight.external_data.add(key=key, value=value)
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    (tmp_path / "tiers.toml").write_text('[[tier]]\nname="a"\ngflops=1\n')
    words = ("split", path, "--tiers", tmp_path / "tiers.toml", "-o", tmp_path / "out", "--no-verify")
    assert confined(*words).code == 0
    assert sum(p.stat().st_size for p in (tmp_path / "out").rglob("*") if p.is_file()) < 2 << 20


def refuse_to_measure(content: bytes, folder: Path, reason: str) -> None:
    """Counts the work of a model, which must be refused for that reason."""
    path = folder / "m.onnx"
    path.write_bytes(content)
    graph = load_graph(path)
    with pytest.raises(ShapeError, match=reason) as caught:
        measure(graph, bind_shapes(graph))
    assert isinstance(caught.value, DnnsplitError)


def trips(count: int, body: object, given: str, made: str) -> list[object]:
    """A Loop of so many iterations."""
    maximum = helper.make_node("Constant", [], [f"m_{made}"], value=helper.make_tensor("m", 7, [], [count]))
    return [maximum, helper.make_node("Loop", [f"m_{made}", "", given], [made], body=body)]


def endless(depth: int, count: int) -> object:
    """The body of a loop that holds a loop that holds a loop."""
    go_on = helper.make_node("Identity", ["d"], ["e"])
    inner = (
        trips(count, endless(depth - 1, count), "s", "t")
        if depth
        else [helper.make_node("Relu", ["s"], ["t"])]
    )
    values = [("i", TensorProto.INT64, []), ("d", TensorProto.BOOL, []), ("s", TensorProto.FLOAT, [2])]
    made = [("e", TensorProto.BOOL, []), ("t", TensorProto.FLOAT, [2])]
    return helper.make_graph(
        [go_on, *inner],
        "body",
        [helper.make_tensor_value_info(*value) for value in values],
        [helper.make_tensor_value_info(*value) for value in made],
    )


def test_errors_stay_short_whatever_they_quote() -> None:
    assert len(one_line("x" * 10**7)) < 5000
    assert one_line("a\x1b[2J\nb") == "a\\x1b[2J b"


def test_shape_values_that_stretch_each_other_are_not_computed(tmp_path: Path) -> None:
    """Six vectors of a thousand numbers, each along an axis of its own: 10^18 numbers."""
    vectors = [
        helper.make_tensor(f"v{at}", 7, [*[1] * at, 1000, *[1] * (5 - at)], [1] * 1000) for at in range(6)
    ]
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Max", [vector.name for vector in vectors], ["m"]),
        helper.make_node("Reshape", ["x", "m"], ["y"]),
    ]
    made = model(nodes, [2], None)
    made.graph.initializer.extend(vectors)
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    graph = load_graph(path)
    assert bind_shapes(graph)["m"].elements in (None, 1000**6)


@pytest.mark.parametrize("through", ["an input", "a shape"])
def test_long_vectors_that_are_cast_take_no_memory(through: str, tmp_path: Path) -> None:
    """onnx's data propagation would write down 2^33 dimensions."""
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=7)]
    if through == "a shape":  # its length is known to propagation alone
        nodes = [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("ConstantOfShape", ["s"], ["c"]),
            helper.make_node("Cast", ["c"], ["y"], to=7),
        ]
    path = tmp_path / "m.onnx"
    path.write_bytes(model(nodes, [1 << 33], None).SerializeToString())
    ended = confined("inspect", path)
    assert ended.code == 0, ended
