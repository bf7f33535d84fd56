"""Bytes that a node reads and writes: what memory has to move for it.

A node reads its inputs and weights and writes its outputs, each in the bytes that it has: a weight
of four bits an element is half a byte. But

1. an operator that renames what lies in memory, such as Reshape, moves nothing;
2. one that picks, such as Gather and Slice, reads what it picks and not all it picks from. A decoder's
   step reads one row of its table of words.
"""

from __future__ import annotations

from collections.abc import Iterable

from dnnsplit_onnx.graph.graph import Node
from dnnsplit_onnx.work.cuts import Sizes

_RENAMING = frozenset(("Flatten", "Identity", "Reshape", "Shape", "Size", "Squeeze", "Unsqueeze"))
#: Operators that read of their first input as much as they write, or less.
_PICKING = frozenset(("Gather", "GatherBlockQuantized", "GatherElements", "GatherND", "Slice"))


def moved_nbytes(node: Node, size: Sizes) -> int:
    """Bytes that a node reads and writes, weights included; 0 if one of them is unknown.

    Args:
        node: The node.
        size: Bytes of a value or a weight, None if unknown.
    """
    if node.op_type in _RENAMING:
        return 0
    written = _sum(node.outputs, size)
    if node.op_type not in _PICKING:
        read = _sum((*node.inputs, *node.weights), size)
        return 0 if read is None or written is None else read + written
    # Scales and zero points of what is picked are few: they are left out.
    which = node.proto.input[1:2] if node.op_type != "Slice" else ()
    read = _sum(which, size)
    return 0 if read is None or written is None else read + 2 * written


def _sum(names: Iterable[str], size: Sizes) -> int | None:
    total = 0
    for name in names:
        nbytes = size(name)
        if nbytes is None:
            return None
        total += nbytes
    return total
