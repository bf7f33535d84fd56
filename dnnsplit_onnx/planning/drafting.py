"""When it pays to draft: speculative decoding over a cut, by its round trip.

A small model on the lowest tier drafts K tokens, one pass of the whole checks them together, and as
many are kept as agree, and one more. If each is accepted with probability a, independent of the
others, a pass yields (Leviathan, Kalman and Matias, ICML 2023, eq. 1)

    E = 1 + a + ... + a^K = (1 - a^(K + 1)) / (1 - a) tokens

in the seconds of K drafts and of the pass. A step without drafts yields one token in the seconds of
a step. Both pay the links' round trip once, so that drafting gains the more, the longer it is.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Drafting:
    """What drafting takes and yields.

    Attributes:
        step_s: Seconds of a step that makes one token.
        check_s: Seconds of a pass that checks the drafts.
        draft_s: Seconds of one draft.
        drafts: How many are made a pass, K.
        accepts: The probability that a draft is accepted, a.
    """

    step_s: float
    check_s: float
    draft_s: float
    drafts: int
    accepts: float

    @property
    def tokens(self) -> float:
        """Tokens that a pass yields on average."""
        return sum(self.accepts**kept for kept in range(self.drafts + 1))

    @property
    def token_s(self) -> float:
        """Seconds of a token, drafts included."""
        return (self.drafts * self.draft_s + self.check_s) / self.tokens

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second."""
        return 1 / self.token_s

    @property
    def gain(self) -> float:
        """How many times as fast it is as one token a step."""
        return self.step_s / self.token_s

    def pays_from(self, round_trip_s: float) -> float | None:
        """The round trip from which drafting pays; None if it never does.

        Args:
            round_trip_s: What of a step, and of a check, is the links' delay now.
        """
        if self.tokens <= 1:
            return None
        step, check = self.step_s - round_trip_s, self.check_s - round_trip_s
        return max(0.0, (self.drafts * self.draft_s + check - self.tokens * step) / (self.tokens - 1))
