"""One text: the tokens that a decoder has seen, and its states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType

import numpy as np

from dnnsplit_onnx.running.caches import cannot_drop
from dnnsplit_onnx.running.generating.decoder import Decoder, StatesLostError
from dnnsplit_onnx.running.generating.roles import Roles
from dnnsplit_onnx.running.generating.scores import Candidates, read_scores

_MOST_REPLAYS = 8


class Text:
    """Feeds tokens to a decoder, and the whole text again where its states were lost.

    A model without states is fed the whole text in each step.

    Args:
        decoder: What makes logits.
        roles: Of its inputs.
        positions: How long the text may become.
        attended: What an encoder gave for it, by the names of the decoder's inputs.

    Attributes:
        fed: The tokens that the states are of.
    """

    def __init__(
        self,
        decoder: Decoder,
        roles: Roles,
        positions: int | None = None,
        attended: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self._decoder, self._roles, self._positions = decoder, roles, positions
        kept = {record.input for record in decoder.signature.records}
        self._attended = dict(attended or {})
        self._each = {name: array for name, array in self._attended.items() if name not in kept}
        self._talk = decoder.talk(positions)
        self._first = 0  # how many tokens the first pass had
        self.fed: list[int] = []

    def feed(self, ids: Sequence[int], wanted: int = 1) -> list[Candidates]:
        """Goes on by some tokens.

        Args:
            ids: The tokens, one at least.
            wanted: For how many of the last of them to return what may follow.

        Raises:
            DnnsplitError: The model refuses them, or cannot be reached.
        """
        for _ in range(_MOST_REPLAYS):
            try:
                scores = self._step(ids, wanted)
                break
            except StatesLostError:
                self._begin_again()
        else:
            scores = self._step(ids, wanted)
        self._first = self._first or len(ids)
        self.fed += ids
        return scores

    def follow(self, ids: Sequence[int]) -> Candidates:
        """What may follow a text, fed as far as it differs from what was fed."""
        pairs = enumerate(zip(self.fed, ids, strict=False))
        shorter = min(len(self.fed), len(ids) - 1)  # logits come of what is fed
        same = min(next((at for at, (old, new) in pairs if old != new), shorter), shorter)
        self.drop(len(self.fed) - same)
        return self.feed(ids[same:])[-1]

    def drop(self, count: int) -> None:
        """Forgets the last tokens: caches are cut back, or the rest is fed again."""
        if not count:
            return
        left = self.fed[: len(self.fed) - count]
        if not self._decoder.signature.records:
            self.fed = left
        elif left and cannot_drop(self._decoder.signature.records) is None:
            self._talk.drop(count)
            self.fed = left
        else:
            self.close()
            self._talk, self.fed, first = self._decoder.talk(self._positions), [], self._first
            self._first = 0
            for part in (left[:first], left[first:]):
                if part:
                    self.feed(part)

    def close(self) -> None:
        """Gives the states up."""
        self._talk.close()

    def __enter__(self) -> Text:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin_again(self) -> None:
        """Feeds what was fed, in two passes: the first as it was, so that its caches are the same.

        Raises:
            StatesLostError: They were lost once more; the next try begins anew as well.
        """
        self._talk.close()
        self._talk = self._decoder.talk(self._positions)
        fed, self.fed = self.fed, []
        try:
            for part in (fed[: self._first], fed[self._first :]):
                if part:
                    self._step(part, 1)
                    self.fed += part
        except StatesLostError:
            pass  # the next step says so again
        self.fed = fed
        if fed:
            self._decoder.replayed(len(fed))

    def _step(self, ids: Sequence[int], wanted: int) -> list[Candidates]:
        signature = self._decoder.signature
        past = len(self.fed)
        if not signature.records:
            ids, past = [*self.fed, *ids], 0
        most = self._roles.longest or len(ids)
        scores: list[Candidates] = []
        for start in range(0, len(ids), most):
            part = np.array(ids[start : start + most], np.int64)
            asked = min(part.size, wanted)
            before = past + start
            given = self._each if before else self._attended  # the tiers keep what stays for the text
            outputs = self._talk.step(self._roles.fill(part, before, asked) | given)
            scores += read_scores(signature, self._roles.logits, outputs, asked)
        return scores[-wanted:]
