"""What text is made from: anything that takes token ids and states, and gives logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dnnsplit_onnx.errors import RequestError
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.slicing.manifest import HeadRecord, Manifest, StateRecord


class StatesLostError(RequestError):
    """The states of a text are gone, with a tier that was restarted: feed the text again."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a decoder reads and makes.

    Attributes:
        inputs: What each step brings: ids, masks, positions.
        outputs: What each step gives, such as logits.
        states: What is kept between steps, as the model reads it.
        records: What is known of the states.
        head: What is left of the logits; None if all of them come.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: tuple[Port, ...] = ()
    records: tuple[StateRecord, ...] = ()
    head: HeadRecord | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> Signature:
        """The signature of a folder of slices."""
        kept = {state.input for state in manifest.states}
        states = tuple(port for port in manifest.model.inputs if port.name in kept)
        return cls(manifest.fresh_inputs, manifest.results, states, manifest.states, manifest.head)


class Talk(Protocol):
    """The states of one text; for one thread at a time."""

    def step(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Goes on by some tokens.

        Args:
            inputs: By name, all of `Signature.inputs`.

        Returns:
            The outputs, by name.

        Raises:
            StatesLostError: What came before is not known any more.
            DnnsplitError: The model refuses the inputs, or cannot be reached.
        """

    def drop(self, count: int) -> None:
        """Forgets the last positions.

        Raises:
            InputError: The caches cannot be cut back.
        """

    def close(self) -> None:
        """Gives the states up."""


class Decoder(Protocol):
    """Makes logits of token ids, for many texts at a time; safe to use from several threads."""

    @property
    def signature(self) -> Signature:
        """What it reads and makes."""

    def talk(self, positions: int | None = None) -> Talk:
        """Begins a text.

        Args:
            positions: How long it may become, if that is known: what cannot be kept is then
                refused before it is begun.
        """

    def replayed(self, tokens: int) -> None:
        """Is told that a text of so many tokens was fed again."""

    def close(self) -> None:
        """Gives up what it holds."""
