"""Small values that a model computes from shapes: lengths, positions, the operands of Reshape.

onnx's inference follows some of them (its data propagation knows Shape, Gather, Concat and a
few more) and stops at others: at a Range whose end is a sum of two lengths, which is how
decoders number their positions, everything behind it loses its size. Here, what depends on
known shapes and constants alone is computed by onnx's own reference operators, and
inference goes on from there. Nothing is guessed: a computed value is what any run would have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from dnnsplit_onnx.graph.inference import infer

# Operators whose output is no larger than what broadcasting makes of their inputs; `Range`
# is looked at before it is run.
_COMPUTED = frozenset(
    {"Abs", "Add", "And", "Cast", "Ceil", "Concat", "Constant", "Div", "Equal", "Floor", "Gather"}
    | {"Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg"}
    | {"Not", "Or", "Range", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Shape"}
    | {"Size", "Slice", "Squeeze", "Sub", "Unsqueeze", "Where"}
)
_BROADCAST = frozenset(
    {"Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mod"}
    | {"Mul", "Or", "Sub", "Where"}
)
# Nothing that is about shapes has more elements.
_MOST = 1024
_LONGEST_RANGE = 1 << 20
# Each pass may size what the next one computes from.
_PASSES = 8

Known = dict[str, np.ndarray]


def infer_with_values(model: onnx.ModelProto) -> onnx.ModelProto:
    """Infers what inference left open, from values that are computed on the way.

    Args:
        model: A model as inference left it; it is not changed.

    Returns:
        The same nodes, with more `value_info`.
    """
    replaced: dict[int, onnx.NodeProto] = {}
    for _ in range(_PASSES):
        found = dict(_compute(model))
        if not found:
            break
        seeded = onnx.ModelProto()
        seeded.CopyFrom(model)
        for index in found:
            replaced[index] = model.graph.node[index]
        _state(seeded.graph, found)
        try:
            model = infer(seeded)
        except Exception:  # it refuses what it cannot follow in many ways
            break
    if replaced:
        restored = onnx.ModelProto()
        restored.CopyFrom(model)
        for index, node in replaced.items():
            restored.graph.node[index].CopyFrom(node)
        return restored
    return model


def _state(graph: onnx.GraphProto, found: Mapping[int, np.ndarray]) -> None:
    """Makes nodes constants, or, where these are long, states the types of their outputs."""
    stated: dict[str, onnx.ValueInfoProto] = {}
    for index, value in found.items():
        name = graph.node[index].output[0]
        if value.size <= _MOST:
            constant = onnx.helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
            graph.node[index].CopyFrom(constant)
        else:
            number = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            stated[name] = onnx.helper.make_tensor_value_info(name, number, value.shape)
    if stated:
        kept = [info for info in graph.value_info if info.name not in stated]
        del graph.value_info[:]
        graph.value_info.extend([*kept, *stated.values()])


def known_values(model: onnx.ModelProto) -> Known:
    """The small values that are constants, or computed from these and from shapes alone, by name."""
    values: Known = {}
    for _ in _computed(model, _shapes(model.graph), values):
        pass
    return values


def _compute(model: onnx.ModelProto) -> Iterator[tuple[int, np.ndarray]]:
    """Nodes whose output can be computed and that inference waits for, by index.

    What only other computed values read is computed on the way, and not told.
    """
    graph = model.graph
    shapes = _shapes(graph)
    waiting = {name for node in graph.node if not shapes.keys() >= set(node.output) for name in node.input}
    for index, value in _computed(model, shapes, {}):
        node = graph.node[index]
        # A Constant tells inference nothing new.
        if node.op_type != "Constant" and (node.output[0] in waiting or node.output[0] not in shapes):
            yield index, value


def _computed(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], known: Known
) -> Iterator[tuple[int, np.ndarray]]:
    """What can be computed, by the index of its node.

    Args:
        model: The model.
        shapes: Its shapes that are all numbers.
        known: Gets every value, constants included, that is small.
    """
    graph = model.graph
    small = {t.name: _array(t) for t in graph.initializer if _is_small(t)}
    known.update({name: value for name, value in small.items() if value is not None})
    for index, node in enumerate(graph.node):
        if node.domain not in ("", "ai.onnx") or node.op_type not in _COMPUTED or len(node.output) != 1:
            continue
        value = _output(node, known, shapes, model)
        if value is None:
            continue
        if value.size <= _MOST:
            known[node.output[0]] = value
        yield index, value


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """The values whose shapes are all numbers."""
    found: dict[str, tuple[int, ...]] = {}
    for value in (*graph.input, *graph.value_info):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(
            dim.HasField("dim_value") and dim.dim_value >= 0 for dim in tensor.shape.dim
        ):
            found[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    return found


def _is_small(tensor: onnx.TensorProto) -> bool:
    size = 1
    for dim in tensor.dims:
        size *= dim
    external = tensor.data_location == onnx.TensorProto.EXTERNAL
    return not external and 0 <= size <= _MOST and tensor.data_type != onnx.TensorProto.STRING


def _array(tensor: onnx.TensorProto) -> np.ndarray | None:
    """A tensor's value, None if its data is not what its type and shape say."""
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError):
        return None


