"""Slices that write what leaves them in codes, and read what arrives in codes.

    below                                     above
    x -> ... -> v                             v -> ... -> y
    x -> ... -> v -> encode -> v/uint8@7/*    v/uint8@7/* -> decode -> v -> ... -> y

A stage with work reads every coded value that arrives and writes every value that leaves, those
that pass it by included: so what a link carries depends on its own cut and code alone. A tier
without work passes the tensors on as they are; tier 0 without work still writes the model's inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import onnx

from dnnsplit_onnx.errors import CutError, PlanError
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.operators import ONNX_DOMAINS
from dnnsplit_onnx.graph.ports import FILES, Port
from dnnsplit_onnx.graph.shapes import value_type
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.slicing.coding import Coded, decode, encode
from dnnsplit_onnx.slicing.extract import Extract, inner_value, port
from dnnsplit_onnx.slicing.index import SliceIndex
from dnnsplit_onnx.work.codes import RAW, parts
from dnnsplit_onnx.work.cuts import live_values

#: The coded values of a cut, by name; the others cross as they are.
Codes = Mapping[str, Coded]

_OLDEST_OPSET, _OPSET = 7, 13


def codes_of(index: SliceIndex, plan: Plan) -> list[Codes]:
    """What each link of a plan carries in codes.

    Raises:
        CutError: A value's type is unknown, or none that its code is for.
        PlanError: The plan codes what does not cross, or a tier without work would have to recode.
    """
    links = plan.figures.links
    found = [
        coded_values(
            index,
            link.position,
            {coded.value: coded.code for coded in link.coded if coded.code not in FILES},
        )
        for link in links
    ]
    for (low, high), (below, above) in zip(pairwise(links), pairwise(found), strict=True):
        if low.position == high.position and below != above:
            raise PlanError(
                f"the plan has two codes at cut {low.position}, and no work between them", hint="plan again"
            )
    return found


def coded_values(index: SliceIndex, position: int, codes: Mapping[str, str]) -> Codes:
    """The coded values of one cut, their tensors named so that no name of the model is met."""
    graph = index.graph
    wanted = {value: code for value, code in codes.items() if code != RAW}
    live = live_values(graph, position) if position < len(graph.nodes) else ()
    if absent := sorted(wanted.keys() - set(live)):
        raise PlanError(f"value `{absent[0]}` does not cross cut {position}, and has a code there")
    index.types.require(value for value in wanted if value not in index.inputs)
    taken = _names(graph) if wanted else frozenset()
    found = {}
    for value in (value for value in live if value in wanted):
        kind = value_type(own_value(index, value).type)
        stem = f"{value}/{wanted[value]}@{position}"
        while any(name.startswith(f"{stem}/") for name in taken):
            stem += "_"
        if not parts(wanted[value], kind):
            raise CutError(
                f"value `{value}` cannot be written as {wanted[value]}: it is {_words(kind.dtype_name)}, "
                f"of shape {'unknown' if kind.shape is None else list(kind.shape)}",
                hint="allow other codes: --codes uint8",
            )
        found[value] = Coded(value, wanted[value], kind, stem)
    return found


def with_codes(index: SliceIndex, part: Extract, below: Codes, above: Codes) -> Extract:
    """A range of nodes that reads and writes the codes of the cuts at its ends.

    Args:
        index: The graph.
        part: The range, as `extract` makes it.
        below: The coded values at its start.
        above: Those at its stop.

    Raises:
        CutError: Its operators are too old for codes.
    """
    if not below and not above:
        return part
    if part.start == part.stop and below:  # no work: the tensors pass as they are
        return replace(part, forward=tuple(_forms(part.forward, above)))
    passing = [value for value in part.forward if value in below or value in above]
    reads = list(dict.fromkeys((*(port.name for port in part.inputs), *passing)))
    leaves = {port.name for port in part.outputs}
    model = part.proto
    graph = model.graph
    own = {value: own_value(index, value) for value in dict.fromkeys((*below, *above, *passing))}
    _replace_inputs(graph, reads, below, own)
    opset = _opset(model)
    kept = list(graph.node)
    del graph.node[:]
    for value in (value for value in reads if value in below):
        made = decode(below[value], opset)
        graph.node.extend(made.nodes)
        graph.initializer.extend(made.weights)
    graph.node.extend(kept)
    for coded in above.values():
        made = encode(coded, opset)
        graph.node.extend(made.nodes)
        graph.initializer.extend(made.weights)
    results = set(index.graph.outputs)
    outputs = [value for value in graph.output if value.name not in above or value.name in results]
    outputs += [own[value] for value in passing if value not in above and value not in leaves]
    outputs += [tensor for coded in above.values() for tensor in coded.outputs()]
    del graph.output[:]
    graph.output.extend(outputs)
    listed = {value.name for value in (*graph.input, *graph.output, *graph.value_info)}
    graph.value_info.extend(value for name, value in own.items() if name not in listed)
    weights = {tensor.name for tensor in graph.initializer}
    weights.update(sparse.values.name for sparse in graph.sparse_initializer)
    return replace(
        part,
        inputs=_ports((value for value in graph.input if value.name not in weights), below),
        outputs=_ports(graph.output, above),
        forward=tuple(value for value in part.forward if value not in passing),
    )


def own_value(index: SliceIndex, name: str) -> onnx.ValueInfoProto:
    """A value as it crosses without a code."""
    return index.inputs[name] if name in index.inputs else inner_value(index, name)


def _replace_inputs(
    graph: onnx.GraphProto, reads: Sequence[str], below: Codes, own: Mapping[str, onnx.ValueInfoProto]
) -> None:
    """Has a slice read the tensors of coded values, and what it passes on."""
    listed = {value.name for value in graph.input}
    inputs: list[onnx.ValueInfoProto] = []
    for value in (*graph.input, *(own[name] for name in reads if name not in listed)):
        inputs += below[value.name].outputs() if value.name in below else [value]
    del graph.input[:]
    graph.input.extend(inputs)


def _forms(values: Iterable[str], codes: Codes) -> Iterable[str]:
    for value in values:
        yield from codes[value].names.values() if value in codes else (value,)


def _ports(values: Iterable[onnx.ValueInfoProto], codes: Codes) -> tuple[Port, ...]:
    """Ports, each of which says what it stands for."""
    coded = {port.name: port for one in codes.values() for port in one.ports}
    return tuple(coded.get(value.name) or port(value) for value in values)


def _opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's operators; a model that has none gets one."""
    for opset in model.opset_import:
        if opset.domain in ONNX_DOMAINS:
            if opset.version < _OLDEST_OPSET:
                raise CutError(
                    f"the model is of opset {opset.version}, and codes need {_OLDEST_OPSET}",
                    hint="leave out --codes, or convert the model to a newer opset",
                )
            return int(opset.version)
    model.opset_import.add(domain="", version=_OPSET)
    return _OPSET


def _names(graph: Graph) -> frozenset[str]:
    """All names of nodes and values."""
    names = {name for node in graph.proto.graph.node for name in (node.name, *node.input, *node.output)}
    return frozenset(names | {tensor.name for tensor in graph.proto.graph.initializer})


def _words(dtype: str | None) -> str:
    return dtype or "of unknown type"
