"""Bodies that nodes hold, branches of If and bodies of Loop and Scan, and what they capture."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from dnnsplit_onnx.errors import ModelError

_GRAPH = onnx.AttributeProto.GRAPH
_GRAPHS = onnx.AttributeProto.GRAPHS
_DEEPEST = 50


def reads_of(node: onnx.NodeProto) -> tuple[str, ...]:
    """The outer values a node reads, each once: its inputs, then what its subgraphs capture."""
    reads = dict.fromkeys(filter(None, node.input))
    if node.attribute:
        for body in subgraphs(node):
            reads.update(dict.fromkeys(captures(body)))
    return tuple(reads)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies a node holds: branches of If, bodies of Loop and Scan."""
    for attribute in node.attribute:
        if attribute.type == _GRAPH:
            yield attribute.g
        elif attribute.type == _GRAPHS:
            yield from attribute.graphs


def captures(body: onnx.GraphProto, depth: int = 0) -> Iterator[str]:
    """The values of outer scopes that a subgraph reads, nested subgraphs included.

    A branch may also *return* an outer value without touching it; that is a capture too.
    """
    if depth > _DEEPEST:
        raise ModelError(f"subgraphs are nested more than {_DEEPEST} deep")
    own = {value.name for value in body.input}
    own.update(tensor.name for tensor in body.initializer)
    own.update(sparse.values.name for sparse in body.sparse_initializer)
    for node in body.node:
        own.update(node.output)
    own.add("")
    for node in body.node:
        for name in node.input:
            if name not in own:
                yield name
        for inner in subgraphs(node):
            for name in captures(inner, depth + 1):
                if name not in own:
                    yield name
    for value in body.output:
        if value.name not in own:
            yield value.name
