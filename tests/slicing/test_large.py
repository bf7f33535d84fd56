"""Models past protobuf's limit, and graphs of many nodes. Sparse files stand in for weights."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h

from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.protobuf import length_delimited
from dnnsplit_onnx.slicing import slice_all_candidates, slice_model
from tests.slicing.chain import plan_at, session
from tests.slicing.constructs import model, value
from tests.slicing.weights import refer

GIB = 1 << 30


def gathers(count: int) -> onnx.ModelProto:
    """Lookups in tables of 512 MiB each, so that a run touches a few rows only."""
    nodes = [h.make_node("Gather", [f"w{at}", "i"], [f"r{at}"]) for at in range(count)]
    nodes += [
        h.make_node("Add", [f"r{at - 1}" if at == 1 else f"s{at - 1}", f"r{at}"], [f"s{at}"])
        for at in range(1, count)
    ]
    tables = [T(name=f"w{at}", data_type=T.FLOAT, dims=[1 << 20, 128]) for at in range(count)]
    outputs = [value(f"s{count - 1}", shape=("n", 128))]
    return model(h.make_graph(nodes, "g", [value("i", T.INT64, ("n",))], outputs, tables))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that does not outlive its test, as those of `tmp_path` do."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def sparse_file(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


@pytest.mark.slow
def test_3_gib_of_external_weights(folder: Path) -> None:
    built = gathers(6)
    for at, tensor in enumerate(built.graph.initializer):
        refer(tensor, "w.bin", at * GIB // 2, GIB // 2)
    sparse_file(folder / "w.bin", 3 * GIB)
    (folder / "m.onnx").write_bytes(built.SerializeToString())
    graph = load_graph(folder / "m.onnx")
    manifest = slice_model(graph, plan_at(graph, (2,)), folder / "out")
    assert [record.data[0].nbytes for record in manifest.slices] == [GIB, 2 * GIB]
    for record in manifest.slices:
        onnx.checker.check_model(folder / "out" / str(record.file))
        session(folder / "out" / str(record.file))


@pytest.mark.slow
def test_inline_weights_past_the_limit_move_out(folder: Path) -> None:
    """A file of 2.5 GiB that protobuf itself cannot read, cut in halves that it can, or not."""
    built = gathers(5)
    tables = [tensor.SerializeToString() for tensor in built.graph.initializer]
    del built.graph.initializer[:]
    rest = built.graph.SerializeToString()
    built.ClearField("graph")
    heads = [table + length_delimited(9, GIB // 2) for table in tables]
    fields = [length_delimited(5, len(head) + GIB // 2) + head for head in heads]
    with (folder / "m.onnx").open("wb") as file:
        file.write(built.SerializeToString())
        file.write(length_delimited(7, len(rest) + sum(len(field) + GIB // 2 for field in fields)) + rest)
        for field in fields:
            file.write(field)
            file.seek(GIB // 2, 1)
        file.truncate(file.tell())
    graph = load_graph(folder / "m.onnx")
    manifest = slice_model(graph, plan_at(graph, (1,)), folder / "out")
    assert [len(record.data) for record in manifest.slices] == [0, 1]
    assert manifest.slices[0].nbytes is not None
    assert manifest.slices[0].nbytes > GIB // 2
    for record in manifest.slices:
        session(folder / "out" / str(record.file))


@pytest.mark.slow
def test_further_slices_cost_their_graph_only(folder: Path) -> None:
    built = gathers(6)
    for at, tensor in enumerate(built.graph.initializer):
        refer(tensor, "w.bin", at * GIB // 2, GIB // 2)
    sparse_file(folder / "w.bin", 3 * GIB)
    (folder / "m.onnx").write_bytes(built.SerializeToString())
    graph = load_graph(folder / "m.onnx")
    slice_all_candidates(graph, plan_at(graph, (2,)), range(len(graph.nodes)), folder / "out")
    sizes = [path.stat().st_size for path in (folder / "out").glob("*/*.onnx")]
    assert len(sizes) > 20
    assert max(sizes) < 5000


def test_a_long_graph(tmp_path: Path) -> None:
    nodes = [h.make_node("Add", [f"v{at}", "w"], [f"v{at + 1}"]) for at in range(5000)]
    weight = h.make_tensor("w", T.FLOAT, [1], [0.5])
    graph_proto = h.make_graph(nodes, "g", [value("v0")], [value("v5000")], [weight])
    onnx.save(model(graph_proto), tmp_path / "m.onnx")
    graph = load_graph(tmp_path / "m.onnx")
    manifest = slice_model(graph, plan_at(graph, (1000, 3000)), tmp_path / "out")
    assert [port.name for record in manifest.slices for port in record.inputs] == ["v0", "v1000", "v3000"]
