"""When framework and onnxruntime agree, and when their agreement proves nothing."""

from __future__ import annotations

import numpy as np
import pytest

from dnnsplit_onnx.converters.parity import compare, difference, refuse_vacuous
from dnnsplit_onnx.errors import VerificationError

GOOD = np.array([[1.0, 2.0], [-3.0, 0.5]])


def test_differences_are_relative_to_the_largest_magnitude():
    assert difference(GOOD, GOOD + 3e-3) == pytest.approx((3e-3, 1e-3))


def test_an_element_near_zero_does_not_count_for_more():
    assert difference(np.array([1.0, 1e-12]), np.array([1.0, 2e-12]))[1] < 1e-11


def test_equal_is_zero_even_where_all_is_zero():
    assert difference(np.zeros(3), np.zeros(3)) == (0.0, 0.0)
    assert difference(np.zeros(3), np.ones(3)) == (1.0, float("inf"))


def test_what_is_not_a_number_is_never_close():
    assert difference(GOOD, GOOD * np.nan)[1] == float("inf")


def test_integers_and_booleans_compare_too():
    assert difference(np.array([1, 2]), np.array([1, 3])) == (1.0, 0.5)
    assert difference(np.array([True]), np.array([False]))[0] == 1.0


def test_the_worst_output_is_named():
    close = compare({"a": GOOD, "b": GOOD}, {"a": GOOD + 1e-6, "b": GOOD + 1e-3})
    assert close.output == "b"
    assert close.max_rel == pytest.approx(1e-3 / 3)


@pytest.mark.parametrize("got", [{}, {"a": GOOD[0]}])
def test_a_missing_output_or_another_shape_fails(got):
    with pytest.raises(VerificationError, match="`a`"):
        compare({"a": GOOD}, got)


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.zeros((2, 3)), "zero throughout"),
        (np.full((2, 3), 0.001), "constant"),
        (np.full((2, 3), 0.001) + np.arange(6).reshape(2, 3) * 1e-8, "constant"),
        (np.array([[1.0, np.inf], [0.0, 1.0]]), "not finite"),
        (np.array([[1.0, np.nan], [0.0, 1.0]]), "not finite"),
        (np.array([[1.0, 2.0], [1.0, 2.0]]), "same for different inputs"),
    ],
)
def test_a_check_that_cannot_fail_fails(array, why):
    with pytest.raises(VerificationError, match=why) as caught:
        refuse_vacuous({"y": array.astype(np.float32)}, 1e-4, 2)
    assert caught.value.exit_code == 1
    assert "--no-check" in caught.value.hint
    assert ("--input X.npz" in caught.value.hint) == (why == "not finite")


@pytest.mark.parametrize("array", [GOOD, np.array([3.0]), np.array([[1, 1]]), np.array([[0.1], [0.2]])])
def test_other_outputs_prove_something(array):
    refuse_vacuous({"y": array}, 1e-4, 2)
