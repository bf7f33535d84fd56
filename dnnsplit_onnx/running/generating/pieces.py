"""Words as they come: tokens turned into text piece by piece, until a text that ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Words:
    """The text of tokens that come one by one.

    What may become a text that ends the answer is held back until that is known, and so are
    the bytes of a letter that is not whole.

    Args:
        decode: The text of tokens.
        stop: Texts that end the answer.

    Attributes:
        is_ended: Whether one of them came.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode, self._stop = decode, tuple(stop)
        self._ids: list[int] = []
        self._from = self._read = 0  # ids before these are said, and needed as context
        self._held = ""
        self.is_ended = False

    def add(self, token: int) -> str:
        """The text that is certain now."""
        self._ids.append(token)
        # A token's text depends on its neighbours: the text of a few is compared with and without it.
        before = self._decode(self._ids[self._from : self._read])
        now = self._decode(self._ids[self._from :])
        if not now.endswith(_UNFINISHED) and len(now) > len(before):
            self._from, self._read = self._read, len(self._ids)
            self._held += now[len(before) :]
        return self._certain()

    def end(self) -> str:
        """The rest, held back or not whole."""
        if self.is_ended:
            return ""
        before = self._decode(self._ids[self._from : self._read])
        self._held += self._decode(self._ids[self._from :])[len(before) :]
        said = self._certain()
        rest, self._held = self._held, ""
        return said if self.is_ended else said + rest

    def _certain(self) -> str:
        places = [at for text in self._stop if (at := self._held.find(text)) >= 0]
        if places:
            said, self._held, self.is_ended = self._held[: min(places)], "", True
            return said
        keep = max((_overlap(self._held, text) for text in self._stop), default=0)
        cut = len(self._held) - keep
        said, self._held = self._held[:cut], self._held[cut:]
        return said


def _overlap(text: str, stop: str) -> int:
    """How many letters at the end of a text begin another."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
