"""A decoder over servers: each text a conversation, begun again where a tier has lost it."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np

from dnnsplit_onnx.running.generating.decoder import Signature, StatesLostError
from dnnsplit_onnx.serving.edge.conversation import Conversation
from dnnsplit_onnx.serving.edge.edge import Answer, Edge
from dnnsplit_onnx.serving.wire.errors import BusyError, LinkError, ServingError
from dnnsplit_onnx.serving.wire.stream import Deadline

_LOST = 409
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.02, 0.5


class ServedDecoder:
    """The tiers of a chain as one decoder; see `Decoder`.

    Args:
        edge: The client of the chain; it is closed with this.
        patience_s: How long a step may wait for a tier that is away, or has no room.
    """

    def __init__(self, edge: Edge, patience_s: float = 30.0) -> None:
        self.edge, self.patience_s = edge, patience_s
        self._signature = Signature.of(edge.routes.manifest)

    @property
    def signature(self) -> Signature:
        """What it reads and makes."""
        return self._signature

    def talk(self, positions: int | None = None) -> ServedTalk:
        """Begins a text; see `Decoder.talk`."""
        return ServedTalk(self, Conversation(self.edge, positions=positions))

    def replayed(self, tokens: int) -> None:
        """Counts a text that was fed again."""
        self.edge.metrics.add("replays_total")
        self.edge.metrics.add("replayed_tokens_total", tokens)

    def close(self) -> None:
        """Closes the client."""
        self.edge.close()


class ServedTalk:
    """A text over servers; see `Talk`."""

    def __init__(self, decoder: ServedDecoder, conversation: Conversation) -> None:
        self._decoder, self._conversation = decoder, conversation

    def step(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Goes on by some tokens, waiting for a tier that is away.

        Raises:
            StatesLostError: A tier has lost what came before, or does not come back: begun again, the
                text takes the best cuts that remain.
            ServingError: It cannot be met in time.
        """
        deadline, wait_s = Deadline(self._decoder.patience_s), _FIRST_WAIT_S
        while True:
            try:
                answer = self._conversation.infer(inputs)
            except (LinkError, BusyError) as error:
                if deadline.remaining_s <= wait_s:
                    if not self._conversation.steps or isinstance(error, BusyError):
                        raise
                    raise StatesLostError(error.message) from error
                threading.Event().wait(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            except ServingError as error:
                if error.status != _LOST or not self._conversation.steps:
                    raise
                raise StatesLostError(error.message) from error
            else:
                return _present(answer)

    def drop(self, count: int) -> None:
        """Forgets the last positions."""
        self._conversation.drop(count)

    def close(self) -> None:
        """Has the tiers forget the states."""
        self._conversation.close()


def _present(answer: Answer) -> dict[str, np.ndarray]:
    return {name: array for name, array in answer.outputs.items() if array is not None}
