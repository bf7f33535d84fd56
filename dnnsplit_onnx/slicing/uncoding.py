"""A slice with its codes taken out: what it reads and makes is as it was before any code.

So the proof that a chain computes what the whole model computes is one of the very slices that
are sent, bit for bit, and the codes are judged apart (`measuring.coded`).
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from dnnsplit_onnx.graph.bodies import reads_of
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.slicing.extract import port
from dnnsplit_onnx.slicing.manifest import SliceRecord


def uncode(model: onnx.ModelProto, record: SliceRecord) -> None:
    """Takes the codes out of a slice's model, in place.

    Args:
        model: The slice, as the record's file has it.
        record: What it reads and makes.
    """
    below, above = _values(record.inputs), _values(record.outputs)
    stems = tuple({f"{port.name.rpartition('/')[0]}/" for port in _coded(record)})
    if not stems:
        return
    graph = model.graph
    known = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    nodes = [node for node in graph.node if not _is_of_code(node, stems)]
    read = {name for node in nodes for name in reads_of(node)}
    made = {name for node in nodes for name in node.output}
    inputs = [value for value in graph.input if not value.name.startswith(stems)]
    inputs = [value for value in inputs if value.name in read or value.name not in above]
    inputs += [known[name] for name in below if name in read]
    outputs = [value for value in graph.output if not value.name.startswith(stems) and value.name in made]
    listed = {value.name for value in outputs}
    outputs += [known[name] for name in above if name in made and name not in listed]
    weights = [tensor for tensor in graph.initializer if not tensor.name.startswith(stems)]
    constant = {tensor.name for tensor in weights}
    outputs += [value for value in graph.output if value.name in constant]
    for field, kept in (
        (graph.node, nodes),
        (graph.input, inputs),
        (graph.output, outputs),
        (graph.initializer, weights),
    ):
        copies = [_copy(item) for item in kept]
        del field[:]
        field.extend(copies)


def uncoded(model: onnx.ModelProto, record: SliceRecord) -> SliceRecord:
    """What a slice reads and makes without its codes; no file if nothing is left of it.

    Args:
        model: The slice, as `uncode` leaves it.
        record: What it read and made before.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    weights.update(sparse.values.name for sparse in model.graph.sparse_initializer)
    inputs = tuple(port(value) for value in model.graph.input if value.name not in weights)
    outputs = tuple(port(value) for value in model.graph.output)
    changes = {"inputs": inputs, "outputs": outputs}
    return record.model_copy(update=changes if outputs else {**changes, "file": None})


def _coded(record: SliceRecord) -> Iterable[Port]:
    return (port for port in (*record.inputs, *record.outputs) if port.stands_for is not None)


def _values(ports: Iterable[Port]) -> tuple[str, ...]:
    """The coded values among ports."""
    return tuple(dict.fromkeys(port.stands_for for port in ports if port.stands_for is not None))


def _is_of_code(node: onnx.NodeProto, stems: tuple[str, ...]) -> bool:
    return any(name.startswith(stems) for name in (*node.input, *node.output))


def _copy(message: onnx.NodeProto) -> onnx.NodeProto:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
