"""Weights taken out of a serialized message and put back, and bytes that are no message."""

from __future__ import annotations

import mmap
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.graph.modelfile import data_range, is_external, open_model, tensors
from dnnsplit_onnx.graph.protobuf import (
    MAX_DEPTH,
    MOST_FIELDS,
    DataRange,
    attach,
    detach,
    encode_varint,
    fields,
    length_delimited,
    varint,
)
from tests.slicing.constructs import CONSTRUCTS
from tests.slicing.weights import attributes, layers

# Field 999: unknown, and kept. In order: a varint, 8 bytes, a group, bytes, 4 bytes.
UNKNOWN = [
    b"\xb8\x3e\x05",
    b"\xb9\x3e12345678",
    b"\xbb\x3e\x08\x01\xbc\x3e",
    b"\xba\x3e\x03new",
    b"\xbd\x3e1234",
]


def joined(pieces: list[bytes | DataRange], source: bytes) -> bytes:
    return b"".join(p if isinstance(p, bytes) else source[p.offset : p.offset + p.length] for p in pieces)


def rich() -> onnx.ModelProto:
    """Weights in initializers, attributes, branches and functions."""
    built = attributes()
    built.graph.initializer.extend(layers().graph.initializer)
    return built


def test_detach_takes_every_large_weight_and_nothing_else() -> None:
    built = rich()
    source = built.SerializeToString()
    skeleton = onnx.ModelProto.FromString(detach(source, "m.onnx", 1024))
    assert skeleton.ByteSize() < 3000
    out, whole = list(tensors(skeleton)), list(tensors(built))
    assert len(out) == len(whole) == 8
    for tensor, original in zip(out, whole, strict=True):
        assert is_external(tensor)
        where = data_range(tensor)
        assert source[where.offset : where.offset + where.length] == original.raw_data
        assert (tensor.name, list(tensor.dims)) == (original.name, list(original.dims))


def test_attach_is_the_inverse() -> None:
    source = rich().SerializeToString()
    pieces = attach(detach(source, "m.onnx", 1024), "model", lambda where: where.location == "m.onnx")
    assert sum(isinstance(piece, DataRange) for piece in pieces) == 8
    assert onnx.ModelProto.FromString(joined(pieces, source)) == rich()


def test_attach_leaves_what_is_not_wanted() -> None:
    skeleton = detach(rich().SerializeToString(), "m.onnx", 1024)
    assert joined(attach(skeleton, "model", lambda _: False), b"") == skeleton


def test_a_mapped_file_reads_the_same(tmp_path: Path) -> None:
    source = rich().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(source)
    with (
        (tmp_path / "m.onnx").open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        assert detach(mapped, "m.onnx", 1024) == detach(source, "m.onnx", 1024)


def test_pages_are_given_back_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dnnsplit_onnx.graph.protobuf._UNMAP_SHIFT", 12)
    test_a_mapped_file_reads_the_same(tmp_path)


@pytest.mark.parametrize("name", CONSTRUCTS)
def test_nothing_large_nothing_changed(name: str) -> None:
    source = CONSTRUCTS[name]()[0].SerializeToString()
    assert detach(source, "m.onnx", 1024) == source


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_unknown_fields_are_kept(unknown: bytes) -> None:
    built = rich()
    for message in (built, built.graph, built.graph.node[2], built.graph.initializer[0], built.functions[0]):
        message.MergeFromString(unknown)
    source = built.SerializeToString()
    skeleton = detach(source, "m.onnx", 1024)
    assert skeleton.count(unknown) >= 5
    assert joined(attach(skeleton, "model", lambda _: True), source).count(unknown) >= 5


def test_packed_floats_are_the_bytes_of_raw_data() -> None:
    numbers = np.linspace(0, 1, 500)
    for dtype, field in ((np.float32, "float_data"), (np.float64, "double_data")):
        tensor = onnx.TensorProto(data_type=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), dims=[500])
        getattr(tensor, field).extend(numbers.astype(dtype).tolist())
        built = onnx.ModelProto()
        built.graph.initializer.append(tensor)
        source = built.SerializeToString()
        pieces = attach(detach(source, "m.onnx", 64), "model", lambda _: True)
        back = onnx.ModelProto.FromString(joined(pieces, source)).graph.initializer[0]
        assert np.array_equal(numpy_helper.to_array(back), numbers.astype(dtype))


