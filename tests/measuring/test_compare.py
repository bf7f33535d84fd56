import math

import ml_dtypes
import numpy as np
import pytest

from dnnsplit_onnx.measuring.compare import compare, vacuous


def f32(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


def test_same_bits_are_same_nan_included() -> None:
    quiet = np.array([0x7FC00000, 0x3F800000], np.uint32).view(np.float32)
    other = np.array([0x7FC00001, 0x3F800000], np.uint32).view(np.float32)
    assert compare(quiet, quiet.copy()).bitwise
    difference = compare(quiet, other)
    assert not difference.bitwise
    assert difference.max_abs == 0  # both are NaN, and no number tells them apart


def test_signs_of_zero_differ_in_bits_only() -> None:
    difference = compare(f32(0.0), f32(-0.0))
    assert (difference.bitwise, difference.max_abs, difference.mismatched) == (False, 0, 0)


def test_distances() -> None:
    difference = compare(f32(1, 2, 4), f32(1, 2.5, 4))
    assert not difference.bitwise
    assert difference.max_abs == 0.5
    assert difference.max_rel == pytest.approx(0.2)
    assert difference.scale == 4
    assert difference.mismatched == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f32(1), f32(1, 1)),
        (f32(1), np.array([1.0])),
        (f32(math.nan), f32(1)),
        (f32(math.inf), f32(1)),
        (f32(math.inf), f32(-math.inf)),
        ([f32(1)], [f32(1), f32(1)]),
        ([f32(1)], f32(1)),
        (None, f32(1)),
        ({1: 2.0}, {2: 2.0}),
        (np.array(["a"], object), np.array(["b"], object)),
    ],
    ids=str,
)
def test_what_no_distance_measures_is_infinitely_far(one: object, other: object) -> None:
    for difference in (compare(one, other), compare(other, one)):
        assert not difference.bitwise
        assert difference.max_abs == math.inf
        assert difference.max_rel == 2


def test_equal_infinities_are_no_distance_apart() -> None:
    assert compare(f32(math.inf, 1), f32(math.inf, 2)).max_abs == 1


def test_whole_numbers_are_exact_beyond_float64() -> None:
    big = 2**62
    assert compare(np.array([big]), np.array([big + 1])).max_abs == 1
    ends = np.iinfo(np.int64)
    assert compare(np.array([ends.min]), np.array([ends.max])).max_abs == pytest.approx(2.0**64)
    assert compare(np.array([1], np.uint8), np.array([255], np.uint8)).max_abs == 254


def test_types_that_numpy_lacks() -> None:
    one, other = np.array([1, 2], ml_dtypes.bfloat16), np.array([1, 2.5], ml_dtypes.bfloat16)
    assert compare(one, one.copy()).bitwise
    assert compare(one, other).max_abs == 0.5
    assert compare(np.array([1, -8], ml_dtypes.int4), np.array([1, 7], ml_dtypes.int4)).max_abs == 15


def test_nested_results() -> None:
    assert compare([{"a": 1.0}, None], [{"a": 1.0}, None]).bitwise
    assert compare([{"a": 1.0}], [{"a": 1.5}]).max_abs == 0.5
    assert compare({1: "x"}, {1: "x"}).bitwise
    assert compare([], []).bitwise


@pytest.mark.parametrize(
    ("results", "why"),
    [
        ([f32(0, 0), f32(0, 0)], "every element is the same"),
        ([np.float32([0.001, 0.001 + 1e-10])], "every element is the same"),
        ([f32(math.nan, math.nan)], "every element is NaN"),
        ([f32()], "it holds no elements"),
        ([f32(1, 2), f32(1, 2)], "it is the same for different inputs"),
        ([np.array([True, True]), np.array([True, True])], "every element is the same"),
        ([[], []], "it holds no elements"),
        ([None], "it holds no elements"),
        ([f32(1, 2), f32(1, 3)], None),
        ([f32(1, 2)], None),
        ([np.array(["a", "b"], object)], None),
        ([np.array([1, 2], ml_dtypes.bfloat16)], None),
        ([np.array([1, 1], ml_dtypes.bfloat16)], "every element is the same"),
    ],
)
def test_what_proves_little(results: list[object], why: str | None) -> None:
    assert vacuous(results, varied=True) == why


def test_the_same_inputs_give_the_same_output() -> None:
    assert vacuous([f32(1, 2), f32(1, 2)], varied=False) is None
