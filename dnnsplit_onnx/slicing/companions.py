"""What travels with the nodes of a slice: functions, training, annotations.

Each is kept where it means something in the slice, and dropped where it would refer to
what is not there:

- A local function is kept if a node, a subgraph or another kept function calls it.
- Training information is kept if the slice holds every value of the model that it reads or
  updates. That is the case where one tier has the trained part, or everything.
- A quantization annotation is kept if its tensor is in the slice; its parameters are
  weights and come along.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

from dnnsplit_onnx.graph.bodies import captures, subgraphs
from dnnsplit_onnx.slicing.index import SliceIndex


def add_companions(index: SliceIndex, model: onnx.ModelProto, values: set[str]) -> None:
    """Adds to a slice all that belongs to its nodes and values.

    Args:
        index: The graph.
        model: The slice, its nodes in place.
        values: Names of all values in it.
    """
    source = index.graph.proto
    for annotation in source.graph.quantization_annotation:
        if annotation.tensor_name in values:
            model.graph.quantization_annotation.append(annotation)
    graphs = [model.graph]
    for training in source.training_info:
        if values.issuperset(_touched(training)):
            model.training_info.append(training)
            graphs += [training.initialization, training.algorithm]
    if source.functions:
        called = _called(source, (node for graph in graphs for node in graph.node))
        model.functions.extend(source.functions[at] for at in sorted(called))


def _touched(training: onnx.TrainingInfoProto) -> Iterator[str]:
    """The values of the model that a training step reads or updates."""
    yield from captures(training.initialization)
    made = {value.name for value in training.initialization.output}
    yield from (name for name in captures(training.algorithm) if name not in made)
    for binding in (*training.initialization_binding, *training.update_binding):
        yield binding.key


def _called(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> set[int]:
    """Indices of the functions that these nodes call, directly or not."""
    functions = {(f.domain, f.name, f.overload): at for at, f in enumerate(model.functions)}
    called: set[int] = set()
    pending = list(nodes)
    while pending:
        node = pending.pop()
        at = functions.get((node.domain, node.op_type, node.overload))
        if at is not None and at not in called:
            called.add(at)
            pending.extend(model.functions[at].node)
        for body in subgraphs(node):
            pending.extend(body.node)
    return called
