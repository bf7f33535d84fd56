"""The choice of the next token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.running.generating.scores import Candidates


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How text is continued, and where it ends.

    Attributes:
        max_new: Most tokens to make.
        temperature: What logits are divided by before a token is drawn; 0 takes the likeliest.
        top_p: Draws among the likeliest tokens that have this much of the probability together.
        seed: Of the draws; None differs from call to call.
        stop: Texts that end it; they are left out.
        stop_tokens: Tokens that end it; None for those that the model's folder names.
        start: Tokens that an answer after an encoder begins with; None for those of the model's folder.

    Raises:
        InputError: A number is out of its range.
    """

    max_new: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_tokens: frozenset[int] | None = None
    start: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.max_new < 1:
            raise InputError(f"{self.max_new} new tokens are none", hint="ask for 1 or more")
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"temperature {self.temperature} is below 0, or no number")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top-p {self.top_p} is not above 0 and at most 1")
        if any(not text for text in self.stop):
            raise InputError("a text that ends the answer is empty")

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0


def choose(candidates: Candidates, sampling: Sampling, rng: np.random.Generator) -> int:
    """The next token.

    Args:
        candidates: Those there are.
        sampling: How to choose.
        rng: Draws.

    Raises:
        InputError: A token is to be drawn, and only the likeliest is known.
    """
    if sampling.is_greedy:
        return candidates.best
    if candidates.logits is None:
        raise InputError(
            "the slices return the likeliest token alone, and none can be drawn",
            hint="leave out the temperature, or split with `--head topk:50`",
        )
    scaled = candidates.logits.astype(np.float64) / sampling.temperature
    order = np.argsort(-scaled, kind="stable")
    shares = np.exp(scaled[order] - scaled[order[0]])
    shares /= shares.sum()
    sums = np.cumsum(shares)
    # The least number of tokens that have so much together, and always one.
    count = min(int(np.searchsorted(sums, sampling.top_p)) + 1, len(order))
    drawn = int(np.searchsorted(sums[:count], rng.random() * sums[count - 1], side="right"))
    return candidates.token(int(order[min(drawn, count - 1)]))
