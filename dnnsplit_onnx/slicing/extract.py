"""One range of nodes as a model of its own.

Nodes, weights, functions and the rest are copied from the source whole, never rebuilt, so
whatever they hold (unknown fields, metadata, device configurations) is there. Large weights
stay references to the source's files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx

from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.graph.shapes import value_type
from dnnsplit_onnx.slicing.companions import add_companions
from dnnsplit_onnx.slicing.index import SliceIndex
from dnnsplit_onnx.work.ranges import boundary


@dataclass(frozen=True)
class Extract:
    """A range of nodes as a model.

    Attributes:
        start, stop: The range.
        proto: The model. Its large weights are references to the files of the source,
            relative to the source's folder; `files.lay_out` turns it into files.
        inputs: Data-flow values it reads, in the order of `proto.graph.input`.
        outputs: Values it makes for others, in the order of `proto.graph.output`.
        forward: Values that pass it by on their way up.
    """

    start: int
    stop: int
    proto: onnx.ModelProto
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    forward: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be run: no file is needed."""
        return not self.outputs


def extract(index: SliceIndex, start: int, stop: int) -> Extract:
    """The nodes `[start, stop)` as a model that onnxruntime loads.

    Any range will do, stages of a plan or not. A model output that is a weight is made by
    the range that starts at 0.

    Raises:
        CutError: A value on the boundary has a type that nobody knows.
        ValueError: It is not a range of the graph.
    """
    edge = boundary(index.graph, start, stop)
    model = model_of(index, range(start, stop), edge.inputs, edge.outputs)
    weights = {tensor.name for tensor in model.graph.initializer}
    weights.update(sparse.values.name for sparse in model.graph.sparse_initializer)
    return Extract(
        start,
        stop,
        model,
        tuple(port(value) for value in model.graph.input if value.name not in weights),
        tuple(port(value) for value in model.graph.output),
        edge.forward,
    )


def model_of(
    index: SliceIndex, positions: Iterable[int], inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> onnx.ModelProto:
    """Some nodes of a graph as a model, with the weights and all else that they need.

    Args:
        index: The graph.
        positions: The nodes, in order.
        inputs: Values that they read and do not make.
        outputs: Values that the model makes for others.

    Raises:
        CutError: An input or output has a type that nobody knows.
    """
    graph = index.graph
    nodes = [graph.nodes[position] for position in positions]
    wanted = {name for node in nodes for name in (*node.weights, *node.inputs, *node.outputs)}
    weights, constant_nodes = index.closure(sorted(wanted.union(outputs)))
    index.types.require(
        name for name in (*inputs, *outputs) if name not in index.inputs and name not in index.outputs
    )
    index.types.require(name for name in inputs if name not in index.inputs)

    model = onnx.ModelProto()
    model.CopyFrom(index.header)
    # Constant-only nodes first: whatever reads them comes later.
    model.graph.node.extend(graph.proto.graph.node[at] for at in constant_nodes)
    model.graph.node.extend(node.proto for node in nodes)
    _add_weights(index, model.graph, weights)
    _add_boundary(index, model.graph, inputs, outputs, weights)
    values = weights.union(inputs, *(node.outputs for node in nodes))
    inside = values.difference(inputs, outputs)
    model.graph.value_info.extend(v for v in graph.proto.graph.value_info if v.name in inside)
    add_companions(index, model, values)
    return model


def port(value: onnx.ValueInfoProto) -> Port:
    """A value at a boundary as the manifest lists it."""
    known = value_type(value.type)
    return Port(name=value.name, dtype=known.dtype_name, shape=known.shape, kind=known.kind)


def _add_weights(index: SliceIndex, graph: onnx.GraphProto, weights: set[str]) -> None:
    source = index.graph.proto.graph
    dense, sparse = index.initializers, index.sparse_initializers
    graph.initializer.extend(source.initializer[at] for at in sorted(dense[w] for w in weights if w in dense))
    graph.sparse_initializer.extend(
        source.sparse_initializer[at] for at in sorted(sparse[w] for w in weights if w in sparse)
    )


def _add_boundary(
    index: SliceIndex,
    graph: onnx.GraphProto,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    weights: set[str],
) -> None:
    """Model inputs and outputs as the model has them; inner values with what is proved of them.

    Initializers that the model lists among its inputs (IR 3 demands it; later they may be
    overridden) stay listed, in the model's order.
    """
    listed = weights.union(inputs)
    graph.input.extend(value for name, value in index.inputs.items() if name in listed)
    graph.input.extend(inner_value(index, name) for name in inputs if name not in index.inputs)
    graph.output.extend(
        index.outputs[name] if name in index.outputs else inner_value(index, name) for name in outputs
    )


def inner_value(index: SliceIndex, name: str) -> onnx.ValueInfoProto:
    """An inner value: the model's own words for it, with a type that can be relied on."""
    value = onnx.ValueInfoProto(name=name)
    said = index.inner.get(name) or index.outputs.get(name)
    if said is not None:
        value.CopyFrom(said)
    value.type.CopyFrom(index.types[name])
    return value