@given(st.integers(0, 2**63 - 1))
def test_varints(number: int) -> None:
    assert varint(encode_varint(number), 0, 10 if number > 2**56 else len(encode_varint(number)))[0] == number


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for call in (lambda: detach(data, "m", 8), lambda: attach(data, "model", lambda _: True)):
        with suppress(ModelError):
            call()


@given(st.data())
def test_a_damaged_model_is_read_or_refused(data: st.DataObject) -> None:
    source = bytearray(rich().SerializeToString())
    source = source[: data.draw(st.integers(0, len(source)))]
    for _ in range(data.draw(st.integers(0, 5))):
        if source:
            source[data.draw(st.integers(0, len(source) - 1))] = data.draw(st.integers(0, 255))
    test_any_bytes_are_read_or_refused.hypothesis.inner_test(bytes(source))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80", "an unfinished integer"),
        (b"\xff" * 11, "an unfinished integer"),
        (b"\x00\x01", "field number 0"),
        (b"\x0f", "wire type 7"),
        (b"\x3a\x05ab", "a field of 5 bytes where 2 are left"),
        (b"\x0b\x08\x01", "a group without an end"),
        (b"\x0b\x0b\x14", "a group without an end"),
        (b"\x0b" * 200, "a group without an end"),
    ],
)
def test_bytes_that_are_no_message(data: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        list(fields(data, 0, len(data)))


@pytest.mark.parametrize("entry", [(b"offset", b"x"), (b"location", b"\xff")])
def test_a_broken_reference(entry: tuple[bytes, bytes]) -> None:
    tensor = b""
    for key, text in ((b"location", b"w"), entry):
        pair = length_delimited(1, len(key)) + key + length_delimited(2, len(text)) + text
        tensor += length_delimited(13, len(pair)) + pair
    with pytest.raises(ModelError, match="broken reference"):
        attach(tensor, "tensor", lambda _: True)


def test_two_sets_of_data_in_a_tensor() -> None:
    data = length_delimited(9, 2000) + bytes(2000)
    tensor = data + data
    graph = length_delimited(5, len(tensor)) + tensor
    with pytest.raises(ModelError, match="two sets of data"):
        detach(length_delimited(7, len(graph)) + graph, "m", 1024)


def nested(depth: int, core: bytes) -> bytes:
    """Graphs in attributes of nodes of graphs."""
    for number in [*([6, 5, 1] * depth), 7]:
        core = length_delimited(number, len(core)) + core
    return core


def test_a_model_nested_without_end() -> None:
    tensor = length_delimited(9, 2000) + bytes(2000)
    graph = length_delimited(5, len(tensor)) + tensor
    shallow = detach(nested(MAX_DEPTH // 3 - 2, graph), "m", 1024)
    assert len(shallow) < 2000
    for call in (lambda d: detach(d, "m", 64), lambda d: attach(d, "model", lambda _: True)):
        with pytest.raises(ModelError, match="nested more than 100 deep"):
            call(nested(MAX_DEPTH, length_delimited(3, 100) + b"location" * 12 + b"1234"))


def test_numbers_of_an_attribute_are_no_fields(tmp_path: Path) -> None:
    # A tree ensemble of millions of nodes: each number is a field of its own, of two bytes.
    def part(number: int, payload: bytes) -> bytes:
        return length_delimited(number, len(payload)) + payload

    numbers = b"\x40\x01" * (MOST_FIELDS + 1)
    attribute = part(1, b"ids") + numbers + b"\xa0\x01\x07"
    node = part(1, b"x") + part(2, b"y") + part(4, b"Trees") + part(5, attribute) + part(7, b"com.example")
    small = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "com.example" : 1]> g (float[4] x) => (float[4] y) {}'
    )
    del small.graph.node[:]
    graph = small.graph.SerializeToString() + part(1, node)
    small.ClearField("graph")
    (tmp_path / "m.onnx").write_bytes(small.SerializeToString() + part(7, graph))
    (read,) = open_model(tmp_path / "m.onnx").proto.graph.node
    assert len(read.attribute[0].ints) == MOST_FIELDS + 1
