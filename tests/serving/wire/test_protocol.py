"""The protocol's messages: there and back, and nothing but a `ProtocolError` for any bytes."""

from __future__ import annotations

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dnnsplit_onnx.serving.wire.datatypes import DATATYPES, datatype_of
from dnnsplit_onnx.serving.wire.encoding import encode, to_text, with_tensors, without_trace
from dnnsplit_onnx.serving.wire.errors import ProtocolError
from dnnsplit_onnx.serving.wire.protocol import Message, parse, receive

NUMERIC = [d.numpy for d in DATATYPES.values() if d.itemsize is not None and d.name != "BF16"]


def decode(text: bytes, binary: bytes, kind: str = "inputs") -> tuple[Message, dict[str, np.ndarray]]:
    message = parse(text, kind, len(binary))  # type: ignore[arg-type]
    at = 0

    def read_into(view: memoryview) -> None:
        nonlocal at
        view[:] = binary[at : at + len(view)]
        at += len(view)

    arrays = {t.name: receive(t, read_into, lambda n: np.empty(n, np.uint8)) for t in message.tensors}
    assert at == len(binary)
    return message, arrays


def there_and_back(array: np.ndarray, *, binary: bool) -> np.ndarray:
    tensors, buffers = encode({"x": array}, lambda _: binary)
    _, arrays = decode(to_text({"inputs": json.loads(tensors)}), b"".join(buffers))
    return arrays["x"]


@given(
    st.sampled_from(NUMERIC).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0))
    )
)
def test_numbers_travel_bit_for_bit(array):
    back = there_and_back(array, binary=True)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@given(
    st.sampled_from(NUMERIC).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0))
    )
)
def test_numbers_travel_as_json_too(array):
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        with pytest.raises(ProtocolError, match="not finite"):
            there_and_back(array, binary=False)
        return
    back = there_and_back(array, binary=False)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@given(
    hnp.arrays(
        object,
        hnp.array_shapes(min_dims=0, min_side=0),
        elements=st.text(st.characters(exclude_categories=["Cs"])),
    ),
    st.booleans(),
)
def test_strings_travel(array, binary):
    back = there_and_back(array, binary=binary)
    assert back.shape == array.shape
    assert [element.decode() for element in back.reshape(-1)] == list(array.reshape(-1))


def test_bfloat16_travels_as_binary_data_only():
    array = np.array([1.5, -2.0, np.inf], ml_dtypes.bfloat16)
    assert there_and_back(array, binary=True).tobytes() == array.tobytes()
    with pytest.raises(ProtocolError, match="ask for it as binary"):
        encode({"x": array}, lambda _: False)


def test_numbers_of_the_other_byte_order_are_turned():
    array = np.arange(3, dtype=">f4")
    np.testing.assert_array_equal(there_and_back(array, binary=True), array)


def test_numbers_are_not_copied():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    _, (buffer,) = encode({"x": array}, lambda _: True)
    assert np.shares_memory(np.frombuffer(buffer, np.uint8), array)


def test_a_type_that_the_protocol_lacks_is_named():
    assert datatype_of(np.zeros(1, np.complex64)) is None
    with pytest.raises(ProtocolError, match="`x` is of type complex64"):
        encode({"x": np.zeros(1, np.complex64)}, lambda _: True)


