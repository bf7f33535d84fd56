"""Opening a model file: what is read, what is left where it lies, what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.graph.modelfile import data_range, is_external, open_model, set_data_range, tensors
from dnnsplit_onnx.graph.protobuf import DataRange
from tests.slicing.weights import SIDE, attributes, layers, matrix, refer, save

NBYTES = SIDE * SIDE * 4


@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
@pytest.mark.parametrize("build", [layers, attributes])
def test_weights_stay_where_they_lie(
    build: Callable[[], onnx.ModelProto], external: bool, tmp_path: Path
) -> None:
    built = build()
    file = open_model(save(build(), tmp_path / "m.onnx", external=external))
    assert file.proto.ByteSize() < 2500
    for tensor, original in zip(tensors(file.proto), tensors(built), strict=True):
        where = data_range(tensor)
        assert file.is_inline(where) != external
        data = (tmp_path / where.location).read_bytes()
        assert data[where.offset : where.offset + where.length] == original.raw_data


def test_small_external_weights_are_read(tmp_path: Path) -> None:
    built = layers(1)
    built.graph.initializer.append(numpy_helper.from_array(np.arange(5), "small"))
    file = open_model(save(built, tmp_path / "m.onnx", external=True))
    small = file.proto.graph.initializer[1]
    assert not is_external(small)
    assert numpy_helper.to_array(small).tolist() == [0, 1, 2, 3, 4]


def test_a_range_without_a_length_goes_to_the_end(tmp_path: Path) -> None:
    built = layers(1)
    refer(built.graph.initializer[0], "w", 16)
    (tmp_path / "w").write_bytes(bytes(NBYTES + 16))
    (weight,) = open_model(save(built, tmp_path / "m.onnx", external=False)).proto.graph.initializer
    assert data_range(weight) == DataRange("w", 16, NBYTES)


def test_a_reference_is_replaced_and_the_rest_of_it_kept() -> None:
    tensor = onnx.TensorProto()
    for key, text in (("location", "a"), ("checksum", "1"), ("other", "2")):
        tensor.external_data.add(key=key, value=text)
    set_data_range(tensor, DataRange("b", 1, 2))
    entries = [(entry.key, entry.value) for entry in tensor.external_data]
    assert entries == [("location", "b"), ("offset", "1"), ("length", "2"), ("other", "2")]


def broken(folder: Path, *reference: object) -> Path:
    """A model with one weight whose reference is `(location, offset, length)`."""
    built = layers(1)
    refer(built.graph.initializer[0], *reference)  # type: ignore[arg-type]
    return save(built, folder / "m.onnx", external=False)


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "a/../../secret", "", "x\0y", "link", "folder/secret"]
)
def test_nothing_outside_the_folder_is_read(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(NBYTES))
    (folder / "link").symlink_to("../secret")
    (folder / "folder").symlink_to("..")
    with pytest.raises(ModelError, match="outside the model's folder") as caught:
        open_model(broken(folder, location, 0, NBYTES))
    assert "w0" in caught.value.message


def test_links_inside_the_folder_are_fine(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "real").write_bytes(matrix(0).tobytes())
    (tmp_path / "link").symlink_to("data/real")
    assert open_model(broken(tmp_path, "link", 0, NBYTES)).proto.graph.initializer[0].name == "w0"


def test_a_folder_reached_through_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    save(layers(), tmp_path / "real" / "m.onnx", external=True)
    (tmp_path / "link").symlink_to("real")
    assert len(open_model(tmp_path / "link" / "m.onnx").proto.graph.node) == 9


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (("w", 0, NBYTES + 1), "past the end"),
        (("w", 1, NBYTES), "past the end"),
        (("w", 10**30, None), "past the end"),
        (("w", -4, NBYTES), "negative"),
        (("w", 0, -5), "negative"),
        (("w", "x", NBYTES), "broken reference"),
        (("w", 0, "1e3"), "broken reference"),
        (("gone", 0, NBYTES), "missing external data: `gone`"),
        (("w/x", 0, NBYTES), "missing external data"),
        (("folder", 0, NBYTES), "not a regular file"),
        (("pipe", 0, NBYTES), "not a regular file"),
    ],
)
def test_broken_references(reference: tuple[object, ...], message: str, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(matrix(0).tobytes())
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match=message) as caught:
        open_model(broken(tmp_path, *reference))
    assert "\n" not in caught.value.message


def test_a_reference_without_a_location(tmp_path: Path) -> None:
    built = layers(1)
    refer(built.graph.initializer[0], "w")
    del built.graph.initializer[0].external_data[0]
    with pytest.raises(ModelError, match="broken reference"):
        open_model(save(built, tmp_path / "m.onnx", external=False))


def _no_file(path: Path) -> None:
    path.with_suffix("").mkdir()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b"# not a model\n" * 99, "not a"),
        (b"\x89HDF\r\n\x1a\n" + bytes(500), "is an HDF5 file"),
        (b"\x08\x09", "holds no graph"),
        (b"\x3a\x00", "holds no graph"),
        (b"\x3a\x02\x0a\x00\x08\x09\x12\xff", "not a"),
    ],
)
def test_files_that_are_no_models(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        open_model(tmp_path / "m.onnx")


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no ONNX model"):
        open_model(tmp_path)


def test_a_truncated_model(tmp_path: Path) -> None:
    whole = layers().SerializeToString()
    for size in (1, 50, 500, len(whole) // 2, len(whole) - 1):
        (tmp_path / "m.onnx").write_bytes(whole[:size])
        with pytest.raises(ModelError):
            open_model(tmp_path / "m.onnx")


def test_a_model_that_changed_is_noticed(tmp_path: Path) -> None:
    file = open_model(save(layers(), tmp_path / "m.onnx", external=False))
    file.check_unchanged()
    os.utime(tmp_path / "m.onnx", (1, 1))
    with pytest.raises(ModelError, match="has changed"):
        file.check_unchanged()
