"""Types that onnx cannot infer, asked of onnxruntime.

onnxruntime knows the operators of its own domains (`com.microsoft`). It is given the
smallest model that makes the values in question from values of known type, in which large
weights are mere inputs: a type depends on no weight's content, so none is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from dnnsplit_onnx.graph.bodies import reads_of
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.runtime.custom_ops import register_all

_EXTERNAL = onnx.TensorProto.EXTERNAL


def ask_runtime(
    graph: Graph, names: Sequence[str], known: Mapping[str, onnx.TypeProto]
) -> tuple[dict[str, onnx.TypeProto], str]:
    """The types of values as onnxruntime infers them.

    Args:
        graph: The graph.
        names: Values of unknown type.
        known: Types of other values.

    Returns:
        The types it knows, and why it does not know the others.
    """
    try:
        import onnxruntime as ort
    except ImportError:
        return {}, "onnxruntime, which may know it, is not installed"
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    model = _questions(graph, names, known).SerializeToString()
    try:
        register_all(options)
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base but Exception
        return {}, f"onnxruntime does not know it either: {' '.join(str(error).split())}"
    answers = {answer.name: _type_proto(answer.type, answer.shape) for answer in session.get_outputs()}
    return {name: proto for name, proto in answers.items() if proto is not None}, "onnxruntime does not say"


def _questions(graph: Graph, names: Sequence[str], known: Mapping[str, onnx.TypeProto]) -> onnx.ModelProto:
    """A model that makes `names` from values of known type."""
    proto = graph.proto
    maker = graph.constant_nodes | {v: graph.nodes[at].index for v, at in graph.producer.items()}
    needed: set[int] = set()
    entering: dict[str, None] = {}
    pending = list(names)
    while pending:
        index = maker[pending.pop()]
        if index in needed:
            continue
        needed.add(index)
        for name in reads_of(proto.graph.node[index]):
            if name in known or name not in maker:
                entering[name] = None
            else:
                pending.append(name)
    model = onnx.ModelProto(ir_version=proto.ir_version)
    model.opset_import.extend(proto.opset_import)
    model.functions.extend(proto.functions)
    model.graph.name = "types"
    runnable = (*dict.fromkeys(graph.constant_nodes.values()), *(node.index for node in graph.nodes))
    model.graph.node.extend(proto.graph.node[index] for index in runnable if index in needed)
    small = {t.name: t for t in proto.graph.initializer if t.data_location != _EXTERNAL}
    for name in entering:
        if name in small:
            model.graph.initializer.append(small[name])
        else:
            model.graph.input.add(name=name, type=known.get(name))
    for name in names:
        model.graph.output.add(name=name)
    return model


def _type_proto(text: str, shape: Sequence[int | str | None]) -> onnx.TypeProto | None:
    """A type as onnxruntime spells it, such as `seq(tensor(float))`."""
    proto = onnx.TypeProto()
    return proto if _parse(text, proto, shape) else None


def _parse(text: str, into: Any, shape: Sequence[int | str | None]) -> bool:
    kind, _, rest = text.partition("(")
    inner = rest.removesuffix(")")
    if kind == "tensor":
        number = onnx.TensorProto.DataType.items()
        into.tensor_type.elem_type = dict(number).get(inner.upper(), 0)
        # It shows no dimensions both for a scalar and where it knows no rank.
        for size in shape:
            dim = into.tensor_type.shape.dim.add()
            if isinstance(size, str):
                dim.dim_param = size
            elif size is not None and size >= 0:
                dim.dim_value = size
        return bool(into.tensor_type.elem_type)
    if kind == "seq":
        return _parse(inner, into.sequence_type.elem_type, ())
    if kind == "optional":
        return _parse(inner, into.optional_type.elem_type, ())
    return False
