"""What codes lose of a value, as a profile tells it."""

from __future__ import annotations

import numpy as np

from dnnsplit_onnx.measuring.profiling.codes import _error


def test_the_largest_error_stands_over_the_largest_element() -> None:
    value = np.array([0.0, -4.0, 1.0], np.float32)
    assert _error(value, value) == 0
    assert _error(value, value + np.float32([0, 0, 0.5])) == 0.125
    assert _error(np.zeros(2, np.float32), np.float32([0, 0.25])) == 0.25
    assert _error(np.zeros(0, np.float32), np.zeros(0, np.float32)) == 0


def test_what_is_not_finite_has_no_error() -> None:
    infinite = np.array([np.inf, 1.0], np.float32)
    assert _error(infinite, infinite) is None
    assert _error(np.array([7e4], np.float32), np.array([np.inf], np.float16)) is None
    assert _error(np.array([np.nan], np.float32), np.array([1.0], np.float32)) is None
