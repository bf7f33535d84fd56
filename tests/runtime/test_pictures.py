"""Pictures as inputs: what is read of files, what takes them, and files that mean harm."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.errors import InputError, MissingExtraError
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.runtime import pictures
from dnnsplit_onnx.runtime.inputs import check_inputs, input_sets
from dnnsplit_onnx.runtime.pictures import Picture, decode, load_pictures, picture_of
from dnnsplit_onnx.runtime.samples import sample_sets

image = pytest.importorskip("PIL.Image", reason="needs Pillow: pip install 'dnnsplit-onnx[images]'")

PORT = Port(name="picture", dtype="uint8", shape=(1, 20, 30, 3))
MIB = 1 << 20


def pixels(height: int = 20, width: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def file_of(array: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def test_a_file_of_the_inputs_size_is_its_pixels() -> None:
    assert np.array_equal(decode(file_of(pixels()), 20, 30), pixels())


def test_others_are_resized_turned_and_made_rgb() -> None:
    flat = np.full((40, 60, 3), (10, 200, 30), np.uint8)
    assert np.array_equal(decode(file_of(flat), 20, 30), flat[:20, :30])
    grey = np.full((20, 30), 77, np.uint8)
    assert np.array_equal(decode(file_of(grey), 20, 30), np.full((20, 30, 3), 77))
    upright = image.Exif()
    upright[0x0112] = 6  # to be turned by 90 degrees
    turned = decode(file_of(pixels(30, 20), "PNG", exif=upright), 20, 30)
    assert np.array_equal(turned, np.rot90(pixels(30, 20), -1))


def test_jpeg_is_read_as_pillow_reads_it() -> None:
    data = file_of(pixels(), "JPEG", quality=90)
    assert np.array_equal(decode(data, 20, 30), np.asarray(image.open(BytesIO(data))))


@pytest.mark.parametrize(
    ("shape", "dtype", "takes"),
    [
        ((1, 20, 30, 3), "uint8", True),
        (("batch", 20, 30, 3), "uint8", True),
        ((2, 20, 30, 3), "uint8", False),
        ((1, 20, "width", 3), "uint8", False),
        ((1, 3, 20, 30), "uint8", False),
        ((1, 20, 30, 3), "float", False),
        ((20, 30, 3), "uint8", False),
        (None, "uint8", False),
    ],
)
def test_what_takes_pictures(shape: tuple[int | str, ...] | None, dtype: str, takes: bool) -> None:
    port = Port(name="x", dtype=dtype, shape=shape)
    assert port.is_picture is takes
    if not takes:
        with pytest.raises(InputError, match="no picture") as caught:
            picture_of(b"", port)
        assert "dnnsplit-onnx image MODEL" in (caught.value.hint or "")


GOOD = file_of(pixels(200, 300))
JPEG = file_of(pixels(200, 300), "JPEG")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xd8\xff", id="the beginning of a JPEG"),
        pytest.param(GOOD[: len(GOOD) // 2], id="half a PNG"),
        pytest.param(JPEG[: len(JPEG) // 2], id="half a JPEG"),
        pytest.param(GOOD[:100] + bytes(40) + GOOD[140:], id="a damaged PNG"),
        pytest.param(file_of(pixels(), "GIF"), id="a GIF"),
        pytest.param(file_of(pixels(), "TIFF"), id="a TIFF"),
        pytest.param(file_of(pixels(), "BMP"), id="a BMP"),
        pytest.param(b"GIF89a" + bytes(100), id="the head of a GIF"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n", id="PostScript"),
    ],
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="no JPEG or PNG that can be read"):
        decode(data, 20, 30)


def bomb(width: int, height: int) -> bytes:
    """A small PNG that says to be large, and is."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compressobj(9)
    line = bytes(1 + width // 8)
    packed = b"".join(rows.compress(line) for _ in range(min(height, 2000))) + rows.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(10_000, 6_000), (100_000, 100_000), (1 << 30, 1 << 30)])
def test_bombs_take_no_memory(size: tuple[int, int]) -> None:
    data = bomb(1 << 14, 1 << 14) if size[0] > 1 << 20 else bomb(*size)
    if size[0] > 1 << 20:  # no row of it could be made
        data = data.replace(struct.pack(">II", 1 << 14, 1 << 14), struct.pack(">II", *size))
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            decode(data, 20, 30)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


def test_files_that_are_too_long_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_NBYTES", 1000)
    (tmp_path / "long.png").write_bytes(GOOD)
    with pytest.raises(InputError, match="larger than"):
        load_pictures(tmp_path / "long.png", [PORT])
    with pytest.raises(InputError, match="at most 1000 are read"):
        decode(GOOD, 20, 30)


def test_without_pillow_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_pillow", lambda: None)
    with pytest.raises(MissingExtraError) as caught:
        decode(GOOD, 20, 30)
    assert caught.value.hint == "pip install 'dnnsplit-onnx[images]'"


def test_inputs_are_pictures_and_folders_of_them(tmp_path: Path) -> None:
    for at in range(3):
        (tmp_path / f"{2 - at}.PNG").write_bytes(file_of(pixels(seed=at)))
    (tmp_path / "notes.txt").write_text("no picture")
    for sets in (input_sets([PORT], tmp_path, {}, seed=0, runs=1), sample_sets([PORT], tmp_path, {})):
        assert [Path(one.source).name for one in sets] == ["0.PNG", "1.PNG", "2.PNG"]
        for at, one in enumerate(sets):
            assert np.array_equal(one.values["picture"], pixels(seed=2 - at)[np.newaxis])
    (one,) = input_sets([PORT], tmp_path / "0.PNG", {}, seed=0, runs=1)
    assert one.source == str(tmp_path / "0.PNG")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no pictures"):
        input_sets([PORT], tmp_path / "empty", {}, seed=0, runs=1)
    with pytest.raises(InputError, match="the model reads 2 inputs"):
        input_sets([PORT, PORT], tmp_path, {}, seed=0, runs=1)
    with pytest.raises(InputError, match="no such file"):
        input_sets([PORT], tmp_path / "absent.jpg", {}, seed=0, runs=1)


def test_a_value_is_a_path_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(file_of(pixels()))
    for value in (tmp_path / "a.png", file_of(pixels()), Picture(file_of(pixels()), 20, 30), pixels()[None]):
        assert np.array_equal(check_inputs({"picture": value}, [PORT])["picture"], pixels()[None])
