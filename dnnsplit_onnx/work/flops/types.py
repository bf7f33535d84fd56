"""What a formula may know: the type of a value, and the surroundings of a node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class TensorType:
    """The element type and shape of a value.

    Attributes:
        dtype: An `onnx.TensorProto.DataType`.
        shape: The dimensions, all of them concrete; None if the rank or any dimension is unknown.
    """

    dtype: int
    shape: tuple[int, ...] | None


class Context(Protocol):
    """What a formula may ask about the surroundings of a node.

    `GraphContext` implements it over an ONNX graph; anything that answers the same questions will do.
    """

    @property
    def trips(self) -> Mapping[str, int]:
        """Iterations of Loop, Scan and SequenceMap nodes by node name, as the user states them."""

    def type_of(self, name: str) -> TensorType | None:
        """The type of any value visible at the node (inputs, outputs, captures); None if unknown."""

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a small constant; None if the value is not constant, not small, or unknown."""

    def opset(self, domain: str) -> int:
        """The version of an operator set that the model imports ("" is the default ONNX domain)."""
