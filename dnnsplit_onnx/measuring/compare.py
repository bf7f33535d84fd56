"""How far two results are apart: in bits, and in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Difference:
    """Two results compared.

    Attributes:
        bitwise: Same type, same shape, same bits; a NaN equals a NaN of the same bits only.
        max_abs: Largest distance of two elements; infinite where they cannot be
            compared: shapes or types differ, or one is NaN or infinite and the other is not.
        max_rel: Largest distance over the larger magnitude of the two, at most 2.
        scale: Largest finite magnitude in the second.
        mismatched: Share of the elements that differ at all.
    """

    bitwise: bool
    max_abs: float
    max_rel: float
    scale: float
    mismatched: float


SAME = Difference(True, 0.0, 0.0, 0.0, 0.0)


def compare(one: Any, other: Any) -> Difference:
    """Compares two results: arrays, sequences, maps, or absent optionals (None)."""
    if one is None and other is None:
        return SAME
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return combine([compare(a, b) for a, b in zip(one, other, strict=True)])
    if isinstance(one, dict) and isinstance(other, dict) and list(one) == list(other):
        return combine([compare(one[key], other[key]) for key in one])
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return _arrays(one, other)
    if isinstance(one, int | float) and type(one) is type(other):  # the values of a map
        return _arrays(np.array(one), np.array(other))
    different = not (isinstance(one, str) and isinstance(other, str) and one == other)
    return _different(1.0) if different else SAME


def combine(parts: list[Difference]) -> Difference:
    """The worst of several."""
    if not parts:
        return SAME
    return Difference(
        all(part.bitwise for part in parts),
        max(part.max_abs for part in parts),
        max(part.max_rel for part in parts),
        max(part.scale for part in parts),
        max(part.mismatched for part in parts),
    )


def bits_equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays have the same type, shape and bits."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype == object:
        return bool(np.array_equal(one, other))
    return bool(np.array_equal(_bytes(one), _bytes(other)))


def vacuous(results: list[Any], *, varied: bool) -> str | None:
    """Why agreement on an output proves little, or None if it proves something.

    Args:
        results: The output for each set of inputs.
        varied: Whether the inputs differ from one set to the next.
    """
    arrays = [array for result in results for array in _leaves(result)]
    if not arrays or all(array.size == 0 for array in arrays):
        return "it holds no elements"
    if all(_all_nan(array) for array in arrays):
        return "every element is NaN"
    if all(array.size > 1 and _uniform(array) for array in arrays):
        return "every element is the same"
    if varied and len(results) > 1 and all(compare(results[0], other).bitwise for other in results[1:]):
        return "it is the same for different inputs"
    return None


def _leaves(result: Any) -> list[np.ndarray]:
    if isinstance(result, np.ndarray):
        return [result]
    if isinstance(result, list):
        return [array for item in result for array in _leaves(item)]
    if isinstance(result, dict):
        return [np.asarray(item) for item in result.values()]
    return []


def _uniform(array: np.ndarray) -> bool:
    """All elements equal, rounding aside.

    A softmax over equal numbers may come out unequal in its last bit.
    """
    if array.dtype.kind in "OSU" or not _is_float(array):
        return bool((array == array.reshape(-1)[0]).all())
    numbers = array.astype(np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    return high - low <= 1e-6 * max(abs(low), abs(high))


def _all_nan(array: np.ndarray) -> bool:
    return _is_float(array) and bool(np.isnan(array.astype(np.float64)).all())


def _is_float(array: np.ndarray) -> bool:
    """Whether its elements may be fractions; types of ml_dtypes are known by their names."""
    return array.dtype.kind == "f" or "float" in array.dtype.name


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _different(mismatched: float) -> Difference:
    return Difference(False, math.inf, 2.0, 0.0, mismatched)


def _arrays(one: np.ndarray, other: np.ndarray) -> Difference:
    if one.dtype != other.dtype or one.shape != other.shape:
        return _different(1.0)
    if one.dtype == object:
        unequal = float((one != other).mean()) if one.size else 0.0
        return _different(unequal) if unequal else SAME
    if one.size == 0:
        return SAME
    with np.errstate(invalid="ignore", over="ignore"):
        return _numbers(one, other)


def _numbers(one: np.ndarray, other: np.ndarray) -> Difference:
    bitwise = bits_equal(one, other)
    # Complex numbers are compared as pairs; what numpy has no arithmetic for goes by float64.
    wide = np.complex128 if one.dtype.kind == "c" else np.float64
    a, b = one.astype(wide), other.astype(wide)
    magnitude = np.maximum(np.abs(a), np.abs(b))
    finite = np.abs(b)[np.isfinite(b)]
    scale = float(finite.max()) if finite.size else 0.0
    if bitwise:
        return Difference(True, 0.0, 0.0, scale, 0.0)
    same = (one == other) | (np.isnan(a) & np.isnan(b))
    distance = np.where(same, 0.0, _distance(one, other, a, b))
    distance = np.where(np.isnan(distance), np.inf, distance)
    relative = np.divide(distance, magnitude, out=np.zeros_like(distance), where=magnitude > 0)
    relative = np.where(np.isfinite(distance), relative, 2.0)
    return Difference(
        False, float(distance.max()), float(relative.max()), scale, float((distance > 0).mean())
    )


def _distance(one: np.ndarray, other: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if one.dtype.kind in "iu":
        # Exact even where float64 is not: the difference, modulo 2**64, of ordered integers.
        x, y = one.astype(np.uint64), other.astype(np.uint64)
        return np.where(one > other, x - y, y - x).astype(np.float64)
    distance: np.ndarray = np.abs(a - b)
    return distance