def tensor(**changes: object) -> dict[str, object]:
    base = {"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
    return {key: value for key, value in {**base, **changes}.items() if value is not ...}


WRONG = [
    ("not an object", []),
    ("`inputs` is not a list", {}),
    ("`inputs` is not a list", {"inputs": {}}),
    ("no name", {"inputs": [tensor(name=...)]}),
    ("no name", {"inputs": [7]}),
    ("no name", {"inputs": [tensor(name="x" * 2000)]}),
    ("no datatype", {"inputs": [tensor(datatype="FP31")]}),
    ("no datatype", {"inputs": [tensor(datatype=["FP32"])]}),
    ("shape of tensor `x`", {"inputs": [tensor(shape=...)]}),
    ("shape of tensor `x`", {"inputs": [tensor(shape=[-2])]}),
    ("shape of tensor `x`", {"inputs": [tensor(shape=[2.0])]}),
    ("shape of tensor `x`", {"inputs": [tensor(shape=[True, 2])]}),
    ("shape of tensor `x`", {"inputs": [tensor(shape=[1] * 99)]}),
    ("takes 12 bytes, not 8", {"inputs": [tensor(shape=[3])]}),
    ("not a number of bytes", {"inputs": [tensor(parameters={"binary_data_size": -8})]}),
    ("not a number of bytes", {"inputs": [tensor(parameters={"binary_data_size": "8"})]}),
    ("takes 16777216", {"inputs": [tensor(shape=[1 << 22])]}),
    ("neither `data` nor", {"inputs": [tensor(parameters=...)]}),
    ("parameters of tensor `x`", {"inputs": [tensor(parameters=[])]}),
    ("parameters of tensor `x`", {"inputs": [tensor(parameters={"a": {}})]}),
    ("shared memory", {"inputs": [tensor(parameters={"shared_memory_region": "r"})]}),
    ("one name", {"inputs": [tensor(), tensor()]}),
    ("and 8 follow", {"inputs": [tensor(shape=[0], parameters={"binary_data_size": 0})]}),
    ("cannot hold BYTES", {"inputs": [tensor(datatype="BYTES", shape=[3])]}),
    ("`id` is not", {"id": 7, "inputs": [tensor()]}),
    ("asked for twice", {"inputs": [tensor()], "outputs": [{"name": "y"}, {"name": "y"}]}),
    (
        "classification",
        {"inputs": [tensor()], "outputs": [{"name": "y", "parameters": {"classification": 3}}]},
    ),
    ("not a boolean", {"inputs": [tensor()], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}),
    ("not a boolean", {"inputs": [tensor()], "parameters": {"binary_data_output": "yes"}}),
    ("5000 entries", {"inputs": [tensor()] * 5000}),
]


@pytest.mark.parametrize(("match", "data"), WRONG)
def test_wrong_messages_are_refused(match, data):
    with pytest.raises(ProtocolError, match=match) as caught:
        decode(json.dumps(data).encode(), bytes(8))
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "match"),
    [
        ("FP32", [2], [1.0], "has 1 elements"),
        ("FP32", [1], ["1.0"], "not FP32"),
        ("INT8", [1], [1.5], "not INT8"),
        ("INT8", [1], [True], "not INT8"),
        ("INT8", [1], [300], "out of range"),
        ("UINT64", [1], [1 << 65], "out of range"),
        ("BOOL", [1], [1], "not BOOL"),
        ("BYTES", [1], [5], "not BYTES"),
        ("BYTES", [1], ["\ud800"], "not Unicode"),
        ("BF16", [1], [1.0], "not BF16"),
        ("FP32", [1], [None], "not FP32"),
    ],
)
def test_wrong_elements_in_json_are_refused(datatype, shape, data, match):
    entry = {"name": "x", "datatype": datatype, "shape": shape, "data": data}
    with pytest.raises(ProtocolError, match=match):
        decode(json.dumps({"inputs": [entry]}).encode(), b"")


def test_nested_data_is_read_row_by_row_and_not_too_deep():
    entry = {"name": "x", "datatype": "INT64", "shape": [2, 2], "data": [[1, 2], [3, 4]]}
    _, arrays = decode(json.dumps({"inputs": [entry]}).encode(), b"")
    np.testing.assert_array_equal(arrays["x"], [[1, 2], [3, 4]])
    entry["data"] = json.loads("[" * 40 + "]" * 40)
    with pytest.raises(ProtocolError, match="too deep"):
        decode(json.dumps({"inputs": [entry]}).encode(), b"")


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"1" * 5000, b"null", b'"x"'])
def test_what_is_not_json_is_refused(text):
    with pytest.raises(ProtocolError):
        parse(text, "inputs", 0)


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (struct.pack("<I", 4) + b"abcd", None),
        (struct.pack("<I", 5) + b"abcd", "do not add up"),
        (struct.pack("<I", 3) + b"abcd", "do not add up"),
        (struct.pack("<I", 0xFFFFFFFF) + b"abcd", "do not add up"),
        (struct.pack("<I", 4) + b"\xff\xff\xff\xff", "not UTF-8"),
    ],
)
def test_lengths_of_strings_are_checked(raw, match):
    entry = tensor(datatype="BYTES", shape=[1], parameters={"binary_data_size": len(raw)})
    text = json.dumps({"inputs": [entry]}).encode()
    if match is None:
        assert decode(text, raw)[1]["x"].tolist() == [b"abcd"]
        return
    with pytest.raises(ProtocolError, match=match):
        decode(text, raw)


