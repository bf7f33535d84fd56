"""What a node's time is predicted from: its kind, and amounts of work and bytes.

A kind is an operator, told apart where machines run it by other kernels:

1. `Conv` is `depthwise`, `grouped`, `1x1` or none of these.
2. An operator that runtimes fuse into the one before it, such as the Relu of a Conv, is another
   kind than the same operator by itself: `Relu after Conv`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.work.analysis import Analysis

#: What is counted of each node, in this order; the last three are bytes.
AMOUNTS = ("macs", "elementwise", "read_nbytes", "written_nbytes", "weight_nbytes")

_HOSTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_FUSED = frozenset(
    {"Add", "BatchNormalization", "Clip", "Elu", "HardSigmoid", "HardSwish"}
    | {"LeakyRelu", "Mul", "PRelu", "Relu", "Sigmoid", "Tanh"}
)


@dataclass(frozen=True)
class Features:
    """Kinds and amounts of a model's nodes.

    Attributes:
        kinds: One a node.
        amounts: Shape (n, 5): `AMOUNTS` of each node; 0 where one is not known.
    """

    kinds: tuple[str, ...]
    amounts: NDArray[np.float64]


def features(analysis: Analysis) -> Features:
    """The features of each node, in the analysis's order."""
    rows = np.zeros((len(analysis.graph.nodes), len(AMOUNTS)))
    for at, (node, work) in enumerate(zip(analysis.graph.nodes, analysis.work, strict=True)):
        rows[at] = (
            work.macs if work else 0,
            work.elementwise if work else 0,
            _nbytes(analysis, node.inputs),
            _nbytes(analysis, node.outputs),
            analysis.weight_nbytes(at) or 0,
        )
    return Features(tuple(_kinds(analysis)), rows)


def _nbytes(analysis: Analysis, values: tuple[str, ...]) -> int:
    return sum(analysis.types.nbytes(value) or 0 for value in values)


def _kinds(analysis: Analysis) -> Iterator[str]:
    graph = analysis.graph
    readers: dict[str, int] = {}
    for node in graph.nodes:
        for value in node.inputs:
            readers[value] = readers.get(value, 0) + 1
    host: list[str | None] = []  # what each node is fused into, or is itself
    for at, node in enumerate(graph.nodes):
        own = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        before = next(
            (
                host[graph.producer[value]]
                for value in node.inputs
                if value in graph.producer and readers[value] == 1 and host[graph.producer[value]]
            ),
            None,
        )
        is_fused = own in _FUSED and before is not None
        host.append(own if own in _HOSTS else before if is_fused else None)
        yield f"{own} after {before}" if is_fused else _kernel(analysis, at) if own == "Conv" else own


def _kernel(analysis: Analysis, at: int) -> str:
    """Which of the ways to convolve a Conv is."""
    node = analysis.graph.nodes[at]
    weight = analysis.types[node.proto.input[1]].shape
    groups = next((a.i for a in node.proto.attribute if a.name == "group"), 1)
    if weight is None:
        return "Conv"
    if groups > 1:
        return "Conv depthwise" if weight[1] == 1 else "Conv grouped"
    return "Conv 1x1" if all(extent == 1 for extent in weight[2:]) else "Conv"
