"""Faults that change nothing that can be observed, each with the reason (`equivalent.toml`)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.mutation.mutants import Mutant

FILE = Path(__file__).with_name("equivalent.toml")


@dataclass(frozen=True)
class Equivalent:
    """A fault that no test can notice.

    Attributes:
        module: Where it is put in.
        where: In which function.
        text: The line of the source.
        change: What becomes what, as `Mutant.change`.
        why: Why nothing follows from it.
    """

    module: str
    where: str
    text: str
    change: str
    why: str

    def covers(self, module: str, mutant: Mutant) -> bool:
        """Whether it is this fault."""
        mine = (self.module, self.where, self.text, self.change)
        return mine == (module, mutant.where, mutant.text, mutant.change)


@cache
def equivalents() -> tuple[Equivalent, ...]:
    """All that are explained."""
    return tuple(Equivalent(**entry) for entry in tomllib.loads(FILE.read_text())["equivalent"])


def explanation(module: str, mutant: Mutant) -> str | None:
    """Why a fault changes nothing, if somebody said so."""
    return next((known.why for known in equivalents() if known.covers(module, mutant)), None)
