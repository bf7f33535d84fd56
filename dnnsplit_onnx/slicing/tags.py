"""The tier of each node, written into the slice where viewers of models show it.

`NodeProto.metadata_props` came with IR version 10. A reader of an older version skips what it
does not know, and protobuf keeps no version of a message: so older models get it as well, and
keep their `ir_version`.
"""

from __future__ import annotations

import onnx

from dnnsplit_onnx.slicing.extract import Extract

#: Name of the tier, which is also that of its folder.
TIER = "dnnsplit_onnx.tier"
#: Where the node stands in the order that `inspect` prints. Weights that nodes make, from
#: constants alone, have no position.
POSITION = "dnnsplit_onnx.position"


def tag_nodes(part: Extract, tier: str) -> None:
    """Says of each node of a slice which tier it is for, and its position.

    What a node says of an earlier slicing gives way.

    Args:
        part: The slice; its model is changed.
        tier: The name of the tier.
    """
    nodes = part.proto.graph.node
    first = part.start - (len(nodes) - (part.stop - part.start))  # constant nodes come before the range
    for position, node in enumerate(nodes, first):
        _set(node, TIER, tier)
        if position >= part.start:
            _set(node, POSITION, str(position))


def _set(node: onnx.NodeProto, key: str, value: str) -> None:
    for entry in node.metadata_props:
        if entry.key == key:
            entry.value = value
            return
    node.metadata_props.add(key=key, value=value)
