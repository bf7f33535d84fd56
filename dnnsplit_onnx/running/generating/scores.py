"""What may come next: read from logits, or from what a head on the top slice left of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.running.generating.decoder import Signature


@dataclass(frozen=True, slots=True)
class Candidates:
    """The tokens that may follow one position.

    Attributes:
        logits: Of each; None where only the likeliest token is known.
        tokens: Their ids; None if these are 0, 1, 2 and so on.
    """

    logits: np.ndarray | None
    tokens: np.ndarray | None = None

    @property
    def best(self) -> int:
        """The likeliest token, the first of equal ones."""
        if self.logits is None:
            assert self.tokens is not None, "one of both is there"
            return int(self.tokens[0])
        return self.token(int(self.logits.argmax()))

    @property
    def gap(self) -> float | None:
        """By how much the likeliest is ahead of the next; None if nobody knows."""
        if self.logits is None or self.logits.size < 2:
            return None
        second, first = np.partition(self.logits, -2)[-2:]
        return float(first) - float(second)

    def token(self, at: int) -> int:
        """The id of one of the candidates."""
        return at if self.tokens is None else int(self.tokens[at])


def read_scores(
    signature: Signature, name: str, outputs: Mapping[str, np.ndarray], wanted: int
) -> list[Candidates]:
    """What may follow each of the last positions of a step.

    Args:
        signature: Of the decoder.
        name: The output of logits, or of a head.
        outputs: What the step made.
        wanted: How many of the last positions.

    Raises:
        ModelError: There are not so many, or the logits are not numbers.
    """
    head = signature.head
    if head is not None and head.kind in ("argmax", "topk"):
        tokens = outputs[head.outputs[0]]
        if head.kind == "argmax":
            return [Candidates(None, tokens[0, at : at + 1]) for at in _last(tokens.shape[1], wanted)]
        values = outputs[head.outputs[1]]
        _check(values)
        return [Candidates(values[0, at], tokens[0, at]) for at in _last(tokens.shape[1], wanted)]
    logits = outputs[name]
    if logits.ndim == 2:
        logits = logits[:, None]
    places = _last(logits.shape[1], wanted)
    _check(logits[0, places.start :])
    return [Candidates(logits[0, at].astype(np.float32, copy=False)) for at in places]


def _last(length: int, wanted: int) -> range:
    if wanted > length:
        raise ModelError(f"the model gives logits of {length} positions, {wanted} are needed")
    return range(length - wanted, length)


def _check(logits: np.ndarray) -> None:
    if np.isnan(logits).any():
        raise ModelError("the model's logits are not numbers (NaN)")
