"""What the inputs of a model of tokens are: token ids, masks and positions, told by their names.

| name | what it is |
|---|---|
| `input_ids`, `decoder_input_ids`, or the only input of whole numbers | the new tokens |
| `attention_mask`, `decoder_attention_mask` | ones, for what came before and the new |
| `position_ids`, `cache_position` | the places of the new tokens |
| `token_type_ids` | zeros |
| `seqlens_k`, `total_sequence_length`, `past_sequence_length` | lengths, for onnxruntime's operators |
| `use_cache_branch` | whether something came before |
| `num_logits_to_keep` | for how many of the last positions there are to be logits |

What an encoder gives is filled in elsewhere (`encoder.py`); whatever else a model reads is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.graph.states import is_attended
from dnnsplit_onnx.running.generating.decoder import Signature
from dnnsplit_onnx.runtime.inputs import numpy_dtype

_WHOLE = ("int64", "int32")
_IDS = ("input_ids", "decoder_input_ids")


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


def _mask(step: _Step) -> np.ndarray:
    return np.ones((1, step.total))


_FILL: dict[str, Callable[[_Step], np.ndarray]] = {
    "attention_mask": _mask,
    "decoder_attention_mask": _mask,
    "position_ids": _places,
    "cache_position": lambda step: _places(step)[0],
    "token_type_ids": lambda step: np.zeros((1, step.ids.size)),
    "seqlens_k": lambda step: np.array([step.total - 1]),
    "total_sequence_length": lambda step: np.array(step.total),
    "past_sequence_length": lambda step: np.array(step.past),
    "use_cache_branch": lambda step: np.array([step.past > 0]),
    "num_logits_to_keep": lambda step: np.array(step.wanted),
}


class TokenInputs:
    """Inputs that follow from token ids.

    Args:
        ports: All that a model reads, but for states and what an encoder gives.

    Attributes:
        longest: Tokens that one step takes; None for any number.

    Raises:
        InputError: None of them is that of token ids, or one is of none of the kinds above.
    """

    def __init__(self, ports: Sequence[Port]) -> None:
        ids = ids_of(ports)
        both = [port.name for port in ports if _base(port.name) in _IDS]
        if len(both) > 1:
            raise InputError(
                f"the model reads {' and '.join(f'`{name}`' for name in both)}: encoder and decoder in one",
                hint="`convert` its folder twice, with --task encoder and with --with-past",
            )
        if ids is None:
            raise InputError(
                "no input of the model is that of token ids",
                hint=f"it reads {', '.join(f'`{port.name}`' for port in ports)}",
            )
        self._ids, self._filled = ids, [port for port in ports if port.name != ids.name]
        for port in self._filled:
            if _base(port.name) not in _FILL:
                raise _unknown(port)
        length = ids.shape[1] if ids.shape is not None and len(ids.shape) > 1 else None
        self.longest = length if isinstance(length, int) else None

    def fill(self, ids: np.ndarray, past: int = 0, wanted: int = 1) -> dict[str, np.ndarray]:
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


class Roles(TokenInputs):
    """The inputs and outputs of a decoder by what they are.

    Args:
        signature: What it reads and makes.
        given: Names of what an encoder gives.

    Attributes:
        logits: The output that holds logits, or what a head left of them.

    Raises:
        InputError: It needs an encoder, an input is of none of the kinds above, or no output is logits.
    """

    def __init__(self, signature: Signature, given: Collection[str] = ()) -> None:
        for name in attended(signature):
            if name not in given:
                raise InputError(
                    f"the model reads `{name}`, which an encoder gives", hint="name it: --encoder ENCODER"
                )
        super().__init__([port for port in signature.inputs if port.name not in given])
        self.logits = _logits_of(signature)


def attended(signature: Signature) -> list[str]:
    """The inputs of a decoder that an encoder gives: read in each step, or staying for the text."""
    fresh = [port.name for port in signature.inputs if is_attended(port.name)]
    return fresh + [record.input for record in signature.records if record.output is None]


def ids_of(ports: Sequence[Port]) -> Port | None:
    """The input of token ids; None if there is none, or nothing tells which."""
    named = [port for port in ports if _base(port.name) in _IDS]
    whole = [port for port in ports if port.dtype in _WHOLE and _base(port.name) not in _FILL]
    found = named or whole
    return found[0] if len(found) == 1 else None


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
