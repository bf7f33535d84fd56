"""What a model may claim: checked once, before anything works through it.

Two bytes of a file are an empty node, and an empty node is a hundred bytes in memory, more
once native libraries have copied it. So entries are counted, and there is a most of them that
is far above any model in use and that a machine can still work through. The same holds for the
dimensions of one tensor.

Names must be UTF-8, as protobuf demands and its parser does not check: it hands out bytes
where they are not, which nothing downstream expects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import onnx

from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.graph.functions import check_functions
from dnnsplit_onnx.graph.protobuf import MOST_FIELDS

#: Nodes, values, weights, attributes and names of inputs and outputs, subgraphs and functions
#: included. A node with all its own takes about seven.
MOST_ENTRIES = MOST_FIELDS
#: Dimensions of one tensor; numpy has at most 64, and no operator a use for more.
MOST_DIMS = 1024

# So many names are looked at together.
_TEXTS = 1024
#: Characters of a name.
LONGEST_NAME = 1 << 14

_TERM = rb"[A-Za-z ]*(?:\.\.\.[A-Za-z ]*)?"
_EQUATION = re.compile(_TERM + rb"(?:," + _TERM + rb")*(?:->" + _TERM + rb")?")
_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


def check_bounds(model: onnx.ModelProto) -> None:
    """Refuses a model that claims more than anyone could work through.

    Raises:
        ModelError: It has too many entries or dimensions, a name that is not UTF-8, or
            functions that ONNX does not allow (`functions.check_functions`).
    """
    survey = _Survey()
    survey.add_graph(model.graph)
    for function in model.functions:
        survey.need_text((function.name, function.domain, function.overload))
        survey.need_text((*function.input, *function.output))
        survey.add_nodes(function.node)
    survey.finish()
    check_functions(model)


class _Survey:
    """Counts entries; graphs are taken from a list, so that nesting costs no stack."""

    def __init__(self) -> None:
        self._count = 0
        self._graphs: list[onnx.GraphProto] = []

    def add_graph(self, graph: onnx.GraphProto) -> None:
        """Counts a graph; its subgraphs come later."""
        self._add(len(graph.node) + len(graph.initializer) + len(graph.sparse_initializer))
        self.add_nodes(graph.node)
        for values in (graph.input, graph.output, graph.value_info):
            self._add(len(values))
            self.need_text(value.name for value in values)
            for value in values:
                _check_type(value)
        for tensor in graph.initializer:
            _check_dims(tensor.name, len(tensor.dims))
        for sparse in graph.sparse_initializer:
            _check_dims(sparse.values.name, len(sparse.dims))
        self.need_text(tensor.name for tensor in graph.initializer)
        self.need_text(sparse.values.name for sparse in graph.sparse_initializer)

    def add_nodes(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Counts what nodes hold."""
        texts: list[str | bytes] = []
        for node in nodes:
            inputs, outputs, attributes, op_type = node.input, node.output, node.attribute, node.op_type
            self._add(len(inputs) + len(outputs) + len(attributes))
            texts += (node.name, op_type, node.domain, node.overload, *inputs, *outputs)
            if len(texts) > _TEXTS:
                self.need_text(texts)
                texts.clear()
            if op_type == "Einsum":
                _check_equation(node)
            for attribute in attributes:
                if attribute.type in _GRAPHS:
                    self._graphs.append(attribute.g)
                    self._graphs.extend(attribute.graphs)
        self.need_text(texts)

    def finish(self) -> None:
        """Counts the subgraphs that are left."""
        while self._graphs:
            self.add_graph(self._graphs.pop())

    def need_text(self, texts: Iterable[str | bytes]) -> None:
        """Refuses bytes among names, and names that fill screens."""
        texts = list(texts)
        try:
            total = len("".join(texts))  # type: ignore[arg-type] # far faster than to look at each
        except TypeError:
            culprit = next(text for text in texts if isinstance(text, bytes))
            raise ModelError(f"the name {culprit[:100]!r} is not UTF-8") from None
        if total > LONGEST_NAME and max(map(len, texts)) > LONGEST_NAME:
            longest = max(texts, key=len)
            raise ModelError(f"the name `{longest[:50]!s}...` has {len(longest)} characters")

    def _add(self, count: int) -> None:
        self._count += count
        if self._count > MOST_ENTRIES:
            raise ModelError(f"the model has more than {MOST_ENTRIES} nodes, values, weights and attributes")


def _check_equation(node: onnx.NodeProto) -> None:
    """Refuses equations that are none: on `....` onnx's shape inference never comes back."""
    for attribute in node.attribute:
        if attribute.name == "equation" and _EQUATION.fullmatch(attribute.s) is None:
            raise ModelError(f"node `{node.name or node.op_type}`: {attribute.s[:50]!r} is not an equation")


def _check_type(value: onnx.ValueInfoProto) -> None:
    kind = value.type
    # Each of these holds one other type; protobuf bounds how deep.
    while (which := kind.WhichOneof("value")) in ("sequence_type", "optional_type", "map_type"):
        inner = getattr(kind, which)
        kind = inner.value_type if which == "map_type" else inner.elem_type
    if which is not None and which != "opaque_type":
        _check_dims(value.name, len(getattr(kind, which).shape.dim))


def _check_dims(name: str, count: int) -> None:
    if count > MOST_DIMS:
        raise ModelError(f"value `{name}` has {count} dimensions; at most {MOST_DIMS} are read")
