"""What every slice of a graph needs to know, found out once."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import onnx

from dnnsplit_onnx.graph.bodies import reads_of
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.slicing.types import BoundaryTypes

# What a slice has of its own; all else in the model and its graph is copied as it is,
# fields that this release does not know included.
_OF_GRAPH = (
    "node",
    "initializer",
    "sparse_initializer",
    "input",
    "output",
    "value_info",
    "quantization_annotation",
)
_OF_MODEL = ("functions", "training_info")


class SliceIndex:
    """A graph prepared for slicing.

    Building it costs one pass over the graph and one shape inference (done when the first
    type is needed); each slice then costs its own size.

    Attributes:
        graph: The graph.
        header: The model without nodes, weights, values, functions and training.
        types: Types of values at a boundary.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.header = _header(graph.proto)

    @cached_property
    def types(self) -> BoundaryTypes:
        """Types of values at a boundary."""
        return BoundaryTypes(self.graph)

    @cached_property
    def initializers(self) -> dict[str, int]:
        """Index in `GraphProto.initializer` by name."""
        return {tensor.name: at for at, tensor in enumerate(self.graph.proto.graph.initializer)}

    @cached_property
    def sparse_initializers(self) -> dict[str, int]:
        """Index in `GraphProto.sparse_initializer` by name."""
        return {s.values.name: at for at, s in enumerate(self.graph.proto.graph.sparse_initializer)}

    @cached_property
    def inputs(self) -> dict[str, onnx.ValueInfoProto]:
        """What the model says of its inputs, initializers that are listed there included."""
        return {value.name: value for value in self.graph.proto.graph.input}

    @cached_property
    def outputs(self) -> dict[str, onnx.ValueInfoProto]:
        """What the model says of its outputs."""
        return {value.name: value for value in self.graph.proto.graph.output}

    @cached_property
    def inner(self) -> dict[str, onnx.ValueInfoProto]:
        """What the model says of inner values."""
        return {value.name: value for value in self.graph.proto.graph.value_info}

    @cached_property
    def annotations(self) -> dict[str, list[onnx.TensorAnnotation]]:
        """Quantization annotations by the tensor they annotate."""
        found: dict[str, list[onnx.TensorAnnotation]] = {}
        for annotation in self.graph.proto.graph.quantization_annotation:
            found.setdefault(annotation.tensor_name, []).append(annotation)
        return found

    @cached_property
    def _constant_rank(self) -> dict[int, int]:
        """For each constant-only node, by index in the file, its rank in a runnable order."""
        indices = dict.fromkeys(self.graph.constant_nodes.values())
        return {index: rank for rank, index in enumerate(indices)}

    def closure(self, names: Iterable[str]) -> tuple[set[str], list[int]]:
        """What it takes to have these weights in a slice.

        Quantization parameters of the weights and values named are weights as well.

        Args:
            names: Weights; other names count only through their annotations.

        Returns:
            All weights needed, and the constant-only nodes that make some of them, as
            indices in the file, in an order in which they can run.
        """
        # A walk of its own: weights and annotations are no nodes of `graph.dag`, and every
        # slice asks, so that a second graph would cost more than it saves.
        graph = self.graph
        seen: set[str] = set()
        nodes: set[int] = set()
        pending = list(names)
        while pending:
            name = pending.pop()
            if name in seen:
                continue
            seen.add(name)
            for annotation in self.annotations.get(name, ()):
                pending.extend(entry.value for entry in annotation.quant_parameter_tensor_names)
            index = graph.constant_nodes.get(name)
            if index is not None and index not in nodes:
                nodes.add(index)
                node = graph.proto.graph.node[index]
                pending.extend(reads_of(node))
                pending.extend(node.output)
        return seen & graph.constants, sorted(nodes, key=self._constant_rank.__getitem__)


def _header(model: onnx.ModelProto) -> onnx.ModelProto:
    header = onnx.ModelProto()
    header.CopyFrom(model)
    for field in _OF_MODEL:
        header.ClearField(field)
    for field in _OF_GRAPH:
        header.graph.ClearField(field)
    return header
