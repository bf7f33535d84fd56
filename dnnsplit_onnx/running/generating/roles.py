"""What the inputs of a decoder are: token ids, masks and positions, told by their names.

| name | what it is |
|---|---|
| `input_ids`, or the only input of whole numbers | the new tokens |
| `attention_mask` | ones, for what came before and the new |
| `position_ids`, `cache_position` | the places of the new tokens |
| `token_type_ids` | zeros |
| `seqlens_k`, `total_sequence_length`, `past_sequence_length` | lengths, for onnxruntime's operators |
| `use_cache_branch` | whether something came before |
| `num_logits_to_keep` | for how many of the last positions there are to be logits |

Whatever else a model reads is refused by name, and so is what needs an encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.running.generating.decoder import Signature
from dnnsplit_onnx.runtime.inputs import numpy_dtype

_WHOLE = ("int64", "int32")
_ENCODED = ("encoder", "cross", "decoder_input_ids", "pixel", "audio", "input_features")


@dataclass(frozen=True, slots=True)
class _Step:
    """One step: the new ids, how many tokens came before, and for how many logits are wanted."""

    ids: np.ndarray
    past: int
    wanted: int

    @property
    def total(self) -> int:
        return self.past + self.ids.size


def _places(step: _Step) -> np.ndarray:
    return np.arange(step.past, step.total)[None]


_FILL: dict[str, Callable[[_Step], np.ndarray]] = {
    "attention_mask": lambda step: np.ones((1, step.total)),
    "position_ids": _places,
    "cache_position": lambda step: _places(step)[0],
    "token_type_ids": lambda step: np.zeros((1, step.ids.size)),
    "seqlens_k": lambda step: np.array([step.total - 1]),
    "total_sequence_length": lambda step: np.array(step.total),
    "past_sequence_length": lambda step: np.array(step.past),
    "use_cache_branch": lambda step: np.array([step.past > 0]),
    "num_logits_to_keep": lambda step: np.array(step.wanted),
}


class Roles:
    """The inputs of a decoder by what they are.

    Args:
        signature: What it reads and makes.

    Attributes:
        longest: Tokens that one step takes; None for any number.
        logits: The output that holds logits, or what a head left of them.

    Raises:
        InputError: An input is of none of the kinds above, or no output is logits.
    """

    def __init__(self, signature: Signature) -> None:
        self._ids = _ids_of(signature)
        self._filled = [port for port in signature.inputs if port.name != self._ids.name]
        for port in self._filled:
            if _base(port.name) not in _FILL:
                raise _unknown(port)
        length = self._ids.shape[1] if self._ids.shape is not None and len(self._ids.shape) > 1 else None
        self.longest = length if isinstance(length, int) else None
        self.logits = _logits_of(signature)

    def fill(self, ids: np.ndarray, past: int, wanted: int) -> dict[str, np.ndarray]:
        """The inputs of a step.

        Args:
            ids: The new tokens.
            past: How many came before.
            wanted: For how many of the last positions logits are wanted.
        """
        step = _Step(ids, past, wanted)
        made = {port.name: _FILL[_base(port.name)](step) for port in self._filled}
        made[self._ids.name] = ids[None]
        ports = {port.name: port for port in (self._ids, *self._filled)}
        return {name: _shaped(array, ports[name]) for name, array in made.items()}


def _base(name: str) -> str:
    """A name without its namespace."""
    return name.rpartition("/")[2].rpartition(".")[2]


def _shaped(array: np.ndarray, port: Port) -> np.ndarray:
    """An array of a port's type, and of its rank where that has an axis of one more or less."""
    array = array.astype(numpy_dtype(port))
    rank = array.ndim if port.shape is None else len(port.shape)
    if rank == array.ndim:
        return array
    return array.reshape((1,) * (rank - 1) + (-1,)) if rank else array.reshape(())


def _ids_of(signature: Signature) -> Port:
    for port in (*signature.inputs, *signature.states):
        if any(word in port.name for word in _ENCODED):
            raise InputError(
                f"the model reads `{port.name}`: it needs an encoder, and only decoders that stand alone "
                "generate here",
                hint=_after_an_encoder(signature),
            )
    named = [port for port in signature.inputs if _base(port.name) == "input_ids"]
    whole = [p for p in signature.inputs if p.dtype in _WHOLE and _base(p.name) not in _FILL]
    if len(named or whole) != 1:
        raise InputError(
            "no input of the model is that of token ids",
            hint=f"it reads {', '.join(f'`{port.name}`' for port in signature.inputs)}",
        )
    return (named or whole)[0]


def _after_an_encoder(signature: Signature) -> str:
    """How to go on step by step: what stays for the text is brought once."""
    once = [record.input for record in signature.records if record.output is None]
    names = ", ".join(f'"{name}": ...' for name in (*(port.name for port in signature.inputs), *once))
    first = f", of which only the first step brings {', '.join(f'`{name}`' for name in once)}" if once else ""
    call = f'steps = dnnsplit_onnx.Steps.open("slices"), steps({{{names}}})["logits"]'
    return f"step by step in Python: {call}{first}"


def _logits_of(signature: Signature) -> str:
    if signature.head is not None:
        return signature.head.outputs[0]
    named = [port for port in signature.outputs if _base(port.name) == "logits"]
    scores = [p for p in signature.outputs if p.kind == "tensor" and len(p.shape or ()) == 3]
    if len(named or scores) != 1:
        raise InputError(
            "no output of the model is that of logits",
            hint=f"it makes {', '.join(f'`{port.name}`' for port in signature.outputs)}",
        )
    return (named or scores)[0].name


def _unknown(port: Port) -> InputError:
    return InputError(
        f"the model reads `{port.name}`, and nothing tells what it should be",
        hint=f"a decoder's inputs are `input_ids`, {', '.join(f'`{name}`' for name in _FILL)}",
    )
