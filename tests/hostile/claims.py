"""Models that claim much in few bytes, written byte by byte: no library would make them.

Field numbers are those of onnx.proto.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from dnnsplit_onnx.graph.protobuf import encode_varint, length_delimited

#: `graph` of a ModelProto, `node` of a GraphProto, `attribute` of a NodeProto, `g` of an AttributeProto.
GRAPH, NODE, ATTRIBUTE, BODY = 7, 1, 5, 6


def wrap(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return length_delimited(number, len(content)) + content


def whole(graph: bytes = b"", rest: bytes = b"") -> bytes:
    """A model of version 8 and opset 17 with x -> Relu -> y, and what else is given."""
    return bytes(relu(graph).SerializeToString()) + wrap(GRAPH, graph) + rest


def relu(_: bytes = b"") -> onnx.ModelProto:
    """x -> Relu -> y."""
    return model([helper.make_node("Relu", ["x"], ["y"])], [2], [2])


def model(nodes: list[onnx.NodeProto], shape: list[int], made: list[int] | None) -> onnx.ModelProto:
    """A model with input x and output y, both float."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, made)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def empty(number: int, count: int) -> bytes:
    """So many empty messages: two bytes each, and a hundred once they are parsed."""
    return length_delimited(number, 0) * count


def nested_ifs(depth: int) -> bytes:
    """A graph in which each If holds the next."""
    attribute_name, graph_type = wrap(1, b"then_branch"), encode_varint(20 << 3) + b"\x05"
    body = b""
    for _ in range(depth):
        node = (
            wrap(1, b"c") + wrap(4, b"If") + wrap(ATTRIBUTE, attribute_name + wrap(BODY, body) + graph_type)
        )
        body = wrap(NODE, node)
    return body


def nested_sequences(depth: int) -> bytes:
    """An input that is a sequence of sequences of sequences."""
    kind = wrap(1, b"\x08\x01")
    for _ in range(depth):
        kind = wrap(4, wrap(1, kind))
    return wrap(11, wrap(1, b"q") + wrap(2, kind))


def wide_input(sizes: list[int]) -> bytes:
    """An input of that many dimensions."""
    dims = b"".join(wrap(1, b"\x08" + encode_varint(size)) for size in sizes)
    return wrap(11, wrap(1, b"q") + wrap(2, wrap(1, b"\x08\x01" + wrap(2, dims))))


def functions(calls: dict[str, list[str]]) -> onnx.ModelProto:
    """A model that calls function `f0`; each function is a chain of the operators listed.

    Names that are functions are called, others are operators of ONNX.
    """
    made = model([helper.make_node("f0", ["x"], ["y"], domain="f")], [1], [1])
    for name, ops in calls.items():
        values = ["a", *(f"v{at}" for at in range(len(ops)))]
        nodes = [
            helper.make_node(op, [values[at]], [values[at + 1]], domain="f" if op in calls else "")
            for at, op in enumerate(ops)
        ]
        opsets = list(made.opset_import)
        made.functions.append(helper.make_function("f", name, ["a"], [values[-1]], nodes, opsets))
    return made
