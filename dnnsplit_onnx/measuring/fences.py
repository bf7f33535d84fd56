"""Roundings of half precision that the runtime leaves out, put back where a cut makes them.

onnxruntime's CPU runs a whole graph of float16 in float32: it casts at the graph's ends, and drops
each cast to float16 that a cast back follows. So values inside never round, even with optimisations
off. A cut makes a value leave its session, and it rounds once more. Neither is wrong; but the whole
that the chain is held against must round where the chain does.

A *fence* is a detour that the runtime cannot follow in float32, so that it casts on both sides:

1. from opset 11 on, a sequence of one element is made and its element taken;
2. before, a branch of an If returns the value, on a condition that only a run can know.

Identity, a pair of Casts, and one more graph output are no fences: measured with onnxruntime 1.31.

A node that merely moves data (Concat, Split, Gather ...) could run in float16; the runtime has it
move float32 where all its neighbours compute in it, and then nothing rounds there either. It looks at
nodes that its inputs come from, and that its first output goes to, and at no end of a graph. So:

1. a reader that reads what its own slice makes as well is not to see the fence: behind it stands a Sum
   of one value, which computes in float32;
2. a node whose later output crosses ends its slice, and its first output must be seen to end there too:
   it is led into a sequence that nobody reads.

        x -> Mul -> a -> Add -> y                       x -> Mul -> a -> Add -> y
                    |                 a is sent up                  |
                    +-> Mul -> z           ==>                    fence -> a/fence -> Mul -> z
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from dnnsplit_onnx.graph.bodies import captures, subgraphs
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.modelfile import open_model
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.slicing.manifest import Manifest

#: Element types that onnxruntime's CPU computes in wider ones.
HALF = frozenset({"float16", "bfloat16"})
_SEQUENCES_SINCE = 11


@dataclass(frozen=True, slots=True)
class Readers:
    """Who reads what arrives of a value, by indices in `GraphProto.node`.

    Attributes:
        alone: Nodes that read nothing that their own slice makes.
        joined: Nodes that do.
    """

    alone: frozenset[int] = frozenset()
    joined: frozenset[int] = frozenset()

    @property
    def first(self) -> int:
        """The first of all."""
        return min(self.alone | self.joined)


#: For each value the nodes that are to read it through a fence.
Fences = Mapping[str, Readers]


def fences_of(folder: Path, manifest: Manifest, graph: Graph) -> Fences:
    """The values that round because they cross a cut, and their readers beyond it.

    Which slice runs a node, its own file says: the values that it makes have the same names there.

    Args:
        folder: The folder of the manifest.
        manifest: What was cut.
        graph: The whole model.

    Raises:
        ModelError: A slice's file cannot be read.
    """
    made_by: dict[str, int] = {}
    leaves: dict[str, int] = {}
    for at, record in enumerate(manifest.slices):
        if record.file is None:
            continue
        nodes = open_model(folder / record.file).proto.graph.node
        for name in (name for node in nodes for name in node.output):
            made_by.setdefault(name, at)  # a coded value is made again by those who read it
        leaves.update((port.name, at) for port in record.outputs if _may_round(port))
    fences: dict[str, tuple[set[int], set[int]]] = {}
    for node in graph.nodes:
        place = next((made_by[name] for name in node.outputs if name in made_by), 0)
        joins = any(made_by.get(name) == place for name in node.inputs)
        for value in node.inputs:
            if place > leaves.get(value, place):
                fences.setdefault(value, (set(), set()))[joins].add(node.index)
    return {value: Readers(*map(frozenset, readers)) for value, readers in fences.items()}


def _may_round(port: Port) -> bool:
    return port.kind == "tensor" and (port.dtype is None or port.dtype in HALF)


def fence(model: onnx.ModelProto, fences: Fences) -> None:
    """Puts fences into a model, in place.

    Args:
        model: The whole model.
        fences: Values, and the nodes that are to read them through a fence.
    """
    opset = next((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), 0)
    graph = model.graph
    taken = set(_names(graph))
    nodes = list(graph.node)
    before: dict[int, list[onnx.NodeProto]] = {}
    for value, readers in fences.items():
        stem = value + "/fence"
        while any(name.startswith(stem) for name in taken):
            stem += "_"
        for index in readers.alone:
            redirect(nodes[index], value, stem)
        for index in readers.joined:
            redirect(nodes[index], value, f"{stem}_sum")
        made = before.setdefault(readers.first, [])
        made += _fence(value, stem, opset)
        if readers.joined:
            made.append(helper.make_node("Sum", [stem], [f"{stem}_sum"]))
    if opset >= _SEQUENCES_SINCE:
        _end_first_outputs(nodes, fences, before)
    del graph.node[:]
    for index, node in enumerate(nodes):
        graph.node.extend([*before.get(index, ()), node])


def _end_first_outputs(
    nodes: Sequence[onnx.NodeProto], fences: Fences, before: dict[int, list[onnx.NodeProto]]
) -> None:
    """Leads the first output of each node of which a later one crosses into a sequence."""
    for index, node in enumerate(nodes):
        first, others = node.output[0] if node.output else "", node.output[1:]
        crossing = [fences[name].first for name in others if name in fences]
        if crossing and first and first not in fences and not any(subgraphs(node)):
            unread = helper.make_node("SequenceConstruct", [first], [f"{others[0]}/fence_of_{index}"])
            before.setdefault(min(crossing), []).append(unread)


def _fence(value: str, stem: str, opset: int) -> list[onnx.NodeProto]:
    """The nodes that lead a value around to the name `stem`."""
    if opset >= _SEQUENCES_SINCE:
        zero = helper.make_tensor(f"{stem}_at", TensorProto.INT64, [], [0])
        return [
            helper.make_node("Constant", [], [f"{stem}_at"], value=zero),
            helper.make_node("SequenceConstruct", [value], [f"{stem}_list"]),
            helper.make_node("SequenceAt", [f"{stem}_list", f"{stem}_at"], [stem]),
        ]
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("Identity", [value], [f"{stem}_{name}"])],
            name,
            [],
            [onnx.ValueInfoProto(name=f"{stem}_{name}")],
        )
        for name in ("then", "else")
    }
    return [
        helper.make_node("Size", [value], [f"{stem}_size"]),
        helper.make_node("Cast", [f"{stem}_size"], [f"{stem}_some"], to=TensorProto.BOOL),
        helper.make_node("If", [f"{stem}_some"], [stem], **branches),
    ]


def redirect(node: onnx.NodeProto, value: str, name: str) -> None:
    """Has a node, and the bodies in it, read another value."""
    for at, read in enumerate(node.input):
        if read == value:
            node.input[at] = name
    for body in subgraphs(node):
        if value not in captures(body):
            continue
        for inner in body.node:
            redirect(inner, value, name)
        for at, output in enumerate(body.output):
            if output.name == value:  # the body returns an outer value untouched
                own = f"{name}_{at}"
                body.node.append(helper.make_node("Identity", [name], [own]))
                output.name = own


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """All names of values in a graph and its bodies."""
    for node in graph.node:
        yield from node.input
        yield from node.output
        for body in subgraphs(node):
            yield from _names(body)
