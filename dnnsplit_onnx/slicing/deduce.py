"""Element types that follow from the operators around a value.

An operator of an unknown domain says nothing of what it makes. Who reads it may: the two
operands of an Add have one type, so if one is a float weight, the other is float as well.
`onnx.defs` has these rules as type variables, shared between inputs and outputs. They hold
in any valid model, so this is proof, not a guess; of shapes it says nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat

import onnx

from dnnsplit_onnx.graph.graph import Graph

_DTYPES = {f"tensor({name.lower()})": number for name, number in onnx.TensorProto.DataType.items()}
_FormalParameter = onnx.defs.OpSchema.FormalParameter


def deduce_types(graph: Graph, known: Mapping[str, onnx.TypeProto]) -> dict[str, onnx.TypeProto]:
    """Tensor types of values that have none, as far as their neighbours settle them.

    Args:
        graph: The graph.
        known: Types of values.

    Returns:
        Types of values that are not in `known`, without shapes.
    """
    opsets = {opset.domain: opset.version for opset in graph.proto.opset_import}
    found: dict[str, onnx.TypeProto] = {}
    # A node is looked at again only when one of its values has been settled: passes over all
    # nodes would be as many as the nodes of a long chain.
    touching: dict[str, list[onnx.NodeProto]] = {}
    pending: deque[onnx.NodeProto] = deque()
    for node in graph.proto.graph.node:
        unsettled = tuple(_unsettled(node, known))
        for name in unsettled:
            touching.setdefault(name, []).append(node)
        if unsettled:
            pending.append(node)
    while pending:
        node = pending.popleft()
        if not any(_unsettled(node, known, found)):
            continue
        schema = _schema(node, opsets)
        if schema is not None and (settled := _settle(node, schema, known, found)):
            found.update(settled)
            for name in settled:
                pending.extend(touching[name])
    return found


def _unsettled(node: onnx.NodeProto, *types: Mapping[str, onnx.TypeProto]) -> Iterator[str]:
    names = (name for name in (*node.input, *node.output) if name)
    return (name for name in names if not any(name in known for known in types))


def _schema(node: onnx.NodeProto, opsets: Mapping[str, int]) -> onnx.defs.OpSchema | None:
    version = opsets.get(node.domain)
    if version is None or not onnx.defs.has(node.op_type, node.domain):
        return None
    try:
        return onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:  # the operator is newer than the model's opset
        return None


def _settle(
    node: onnx.NodeProto,
    schema: onnx.defs.OpSchema,
    known: Mapping[str, onnx.TypeProto],
    found: Mapping[str, onnx.TypeProto],
) -> dict[str, onnx.TypeProto]:
    """Types of this node's values that follow from those of its others."""
    dtypes: dict[str, int] = dict(_DTYPES)
    for constraint in schema.type_constraints:
        if len(constraint.allowed_type_strs) == 1:
            dtypes[constraint.type_param_str] = _DTYPES.get(constraint.allowed_type_strs[0], 0)
    places = list(chain(_places(node.input, schema.inputs), _places(node.output, schema.outputs)))
    for name, variable in places:
        proto = known.get(name) or found.get(name)
        if proto is not None and proto.tensor_type.elem_type:
            dtypes.setdefault(variable, proto.tensor_type.elem_type)
    settled: dict[str, onnx.TypeProto] = {}
    for name, variable in places:
        if name not in known and name not in found and dtypes.get(variable):
            settled[name] = onnx.TypeProto()
            settled[name].tensor_type.elem_type = dtypes[variable]
    return settled


def _places(names: Sequence[str], formals: Sequence[_FormalParameter]) -> Iterator[tuple[str, str]]:
    """Each value with the type, or type variable, of its place; a variadic last place repeats."""
    if not formals:
        return
    for name, formal in zip(names, chain(formals, repeat(formals[-1])), strict=False):
        variadic = formal.option == onnx.defs.OpSchema.FormalParameterOption.Variadic
        if name and (formal.is_homogeneous or not variadic):
            yield name, formal.type_str
