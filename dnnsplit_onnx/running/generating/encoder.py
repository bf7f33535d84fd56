"""What a text is made after: an encoder, which runs once, and what the decoder reads of it.

| the decoder reads | the encoder gives |
|---|---|
| a name that the encoder makes, too | the output of that name |
| `past_key_cross_0` | `present_key_cross_0` |
| `encoder_attention_mask` | the mask that it read; ones where it read none |
| one value more, such as `encoder_hidden_states` | the one output that is left, such as `last_hidden_state` |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.graph.states import present_names
from dnnsplit_onnx.running.generating.decoder import Decoder, Signature
from dnnsplit_onnx.running.generating.roles import TokenInputs, attended, ids_of
from dnnsplit_onnx.runtime.inputs import check_inputs, numpy_dtype

#: Token ids, or what the encoder reads, by name.
Source = Sequence[int] | Mapping[str, Any]
# Batch, positions, width.
_HIDDEN_RANK = 3


class Encoder:
    """An encoder and the decoder after it.

    Args:
        model: The encoder; it has no states, so each of its texts is one step.
        reader: What the decoder reads.

    Attributes:
        gives: The decoder's inputs that come from here.

    Raises:
        InputError: The decoder reads nothing of an encoder, or what this one does not give, or
            nothing tells what an input of the encoder should be.
    """

    def __init__(self, model: Decoder, reader: Signature) -> None:
        self._model, ports = model, model.signature.inputs
        self.gives = attended(reader)
        if not self.gives:
            raise InputError("the decoder reads nothing that an encoder gives", hint="leave out --encoder")
        self._tokens = TokenInputs(ports) if ids_of(ports) is not None else None
        self._read = {port.name: port for port in (*reader.inputs, *reader.states)}
        self._masks = [name for name in self.gives if "mask" in name]
        self._made = _pairs([name for name in self.gives if name not in self._masks], model.signature.outputs)
        made = {port.name: port for port in model.signature.outputs}
        for name, output in self._made.items():
            _check_shape(self._read[name], made[output])

    @property
    def reads(self) -> tuple[Port, ...]:
        """Its inputs."""
        return self._model.signature.inputs

    @property
    def reads_tokens(self) -> bool:
        """Whether its inputs follow from token ids."""
        return self._tokens is not None

    def __call__(self, source: Source) -> dict[str, np.ndarray]:
        """What the decoder reads, by the decoder's names.

        Raises:
            InputError: The encoder does not read the source.
            ModelError: It fails.
        """
        inputs = self._inputs(source)
        talk = self._model.talk()
        try:
            outputs = talk.step(inputs)
        finally:
            talk.close()
        made = {name: outputs[output] for name, output in self._made.items()}
        return made | {name: self._mask(name, inputs, made) for name in self._masks}

    def close(self) -> None:
        """Gives the encoder up."""
        self._model.close()

    def _inputs(self, source: Source) -> dict[str, Any]:
        if isinstance(source, Mapping):
            return check_inputs(source, self.reads)
        if self._tokens is None:
            names = ", ".join(f"`{port.name}`" for port in self.reads)
            raise InputError(f"the encoder reads {names} and no tokens", hint="give it: --input X.npz")
        return self._tokens.fill(np.array(source, np.int64))

    def _mask(
        self, name: str, inputs: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """What of the source is to be attended to: rows of a batch by positions."""
        dtype = numpy_dtype(self._read[name])
        read = next((array for key, array in inputs.items() if "attention_mask" in key), None)
        if read is not None:
            return np.asarray(read).astype(dtype)
        lengths = {array.shape[:2] for array in made.values() if array.ndim == _HIDDEN_RANK}
        if len(lengths) != 1:
            raise InputError(f"nothing tells how long `{name}` is", hint="use an encoder that reads a mask")
        return np.ones(lengths.pop(), dtype)


def _pairs(read: Sequence[str], made: Sequence[Port]) -> dict[str, str]:
    """The output of an encoder for each name that a decoder reads.

    Raises:
        InputError: There is none.
    """
    outputs = {port.name for port in made}
    pairs = {
        name: found
        for name in read
        if (found := next((one for one in (name, *present_names(name)) if one in outputs), None)) is not None
    }
    rest = [name for name in read if name not in pairs]
    left = sorted(outputs - set(pairs.values()))
    if len(rest) == len(left) == 1:
        return pairs | {rest[0]: left[0]}
    if rest:
        raise InputError(
            f"the decoder reads `{rest[0]}`, which the encoder does not give",
            hint=f"it gives {', '.join(f'`{port.name}`' for port in made)}",
        )
    return pairs


def _check_shape(read: Port, made: Port) -> None:
    """Refuses an output that the decoder cannot read, such as that of an encoder of another width.

    Raises:
        InputError: It has another rank, or other sizes where both are numbers.
    """
    if read.shape is None or made.shape is None:
        return
    pairs = zip(read.shape, made.shape, strict=False)
    if len(read.shape) != len(made.shape) or any(
        one != other and isinstance(one, int) and isinstance(other, int) for one, other in pairs
    ):
        raise InputError(
            f"the decoder reads `{read.name}` of shape {_listed(read.shape)}, and the encoder gives "
            f"`{made.name}` of {_listed(made.shape)}",
            hint="pass the encoder of this model",
        )


def _listed(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in shape) + "]"
