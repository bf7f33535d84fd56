"""A head on the slice that makes the logits: a token in the place of a vocabulary of numbers.

The logits of 512 tokens of a vocabulary of 152,000 are 311 MB. Whoever takes the likeliest token
needs 8 bytes of them a token; whoever draws among the best few, a few numbers. The nodes that
choose are ONNX nodes at the end of the slice, so that any server of the protocol runs them.

| head | what takes the place of the logits |
|---|---|
| `argmax` | the likeliest token of each position |
| `topk:K` | the K likeliest tokens of each position, and their logits |
| `last` | the logits of the last position |
| `full` | nothing: all logits are returned |

Tokens of all positions are returned, so that several tokens can be verified in one pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import onnx
from onnx import TensorProto, helper

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.slicing.extract import Extract, port
from dnnsplit_onnx.slicing.manifest import HeadRecord, Manifest

FULL = "full"
_LEAST_OPSET = 11
_RANK = 3
_TOPK = re.compile(r"topk:([1-9][0-9]{0,5})")
_NAMES = {"argmax": ("token",), "topk": ("top_tokens", "top_logits"), "last": ("last",)}


def head_of(graph: Graph, text: str) -> HeadRecord | None:
    """The head that a command line names.

    Args:
        graph: The whole model.
        text: `argmax`, `topk:K`, `last` or `full`.

    Returns:
        What the manifest says of it; None for `full`.

    Raises:
        InputError: There is no such head, or the model makes no logits.
    """
    if text == FULL:
        return None
    match = _TOPK.fullmatch(text)
    kind = "topk" if match else text
    if kind not in _NAMES or (kind == "topk" and match is None):
        raise InputError(f"no head is named `{text}`", hint="the heads are argmax, topk:K, last, full")
    logits = _logits(graph)
    count = int(match[1]) if match else None
    words = (logits.shape or (None,))[-1]
    if count is not None and isinstance(words, int) and count > words:
        raise InputError(f"`{text}` asks for more tokens than the {words} that `{logits.name}` has")
    opset = next((o.version for o in graph.proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < _LEAST_OPSET:
        raise InputError(f"a head needs opset {_LEAST_OPSET}, and the model has {opset}", hint="--head full")
    readers = [node.name for node in graph.nodes if logits.name in node.inputs]
    if readers:
        raise InputError(f"node `{readers[0]}` reads `{logits.name}`, which a head would replace")
    outputs = tuple(f"{logits.name}_{name}" for name in _NAMES[kind])
    known = words if isinstance(words, int) and words > 0 else None
    return HeadRecord.model_validate(
        {"kind": kind, "count": count, "of": logits.name, "outputs": outputs, "words": known}
    )


def append_head(model: onnx.ModelProto, head: HeadRecord) -> None:
    """Puts a head on a model, or a slice, that makes the logits.

    Args:
        model: It is changed.
        head: The head.
    """
    graph = model.graph
    info = next(value for value in graph.output if value.name == head.of)
    ports = head_ports(head, port(info))
    at = list(graph.output).index(info)
    others = [value for value in graph.output if value.name != head.of]
    infos = [helper.make_tensor_value_info(p.name, _NUMBERS[p.dtype or ""], p.shape) for p in ports]
    del graph.output[:]
    graph.output.extend([*others[:at], *infos, *others[at:]])
    graph.node.extend(_nodes(head, info.type.tensor_type.elem_type))


def head_ports(head: HeadRecord, logits: Port) -> tuple[Port, ...]:
    """What a head makes of logits."""
    shape = logits.shape or ()
    if head.kind == "last":
        return (Port(name=head.outputs[0], dtype=logits.dtype, shape=(*shape[:-2], 1, *shape[-1:])),)
    tokens = Port(name=head.outputs[0], dtype="int64", shape=shape[:-1])
    if head.kind == "argmax":
        return (tokens,)
    few = (*shape[:-1], head.count)
    return (tokens.model_copy(update={"shape": few}), Port(name=head.outputs[1], dtype="float", shape=few))


def with_head(part: Extract, head: HeadRecord | None) -> Extract:
    """A slice with its head, if it is the one that makes the logits."""
    if head is None or all(made.name != head.of for made in part.outputs):
        return part
    append_head(part.proto, head)
    return replace(part, outputs=_replaced(part.outputs, head))


def headed(manifest: Manifest, head: HeadRecord | None) -> Manifest:
    """A manifest that says so."""
    if head is None:
        return manifest
    model = manifest.model
    outputs = _replaced(model.outputs, head)
    return manifest.model_copy(update={"head": head, "model": model.model_copy(update={"outputs": outputs})})


def _replaced(ports: Iterable[Port], head: HeadRecord) -> tuple[Port, ...]:
    return tuple(new for old in ports for new in (head_ports(head, old) if old.name == head.of else (old,)))


_NUMBERS = {name.lower(): number for name, number in TensorProto.DataType.items()}


def _nodes(head: HeadRecord, element_type: int) -> list[onnx.NodeProto]:
    prefix = f"dnnsplit_head/{head.of}"

    def constant(name: str, values: list[int]) -> tuple[str, onnx.NodeProto]:
        made = f"{prefix}/{name}"
        tensor = helper.make_tensor(made, TensorProto.INT64, [len(values)], values)
        return made, helper.make_node("Constant", [], [made], name=made, value=tensor)

    if head.kind == "last":
        place, node = constant("place", [-1])
        return [
            node,
            helper.make_node("Gather", [head.of, place], list(head.outputs), name=f"{prefix}/last", axis=1),
        ]
    nodes, logits = [], head.of
    if element_type != TensorProto.FLOAT:  # not all kernels choose among 16-bit numbers; the order stays
        logits = f"{prefix}/wide"
        nodes.append(
            helper.make_node("Cast", [head.of], [logits], name=f"{prefix}/cast", to=TensorProto.FLOAT)
        )
    if head.kind == "argmax":
        name = f"{prefix}/argmax"
        return [
            *nodes,
            helper.make_node("ArgMax", [logits], list(head.outputs), name=name, axis=-1, keepdims=0),
        ]
    count, node = constant("count", [head.count or 1])
    tokens, values = head.outputs
    return [
        *nodes,
        node,
        helper.make_node("TopK", [logits, count], [values, tokens], name=f"{prefix}/topk", axis=-1),
    ]


def _logits(graph: Graph) -> Port:
    """The one output that may be logits.

    Raises:
        InputError: There is none, or there are several.
    """
    infos = {value.name: value for value in graph.proto.graph.output}
    ports = [port(infos[name]) for name in graph.results]
    floats = [p for p in ports if p.kind == "tensor" and p.dtype in ("float", "float16", "bfloat16")]
    wide = [p for p in floats if p.shape is not None and len(p.shape) == _RANK]
    named = [p for p in wide if "logits" in p.name]
    if len(named or wide) != 1:
        raise InputError(
            "no output of the model is that of logits",
            hint=f"it makes {', '.join(f'`{p.name}`' for p in ports)}; --head full leaves them as they are",
        )
    return (named or wide)[0]
