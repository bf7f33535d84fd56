"""Where the bytes of weights end up, and that they are the right ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper as h

from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.modelfile import data_range, is_external, tensors
from dnnsplit_onnx.slicing import files, slice_model
from dnnsplit_onnx.slicing.manifest import SliceRecord
from tests.slicing.chain import check_cut, plan_at, run_whole
from tests.slicing.constructs import model, value
from tests.slicing.weights import SIDE, attributes, layers, matrix, refer, save

X = matrix(99)[:5]
BUILDERS: dict[str, Callable[[], onnx.ModelProto]] = {"layers": layers, "attributes": attributes}
FEEDS = {"layers": {"x": X}, "attributes": {"x": X, "p": np.array(False)}}


@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
@pytest.mark.parametrize("name", BUILDERS)
def test_chain_equals_whole(name: str, external: bool, tmp_path: Path) -> None:
    path = save(BUILDERS[name](), tmp_path / "source.onnx", external=external)
    graph = load_graph(path)
    for at in range(len(graph.nodes) + 1):
        manifest = check_cut(path, (at,), FEEDS[name], tmp_path / "out", graph=graph)
        for record in manifest.slices:
            assert bool(record.data) == (external and record.file is not None)
            if record.file:
                onnx.checker.check_model(tmp_path / "out" / record.file)


def test_inline_weights_are_the_bytes_that_protobuf_would_write(tmp_path: Path) -> None:
    """A slice of everything has the same weights as the source, whatever field held them."""
    built = layers()
    packed = built.graph.initializer[1]
    numbers = onnx.numpy_helper.to_array(packed).ravel().tolist()
    packed.ClearField("raw_data")
    packed.float_data.extend(numbers)
    graph = load_graph(save(built, tmp_path / "source.onnx", external=False))
    slice_model(graph, plan_at(graph, ()), tmp_path / "out")
    whole = onnx.load(tmp_path / "out" / "t0" / "model.onnx")
    for at, tensor in enumerate(whole.graph.initializer):
        assert np.array_equal(onnx.numpy_helper.to_array(tensor), matrix(at))
        assert tensor.HasField("raw_data")
        assert not tensor.external_data


def test_each_slice_has_its_own_weights_only(tmp_path: Path) -> None:
    graph = load_graph(save(layers(), tmp_path / "source.onnx", external=True))
    manifest = slice_model(graph, plan_at(graph, (4, 6)), tmp_path / "out")
    size = SIDE * SIDE * 4
    assert [record.data[0].nbytes for record in manifest.slices] == [2 * size, size, 2 * size]
    for record in manifest.slices:  # the names that docs/files.md promises
        assert record.file == f"{record.tier}/model.onnx"
        assert record.data[0].file == f"{record.tier}/model.onnx.data"
        names = {path.name for path in (tmp_path / "out" / record.tier).iterdir()}
        assert names == {"model.onnx", "model.onnx.data"}


def test_shared_and_overlapping_weights_are_written_once(tmp_path: Path) -> None:
    built = layers()
    size = SIDE * SIDE * 4
    (tmp_path / "weights").write_bytes(b"".join(matrix(at).tobytes() for at in range(3)))
    # w0 and w1 share all bytes, w2 overlaps with both, w3 stands apart.
    for at, offset in enumerate((0, 0, size // 2, 2 * size)):
        refer(built.graph.initializer[at], "weights", offset, size)
    path = save(built, tmp_path / "source.onnx", external=False)
    manifest = check_cut(path, (2,), {"x": X}, tmp_path / "out")
    assert [record.data[0].nbytes for record in manifest.slices] == [size, size * 3 // 2 + size]


def test_weights_are_aligned(tmp_path: Path) -> None:
    sizes = [1500, 3 << 20, 1025, 1 << 20]
    layout = files.lay_out_data(
        [files.DataRange("w", 10_000_000 * at, size) for at, size in enumerate(sizes)], "model.onnx.data"
    )
    places = [layout.place(files.DataRange("w", 10_000_000 * at, size)) for at, size in enumerate(sizes)]
    assert [place.offset for place in places] == [0, 65536, 65536 + (3 << 20), 65536 * 50]
    assert layout.content.nbytes == places[-1].offset + sizes[-1]
    assert layout.place(files.DataRange("w", 10_000_100, 5)).offset == 65636
    # What is written is as long as it says, zeros between the weights.
    written, at = [], 0
    for piece in layout.content.pieces:
        if isinstance(piece, bytes):
            assert not any(piece)
            at += len(piece)
        else:
            written.append((at, piece.length))
            at += piece.length
    assert written == [(place.offset, place.length) for place in places]
    assert at == layout.content.nbytes


def test_weights_side_by_side_stay_apart_and_those_that_overlap_together() -> None:
    ranges = [files.DataRange("w", at, 100) for at in (0, 100, 350, 300, 320)]
    layout = files.lay_out_data(ranges, "model.onnx.data")
    assert [layout.place(where).offset for where in ranges] == [0, 64 * 2, 64 * 4 + 50, 64 * 4, 64 * 4 + 20]
    assert layout.content.nbytes == 64 * 4 + 150


def test_the_largest_message_is_what_protobuf_reads() -> None:
    assert files.MAX_MESSAGE_NBYTES == 2_147_483_647


def test_a_slice_too_large_for_protobuf_gets_a_data_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(layers(), tmp_path / "source.onnx", external=False)
    monkeypatch.setattr(files, "MAX_MESSAGE_NBYTES", 3 * SIDE * SIDE * 4)
    manifest = check_cut(path, (4,), {"x": X}, tmp_path / "out")
    assert [bool(record.data) for record in manifest.slices] == [False, True]


def test_a_slice_whose_attributes_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(attributes(), tmp_path / "source.onnx", external=False)
    monkeypatch.setattr(files, "MAX_MESSAGE_NBYTES", 6000)
    for p in (True, False):
        manifest = check_cut(path, (2,), {"x": X, "p": np.array(p)}, tmp_path / "out")
        assert [bool(record.data) for record in manifest.slices] == [True, True]


def test_a_source_that_is_named_like_the_data_file(tmp_path: Path) -> None:
    path = save(layers(), tmp_path / "model.onnx.data", external=False)
    assert all(record.data for record in check_cut(path, (3,), {"x": X}, tmp_path / "out").slices)


def test_references_keep_what_onnx_does_not_define(tmp_path: Path) -> None:
    built = layers()
    path = save(built, tmp_path / "source.onnx", external=True)
    marked = onnx.load(path, load_external_data=False)
    for key, text in (("checksum", "abc"), ("prefetch", "yes")):
        marked.graph.initializer[0].external_data.add(key=key, value=text)
    path.write_bytes(marked.SerializeToString())
    graph = load_graph(path)
    slice_model(graph, plan_at(graph, ()), tmp_path / "out")
    whole = onnx.load(tmp_path / "out" / "t0" / "model.onnx", load_external_data=False)
    entries = {entry.key: entry.value for entry in whole.graph.initializer[0].external_data}
    assert entries.keys() == {"location", "offset", "length", "prefetch"}  # the checksum was of another file


def _references(folder: Path, record: SliceRecord) -> list[str]:
    part = onnx.load(folder / str(record.file), load_external_data=False)
    return [data_range(tensor).location for tensor in tensors(part) if is_external(tensor)]


def test_small_external_weights_become_inline(tmp_path: Path) -> None:
    built = layers()
    shape = onnx.numpy_helper.from_array(np.array([-1, SIDE], np.int64), "shape")
    built.graph.initializer.append(shape)
    built.graph.node[0].input[0] = "flat"
    built.graph.node.insert(0, onnx.helper.make_node("Reshape", ["x", "shape"], ["flat"]))
    # onnxruntime takes no external operand for a shape: what it says of the inline model counts.
    expected = run_whole(save(built, tmp_path / "inline.onnx", external=False), {"x": X})
    path = save(built, tmp_path / "source.onnx", external=True)
    manifest = check_cut(path, (1,), {"x": X}, tmp_path / "out", expected=expected)
    assert [_references(tmp_path / "out", r) for r in manifest.slices] == [[], ["model.onnx.data"] * 4]


def test_weights_in_files_do_not_count_for_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, size = layers(), SIDE * SIDE * 4
    (tmp_path / "weights").write_bytes(matrix(0).tobytes() + matrix(1).tobytes())
    for at in range(2):
        refer(built.graph.initializer[at], "weights", at * size, size)
    path = save(built, tmp_path / "source.onnx", external=False)
    monkeypatch.setattr(files, "MAX_MESSAGE_NBYTES", 3 * size)  # room for two, not for four
    (record,) = check_cut(path, (), {"x": X}, tmp_path / "out").slices
    assert [data.nbytes for data in record.data] == [2 * size]


def everywhere() -> onnx.ModelProto:
    """Weights of all kinds: two initializers and two constants, and the shape of a Reshape, a small one."""
    parts = [h.make_node("Reshape", ["x", "shape"], ["m0"])]
    for at, name in enumerate(("w0", "w1", "c2", "c3")):
        if name.startswith("c"):
            parts.append(h.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(matrix(at))))
        parts.append(h.make_node("MatMul", [f"m{at}", name], [f"m{at + 1}"]))
    weights = [onnx.numpy_helper.from_array(matrix(at), f"w{at}") for at in range(2)]
    weights.insert(0, onnx.numpy_helper.from_array(np.array([-1, SIDE], np.int64), "shape"))
    ends = [[value(name, shape=("N", SIDE))] for name in ("x", "m4")]
    return model(h.make_graph(parts, "g", *ends, weights))


@pytest.mark.parametrize(
    ("most", "in_data"),
    [
        (3 * SIDE * SIDE * 4, ("w1", "c3")),  # what the source has in a file
        (2 * SIDE * SIDE * 4, ("w0", "w1", "c3")),  # all initializers too
        (SIDE * SIDE * 4, ("w0", "w1", "c2", "c3")),  # all there is; the small one stays where it is
    ],
)
def test_what_moves_when_a_slice_is_too_large(
    most: int, in_data: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, size = everywhere(), SIDE * SIDE * 4
    (tmp_path / "weights").write_bytes(matrix(1).tobytes() + matrix(3).tobytes())
    constant = next(node for node in built.graph.node if node.output[0] == "c3")
    refer(built.graph.initializer[2], "weights", 0, size)
    refer(constant.attribute[0].t, "weights", size, size)
    path = save(built, tmp_path / "source.onnx", external=False)
    expected = run_whole(path, {"x": X})
    monkeypatch.setattr(files, "MAX_MESSAGE_NBYTES", most)
    (record,) = check_cut(path, (), {"x": X}, tmp_path / "out", expected=expected).slices
    assert [data.nbytes for data in record.data] == [len(in_data) * size]
    part = onnx.load(tmp_path / "out" / str(record.file), load_external_data=False)
    constants = {
        node.output[0]: node.attribute[0].t for node in part.graph.node if node.op_type == "Constant"
    }
    found = {tensor.name: tensor for tensor in part.graph.initializer} | constants
    assert {name for name, tensor in found.items() if is_external(tensor)} == set(in_data)