def _output(
    node: onnx.NodeProto, known: Known, shapes: Mapping[str, tuple[int, ...]], model: onnx.ModelProto
) -> np.ndarray | None:
    """What a node makes, None if that cannot be told."""
    if node.op_type in ("Shape", "Size") and node.input and node.input[0] in shapes:
        return _measured(node, shapes[node.input[0]])
    names = [name for name in node.input if name]
    if any(name not in known for name in names):
        return None
    inputs = {name: known[name] for name in names}
    if node.op_type == "Range" and not _is_short(*inputs.values()):
        return None
    if node.op_type in _BROADCAST and not _is_broadcast_small(inputs.values()):
        return None
    return _run(node, inputs, model)


def _measured(node: onnx.NodeProto, shape: tuple[int, ...]) -> np.ndarray | None:
    """What Shape and Size make of a shape; the elements themselves do not matter."""
    if node.op_type == "Size":
        size = 1
        for dim in shape:
            size *= dim
        return np.array(size, np.int64) if size < 1 << 62 else None
    part = {attribute.name: attribute.i for attribute in node.attribute}
    return np.array(shape[part.get("start", 0) : part.get("end", len(shape))], np.int64)


def _is_short(*bounds: np.ndarray) -> bool:
    """Whether a Range has few enough elements."""
    if len(bounds) != 3 or any(bound.size != 1 for bound in bounds):
        return False
    start, limit, delta = (float(bound.reshape(())) for bound in bounds)
    return delta != 0 and (limit - start) / delta <= _LONGEST_RANGE


def _is_broadcast_small(values: Iterable[np.ndarray]) -> bool:
    """Whether operands fit together, and make few enough elements: each may stretch the others."""
    try:
        shape = np.broadcast_shapes(*(value.shape for value in values))
    except ValueError:
        return False
    return math.prod(shape) <= _LONGEST_RANGE


def _run(node: onnx.NodeProto, inputs: Known, model: onnx.ModelProto) -> np.ndarray | None:
    from onnx.reference import ReferenceEvaluator

    ports = [onnx.ValueInfoProto(name=name) for name in inputs]
    graph = onnx.helper.make_graph([node], "value", ports, [onnx.ValueInfoProto(name=node.output[0])])
    opsets = [opset for opset in model.opset_import if opset.domain in ("", "ai.onnx")]
    one = onnx.helper.make_model(graph, opset_imports=opsets)
    try:
        (made,) = ReferenceEvaluator(one).run(None, inputs)
    except Exception:  # a wrong operand is the model's fault, and for others to find
        return None
    return made if isinstance(made, np.ndarray) else None
