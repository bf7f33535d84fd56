"""Seeded random weights that are the same on every machine and with every numpy.

Raw 64-bit draws of a bit generator are the only ones whose stream numpy guarantees for
ever; everything after them here is exact arithmetic on float32.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def uniform(name: str, shape: Sequence[int], low: float, high: float) -> NDArray[np.float32]:
    """Random float32 numbers between `low` and `high`, a function of the name alone.

    Args:
        name: Seeds the draw: two weights of one name are equal.
        shape: Shape of the result.
        low: Lower bound.
        high: Upper bound.
    """
    count = math.prod(shape)
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw((count + 1) // 2)
    bits = np.asarray(raw, dtype="<u8").view("<u4")[:count]
    numbers = (bits >> 8).astype(np.float32)
    numbers *= np.float32((high - low) * 2.0**-24)
    numbers += np.float32(low)
    return numbers.reshape(tuple(shape))


def fan_in_uniform(name: str, shape: Sequence[int], fan_in: int, gain: float = 1.0) -> NDArray[np.float32]:
    """Weights of a layer that multiplies the standard deviation of its inputs by `gain`.

    With a gain of sqrt(2), a ReLU after the layer keeps the variance: He et al., Delving
    Deep into Rectifiers, ICCV 2015, eq. 10.
    """
    bound = gain * math.sqrt(3.0 / fan_in)
    return uniform(name, shape, -bound, bound)
