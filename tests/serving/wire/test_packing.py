"""Packed tensors: what comes back, what a body may say of them, and what means harm."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnnsplit_onnx.serving.wire import packing
from dnnsplit_onnx.serving.wire.encoding import encode, to_text
from dnnsplit_onnx.serving.wire.errors import ProtocolError
from dnnsplit_onnx.serving.wire.packing import METHOD, PARAMETER, pack, unpack
from dnnsplit_onnx.serving.wire.protocol import parse, receive

zstandard = pytest.importorskip("zstandard", reason="needs zstandard: pip install 'dnnsplit-onnx[packed]'")

MIB = 1 << 20


def unpacked(packed: bytes, nbytes: int, itemsize: int = 4) -> bytes:
    into = np.full(nbytes, 7, np.uint8)
    unpack(memoryview(packed), itemsize, into)
    return into.tobytes()


@given(st.sampled_from([1, 2, 4, 8]).flatmap(lambda n: st.tuples(st.just(n), st.binary(max_size=64))))
def test_bytes_come_back(case: tuple[int, bytes]) -> None:
    itemsize, data = case
    raw = data * itemsize
    assert unpacked(pack(memoryview(raw), itemsize), len(raw), itemsize) == raw


def test_what_is_alike_packs() -> None:
    values = np.random.default_rng(0).standard_normal(1 << 16).astype(np.float32)
    raw, half = values.view(np.uint8).data, np.maximum(values, 0).view(np.uint8).data
    assert len(pack(raw, 4)) < 0.9 * len(raw) < len(pack(raw, 1))
    assert len(pack(half, 4)) < 0.6 * len(half)


def head(nbytes: object, shape: list[int], datatype: str = "FP32", method: object = METHOD) -> bytes:
    parameters = {"binary_data_size": nbytes, PARAMETER: method}
    entry = {"name": "x", "datatype": datatype, "shape": shape, "parameters": parameters}
    return json.dumps({"inputs": [entry]}).encode()


def through(arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], int]:
    """Arrays packed into a body, and read from it; and the bytes of its binary data."""
    tensors, buffers = encode(arrays, lambda _: True, pack)
    binary = b"".join(buffers)
    message = parse(to_text({"inputs": json.loads(tensors)}), "inputs", len(binary))
    at = 0

    def read_into(view: memoryview) -> None:
        nonlocal at
        view[:] = binary[at : at + len(view)]
        at += len(view)

    received = {t.name: receive(t, read_into, lambda n: np.empty(n, np.uint8)) for t in message.tensors}
    assert at == len(binary)
    return received, len(binary)


def test_a_body_of_packed_tensors_is_read_as_it_was() -> None:
    arrays = {
        "floats": np.linspace(0, 1, 1000, dtype=np.float32).reshape(10, 100),
        "halves": np.zeros((3, 400), np.float16),
        "bytes": np.zeros(500, np.uint8),
        "flags": np.ones(300, np.bool_),
        "words": np.array(["a", "b"], object),
    }
    received, nbytes = through(arrays)
    assert nbytes < sum(array.nbytes for name, array in arrays.items() if name != "words") / 2
    for name, array in arrays.items():
        if name == "words":
            assert received[name].tolist() == [b"a", b"b"]
        else:
            assert received[name].dtype == array.dtype
            assert received[name].tobytes() == array.tobytes()
            assert received[name].shape == array.shape


@pytest.mark.parametrize(
    ("nbytes", "shape", "datatype", "method"),
    [
        (400, [100], "FP32", METHOD),
        (500, [100], "FP32", METHOD),
        (0, [100], "FP32", METHOD),
        (0, [0], "FP32", METHOD),
        (-1, [100], "FP32", METHOD),
        (9.5, [100], "FP32", METHOD),
        (True, [100], "FP32", METHOD),
        (10, [100], "BYTES", METHOD),
        (10, [100], "FP32", "gzip"),
        (10, [100], "FP32", True),
    ],
)
def test_a_head_that_cannot_be_is_refused(
    nbytes: object, shape: list[int], datatype: str, method: object
) -> None:
    with pytest.raises(ProtocolError):
        parse(head(nbytes, shape, datatype, method), "inputs", int(nbytes))  # type: ignore[call-overload]


def test_answers_are_not_packed() -> None:
    text = head(10, [100]).replace(b"inputs", b"outputs")
    with pytest.raises(ProtocolError, match="not known here"):
        parse(text, "outputs", 10)


RAW = np.arange(4096, dtype=np.float32).tobytes()
GOOD = pack(memoryview(RAW), 4)


@pytest.mark.parametrize("nbytes", [0, 4, len(RAW) - 4, len(RAW) + 4, 2 * len(RAW)])
def test_another_size_than_the_head_says_is_refused(nbytes: int) -> None:
    with pytest.raises(ProtocolError, match="does not hold"):
        unpacked(GOOD, nbytes)


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(GOOD[:3], id="less than a head"),
        pytest.param(GOOD[:-1], id="truncated"),
        pytest.param(GOOD + b"x", id="more at the end"),
        pytest.param(GOOD + GOOD, id="two of them"),
        pytest.param(b"x" + GOOD, id="something in front"),
        pytest.param(GOOD[:8] + bytes(8) + GOOD[16:], id="damaged"),
        pytest.param(zstandard.ZstdCompressor(write_content_size=False).compress(RAW), id="no size"),
        pytest.param(zstandard.ZstdCompressor().compress(RAW[:-4]), id="another size"),
    ],
)
def test_what_is_not_packed_well_is_refused(packed: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpacked(packed, len(RAW))


def test_a_lie_about_the_size_is_noticed() -> None:
    # The head of a long frame in front of the data of a short one, and the other way round.
    short = zstandard.ZstdCompressor().compress(bytes(1000))
    long = zstandard.ZstdCompressor().compress(bytes(1200))
    for one, other, nbytes in ((long, short, 1200), (short, long, 1000)):
        at = zstandard.frame_header_size(one)
        forged = one[:at] + other[zstandard.frame_header_size(other) :]
        with pytest.raises(ProtocolError):
            unpacked(forged, nbytes)


def test_bombs_take_no_memory() -> None:
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(256 * MIB))
    assert len(bomb) < MIB
    wide = zstandard.ZstdCompressionParameters(window_log=27, compression_level=3)
    hungry = zstandard.ZstdCompressor(compression_params=wide)
    stream = hungry.compressobj(size=len(RAW))
    asks = stream.compress(RAW) + stream.flush()
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="does not hold"):
            unpacked(bomb, MIB)
        with pytest.raises(ProtocolError):
            unpacked(_with_window(asks), len(RAW))
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


def _with_window(frame: bytes) -> bytes:
    """A frame whose head asks for a window of 128 MiB, and holds what it held."""
    parameters = zstandard.get_frame_parameters(frame)
    body = frame[zstandard.frame_header_size(frame) :]
    # Magic number; descriptor: content size in 8 bytes, no single segment; window 2^27.
    made = frame[:4] + bytes([0b1100_0000, 17 << 3]) + parameters.content_size.to_bytes(8, "little") + body
    assert zstandard.get_frame_parameters(made).window_size == 128 * MIB
    return made


def test_without_the_library_nothing_is_offered_and_packed_tensors_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dnnsplit_onnx.runtime.packing._zstandard", lambda: None)
    assert not packing.can_pack()
    with pytest.raises(ProtocolError) as caught:
        unpacked(GOOD, len(RAW))
    assert caught.value.status == 415
