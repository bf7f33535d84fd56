"""What each route must be able to do; the pipeline knows no framework beyond this."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

Array = NDArray[Any]
Feeds = Mapping[str, Array]

RouteName = Literal["keras-torch", "keras-tf", "pytorch"]

BATCH = "batch"


@dataclass(frozen=True, slots=True)
class InputSpec:
    """An input of the framework's model.

    Attributes:
        name: Its name, which the ONNX input gets too.
        dtype: A numpy dtype.
        shape: A number for a fixed dimension; for one that stays open a name, or a sum or
            another formula of names (`past + new`).
        below: For integers, the smallest value that is too large (a vocabulary's size).
        example: A value that the model is known to accept, if its author gave one.
        scale: For floats, the spread of values that the model expects: about 1, or about
            100 where it takes pixels from 0 to 255.
        exact: Whether the values of the example matter, so that no others are made up.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]
    below: int = 2
    example: Array | None = None
    scale: float = 1.0
    exact: bool = False


class Adapter(ABC):
    """A framework's model, loaded and ready to run and to export.

    Attributes:
        route: The name of the route.
        inputs: The model's inputs.
        layers: Number of layers of the framework's model.
        parameters: Number of elements in its weights.
        notes: What the user should know of this conversion.
        limits: Smallest and largest size of open dimensions that have such, by name.
        opset: The version of ONNX's operators to write, None for the exporter's own.
        precision: The coarsest type that the model computes in, as numpy or ml_dtypes call it.
    """

    route: ClassVar[RouteName]
    inputs: tuple[InputSpec, ...]
    layers: int
    parameters: int
    notes: list[str]
    limits: Mapping[str, tuple[int, int]] = MappingProxyType({})
    opset: int | None = None
    precision: str = "float32"

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Versions of the libraries of this route."""

    @abstractmethod
    def run(self, feeds: Feeds) -> list[Array]:
        """What the framework computes in inference, outputs in the order of the ONNX model's."""

    @abstractmethod
    def export(self, path: Path, feeds: Feeds) -> None:
        """Writes the model as ONNX, with its weights inside or beside it.

        Args:
            path: Where to write.
            feeds: Inputs to trace the model with.

        Raises:
            InputError: The exporter cannot take this model.
        """

    @abstractmethod
    def layer_of(self, node: onnx.NodeProto) -> str | None:
        """The framework layer that an exported node came from, None if unknown."""

    def layer_outputs(self, feeds: Feeds) -> Iterator[tuple[str, Array]]:
        """Each layer's output in the order in which layers run, to find a fault with.

        Layers that run more than once, or give other things than one array, are left out.
        """
        del feeds
        return iter(())