def test_booleans_are_0_or_1():
    entry = tensor(datatype="BOOL", shape=[2], parameters={"binary_data_size": 2})
    text = json.dumps({"inputs": [entry]}).encode()
    assert decode(text, b"\1\0")[1]["x"].tolist() == [True, False]
    with pytest.raises(ProtocolError, match="neither 0 nor 1"):
        decode(text, b"\2\0")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(sorted(DATATYPES)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=4) | st.sampled_from(["name", "shape", "data", "inputs", "parameters"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)
ENTRY = st.fixed_dictionaries(
    {"name": st.sampled_from(["x", "y", ""]) | JSON, "datatype": st.sampled_from(sorted(DATATYPES)) | JSON},
    optional={
        "shape": st.lists(st.integers(-1, 4), max_size=3) | JSON,
        "data": JSON,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 64) | JSON}) | JSON,
    },
)
REQUEST = st.fixed_dictionaries(
    {"inputs": st.lists(ENTRY, max_size=3) | JSON},
    optional={"outputs": st.lists(ENTRY, max_size=3) | JSON, "parameters": JSON, "id": JSON},
)


@settings(max_examples=300)
@given(REQUEST, st.binary(max_size=128), st.sampled_from(["inputs", "outputs"]))
def test_any_message_is_read_or_refused(data, binary, kind):
    if kind == "outputs":
        data = {**data, "outputs": data["inputs"]}
    try:
        decode(json.dumps(data).encode(), binary, kind)
    except ProtocolError:
        return


@settings(max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 64))
def test_any_bytes_are_read_or_refused(text, binary):
    try:
        parse(text, "inputs", binary)
    except ProtocolError:
        return


@pytest.mark.parametrize(
    "trace", ["", "[]", '[{"tier":"a","hop":[1,2,3]}]', '"}}', ',"parameters":{"dnnsplit_trace":"']
)
@pytest.mark.parametrize("named", ["y", 'y","parameters":{"dnnsplit_trace":"x"}}'])
def test_a_trace_is_taken_out_of_an_answer(trace: str, named: str):
    tensors, _ = encode({named: np.ones(2, np.float32)}, lambda _: True)
    said = {"model_name": named, "parameters": {"dnnsplit_trace": trace}}
    text = with_tensors(said, outputs=tensors)
    assert json.loads(text) == said | {"outputs": json.loads(tensors)}
    rest, found = without_trace(text)
    assert found == trace
    assert parse(rest, "outputs", 8).tensors == parse(text, "outputs", 8).tensors


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"",
        b'{"outputs":[],"parameters":{"dnnsplit_trace":1}}',
        b'{"outputs":[],"parameters":{"dnnsplit_trace":"a","more":1}}',
        b'{"outputs":[],"parameters":{"dnnsplit_trace":"a"},"id":"b"}',
        b'{"outputs":[{"name":"y","parameters":{"dnnsplit_trace":"a"}}]}',
        b'{"outputs":[],"parameters":{"dnnsplit_trace":"a}}',
        b'{"outputs":[],"parameters":{"dnnsplit_trace":' + b"[" * 100_000 + b"}}",
    ],
)
def test_an_answer_of_another_form_stays_as_it_is(text: bytes):
    assert without_trace(text) == (text, None)


def test_what_only_looks_like_an_answer_with_a_trace_is_refused_either_way():
    text = b'{"outputs":[{"name":"y","parameters":{"dnnsplit_trace":"a"}}'
    rest, _ = without_trace(text)
    for said in (text, rest):
        with pytest.raises(ProtocolError):
            parse(said, "outputs", 0)
