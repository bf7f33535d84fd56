"""Sizes that open dimensions of model inputs usually have, the most typical first.

What a dimension is follows from what it is called, the axis it stands on and the type of
its input: a first one is a batch, integers of two axes are tokens, four axes of floats are an
image. These are starting points; whether a model runs at them is for a run to show.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dnnsplit_onnx.graph.dimensions import axis_name, names_in, open_names
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.graph.shapes import value_type

_BATCH = re.compile(r"batch", re.IGNORECASE)
# A batch where it stands first, as in `NCHW`, and any number elsewhere, as in a sound of `N` samples.
_LETTER = re.compile(r"^(n|b|bs)$", re.IGNORECASE)
_PAST = re.compile(r"past|cache|history|memory", re.IGNORECASE)
_TOTAL = re.compile(r"total|attention_mask", re.IGNORECASE)
_LENGTH = re.compile(r"seq|len|token|text|time|frame|phone|word|step|prompt|query", re.IGNORECASE)
_SAMPLES = re.compile(r"sampl|audio|wav|signal|sound|speech|pcm", re.IGNORECASE)

_LENGTHS = (128, 64, 100, 256, 200, 76, 32, 16, 50, 512, 300, 500, 1000, 1500, 3000, 20, 10, 8, 7, 5, 4, 3, 2)
_FEATURES = (
    *(80, 40, 64, 128, 256, 512, 768, 60, 32, 96, 13, 39, 257, 161, 201, 513, 560, 1024, 192, 384),
    *(16, 24, 20, 12, 10, 8, 7, 6, 5, 4, 3, 2),
)
_AUDIO = (16000, 512, 576, 1536, 480, 160, 1024, 256, 1280, 400, 320, 48000, 32000, 4800, 8000, 22050)
_IMAGE = (224, 640, 320, 256, 112, 48, 32, 64, 96, 128, 160, 192, 299, 384, 416, 448, 480, 512, 28, 1024)
_CHANNELS = (3, 1, 4, 2, 16, 32)
_BATCHES = (1, 2)


@dataclass(frozen=True)
class OpenSize:
    """One open dimension.

    Attributes:
        name: The name that it is bound by.
        role: What it seems to be; dimensions of a role agree until something says otherwise.
        usual: Sizes to try, the most typical first.
        inputs: The model inputs that have it.
    """

    name: str
    role: str
    usual: tuple[int, ...]
    inputs: tuple[str, ...]


def ports_of(graph: Graph) -> list[Port]:
    """What a model reads, as its file declares it."""
    data = set(graph.inputs)
    found = []
    for value in graph.proto.graph.input:
        if value.name in data:
            known = value_type(value.type)
            found.append(Port(name=value.name, dtype=known.dtype_name, shape=known.shape, kind=known.kind))
    return found


def open_sizes(ports: Sequence[Port], states: Sequence[str], bindings: Mapping[str, int]) -> list[OpenSize]:
    """The dimensions that bindings leave open, with what they usually are.

    Args:
        ports: What the model reads.
        states: The inputs that are outputs of the run before.
        bindings: The sizes that are known.
    """
    roles: dict[str, str] = {}
    inputs: dict[str, list[str]] = {}
    # What a request brings tells more of a dimension than a state does.
    for port in sorted(ports, key=lambda port: port.name in states):
        for axis, dim in enumerate(port.shape or ()):
            for name in open_names(dim, port.name, axis, bindings):
                part = dim is not None and names_in(str(dim)) != (str(dim),)
                role = _role(name, None if part else axis, port, port.name in states)
                roles[name] = _BETTER.get((roles.get(name, role), role), roles.get(name, role))
                inputs.setdefault(name, []).append(port.name)
    stepwise = "past" in roles.values()
    return [
        OpenSize(name, role, _usual(role, stepwise=stepwise), tuple(dict.fromkeys(inputs[name])))
        for name, role in roles.items()
    ]


# A dimension that stands on a first axis somewhere and on another elsewhere is no batch.
_BETTER = {("batch", "length"): "length", ("batch", "past"): "past", ("feature", "length"): "length"}


def _usual(role: str, *, stepwise: bool) -> tuple[int, ...]:
    if role == "length" and stepwise:
        return (1, *_LENGTHS)  # a decoder with its caches reads a token at a time
    return {
        "batch": _BATCHES,
        "past": (*_LENGTHS, 1),
        "total": (*_LENGTHS, 1),
        "length": (*_LENGTHS, 1),
        "samples": (*_AUDIO, 1),
        "feature": (*_FEATURES, 1),
        "channels": _CHANNELS,
        "image": (*_IMAGE, 1),
        "list": (1, *_LENGTHS, *_AUDIO),
    }[role]


def _role(name: str, axis: int | None, port: Port, is_state: bool) -> str:
    """What a dimension seems to be; the axis is None where it is a part of a sum."""
    rank = len(port.shape or ())
    is_float = (port.dtype or "").startswith(("float", "double", "bfloat"))
    if _BATCH.search(name) or (_LETTER.match(name) and (not axis or is_state)):
        return "batch"
    # A dimension without a name is called by its input, which says nothing of it.
    is_named = axis is None or name != axis_name(port.name, axis)
    if _PAST.search(name) and not _TOTAL.search(name) and (is_named or not is_state):
        return "past"
    if _TOTAL.search(name) and axis:
        return "total"
    if _SAMPLES.search(name) and axis != 0:
        return "samples"
    if axis == 0 and not _LENGTH.search(name):
        return "batch" if rank > 1 else "list"
    if rank == 3 and axis == 1 and is_state and isinstance((port.shape or ())[0], int):
        return "list"  # layers stand first, then the batch
    if is_state and axis == rank - 2 and rank >= 3:
        return "past"
    if rank == 4 and is_float and not is_state:
        return _image_role(axis, port)
    if rank == 2 and is_float and not is_state:
        return "samples"
    if _LENGTH.search(name) or not is_float:
        return "length"
    return "feature" if axis == rank - 1 else "length"


def _image_role(axis: int | None, port: Port) -> str:
    """What an open dimension of an image is: channels stand first or last of the three."""
    shape = port.shape or ()
    last_is_channels = isinstance(shape[3], int) and shape[3] <= 4 and not isinstance(shape[1], int)
    return "channels" if axis == (3 if last_is_channels else 1) else "image"
