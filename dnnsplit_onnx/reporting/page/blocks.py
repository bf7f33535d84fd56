"""Blocks of a model by the names of its nodes: layers of the framework, or paths within names.

`/encoder/layer.0/attn/MatMul` lies in the blocks `encoder`, `layer.0` and `attn`. A block that
holds nothing but another is drawn as one with it. Nodes whose names say nothing come in blocks
of equal size along the order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.layers import layer_of

# Nodes of a block whose names say nothing.
_RUN = 50
_STEP = re.compile(r"[/.]+")
# A number is no block of its own: `layer.0`, not `layer` and `0`.
_NUMBERED = re.compile(r"\.(?=\d+(?:[./]|$))")


@dataclass
class Block:
    """Nodes whose names begin alike.

    Attributes:
        name: What they have in common, after the block around.
        nodes: Positions of nodes that lie in no block within.
        blocks: The blocks within, by the first of their nodes.
    """

    name: str
    nodes: list[int] = field(default_factory=list)
    blocks: dict[str, Block] = field(default_factory=dict)

    @property
    def positions(self) -> list[int]:
        """All positions within, ascending."""
        return sorted([*self.nodes, *(at for block in self.blocks.values() for at in block.positions)])


def path_of(graph: Graph, at: int) -> tuple[str, ...]:
    """The blocks that a node lies in, from the outermost; none if its names say nothing."""
    node = graph.nodes[at]
    layer = layer_of(node.proto)
    if layer is not None:
        parts = _STEP.split(_NUMBERED.sub("\0", layer))
    else:
        parts = _STEP.split(_NUMBERED.sub("\0", node.name.strip("/")))[:-1] if "/" in node.name else []
    return tuple(part.replace("\0", ".") for part in parts if part)


def blocks_of(graph: Graph) -> Block:
    """The whole model as a block of blocks."""
    whole = Block("")
    for at in range(len(graph.nodes)):
        block = whole
        for name in path_of(graph, at) or (_run_name(at, len(graph.nodes)),):
            block = block.blocks.setdefault(name, Block(name))
        block.nodes.append(at)
    return _joined(whole)


def leaves(graph: Graph) -> Sequence[tuple[str, ...]]:
    """For each position, the path of the block that it lies in."""
    return [path_of(graph, at) for at in range(len(graph.nodes))]


def _run_name(at: int, size: int) -> str:
    start = at // _RUN * _RUN
    return f"nodes {start} to {min(start + _RUN, size) - 1}"


def _joined(block: Block) -> Block:
    """Blocks that hold nothing but another, made one with it; those of a single node, taken away."""
    blocks: dict[str, Block] = {}
    nodes = list(block.nodes)
    for name, one in block.blocks.items():
        inner = _joined(one)
        while not inner.nodes and len(inner.blocks) == 1:
            (only,) = inner.blocks.values()
            inner = Block(f"{inner.name}/{only.name}", only.nodes, only.blocks)
        if len(inner.nodes) == 1 and not inner.blocks:
            nodes += inner.nodes
        else:
            blocks[name] = inner
    return Block(block.name, sorted(nodes), blocks)
