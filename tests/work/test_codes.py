"""What codes make of a value's type, and what their names say."""

from __future__ import annotations

import pytest
from onnx import TensorProto

from dnnsplit_onnx.graph.shapes import ValueType
from dnnsplit_onnx.work.codes import (
    LOSSY,
    base,
    coded_nbytes,
    elements_per_range,
    is_allowed,
    is_packed,
    packed,
    parts,
    range_dtype,
    reduced_axes,
)

FLOAT, DOUBLE, HALF, BRAIN = (
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
)
BYTE, INT = TensorProto.UINT8, TensorProto.INT64


def tensor(dtype: int, *shape: int | str | None) -> ValueType:
    return ValueType("tensor", dtype, shape)


def crossing(code: str, value: ValueType) -> list[tuple[str, int, object]]:
    return [(part.role, part.type.dtype, part.type.shape) for part in parts(code, value)]


@pytest.mark.parametrize(
    ("code", "inner", "packs"),
    [
        ("raw", "raw", False),
        ("packed", "raw", True),
        ("fp16", "fp16", False),
        ("uint8+packed", "uint8", True),
        ("uint8-channel", "uint8-channel", False),
    ],
)
def test_a_name_says_what_is_in_the_slices_and_what_on_the_wire(code: str, inner: str, packs: bool) -> None:
    assert base(code) == inner
    assert is_packed(code) is packs
    assert (packed(inner) if packs else inner) == code


@pytest.mark.parametrize(
    ("code", "names", "allowed"),
    [
        ("raw", None, True),
        ("raw", ("fp16",), True),
        ("fp16", None, False),
        ("fp16", ("uint8",), False),
        ("fp16", ("uint8", "fp16"), True),
        ("packed", ("fp16",), False),
        ("packed", ("packed",), True),
        ("fp16+packed", ("packed",), False),
        ("fp16+packed", ("fp16",), False),
        ("fp16+packed", ("fp16", "packed"), True),
    ],
)
def test_a_link_allows_a_code_and_packing_each_by_its_name(
    code: str, names: tuple[str, ...] | None, allowed: bool
) -> None:
    assert is_allowed(code, names) is allowed


@pytest.mark.parametrize("dtype", [FLOAT, INT, TensorProto.STRING])
def test_raw_is_the_tensor(dtype: int) -> None:
    assert crossing("raw", tensor(dtype, 2, "n")) == [("coded", dtype, (2, "n"))]


@pytest.mark.parametrize(("dtype", "applies"), [(FLOAT, True), (DOUBLE, True), (HALF, False), (BRAIN, False)])
def test_half_precision_is_for_what_is_wider(dtype: int, applies: bool) -> None:
    assert crossing("fp16", tensor(dtype, 2, "n")) == ([("coded", HALF, (2, "n"))] if applies else [])


@pytest.mark.parametrize(
    ("dtype", "scale"), [(FLOAT, FLOAT), (DOUBLE, DOUBLE), (HALF, FLOAT), (BRAIN, FLOAT)]
)
def test_bytes_have_a_scale_and_a_least_element(dtype: int, scale: int) -> None:
    assert range_dtype(dtype) == scale
    value = tensor(dtype, 2, 3, "h", 5)
    assert crossing("uint8", value) == [
        ("coded", BYTE, (2, 3, "h", 5)),
        ("scale", scale, (1,)),
        ("least", scale, (1,)),
    ]
    assert crossing("uint8-channel", value) == [
        ("coded", BYTE, (2, 3, "h", 5)),
        ("scale", scale, (2, 3, 1, 1)),
        ("least", scale, (2, 3, 1, 1)),
    ]


@pytest.mark.parametrize("code", ["fp16", "uint8", "uint8-channel"])
def test_whole_numbers_and_what_is_no_tensor_stay_as_they_are(code: str) -> None:
    assert parts(code, tensor(INT, 2, 3)) == ()
    assert parts(code, ValueType("sequence", FLOAT, (2, 3))) == ()
    assert coded_nbytes(code, tensor(INT, 2, 3)) is None


def test_a_scalar_and_a_row_have_no_ranges() -> None:
    assert parts("uint8", tensor(FLOAT)) == ()
    assert parts("uint8-channel", tensor(FLOAT, 4)) == ()
    assert parts("uint8-channel", ValueType("tensor", FLOAT, None)) == ()
    assert len(parts("uint8", tensor(FLOAT, 4))) == len(parts("uint8-channel", tensor(FLOAT, 2, 4))) == 3
    assert parts("uint9", tensor(FLOAT, 2, 4)) == ()


@pytest.mark.parametrize(
    ("code", "shape", "nbytes"),
    [
        ("raw", (2, 3, 10), 240),
        ("fp16", (2, 3, 10), 120),
        ("uint8", (2, 3, 10), 60 + 4 + 4),
        ("uint8-channel", (2, 3, 10), 60 + 24 + 24),
        ("uint8-channel", (2, 30), 60 + 8 + 8),
        ("uint8", (2, "n"), None),
    ],
)
def test_bytes_that_cross(code: str, shape: tuple[int | str, ...], nbytes: int | None) -> None:
    assert coded_nbytes(code, tensor(FLOAT, *shape)) == nbytes


def test_codes_that_lose_something_by_how_much() -> None:
    assert [coded_nbytes(code, tensor(FLOAT, 4, 100)) for code in LOSSY] == [800, 432, 408]


@pytest.mark.parametrize(
    ("code", "shape", "axes", "elements"),
    [
        ("uint8", (2, 3, 4), (), 24),
        ("uint8-channel", (2, 3), (1,), 3),
        ("uint8-channel", (2, 3, 4), (2,), 4),
        ("uint8-channel", (2, 3, 4, 5), (2, 3), 20),
        ("uint8-channel", ("n", 3, 4, 5), (2, 3), 20),
        ("uint8", ("n", 3), (), None),
        ("uint8-channel", (2, 3, None), (2,), None),
    ],
)
def test_elements_that_share_a_scale(
    code: str, shape: tuple[int | str | None, ...], axes: tuple[int, ...], elements: int | None
) -> None:
    assert reduced_axes(code, len(shape)) == axes
    assert elements_per_range(code, tensor(FLOAT, *shape)) == elements


def test_of_a_value_of_no_known_rank_nobody_knows_how_many_share() -> None:
    assert elements_per_range("uint8", ValueType("tensor", FLOAT, None)) is None
