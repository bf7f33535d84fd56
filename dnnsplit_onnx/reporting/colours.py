"""One colour per plan: the same in every picture, on every page and in the terminal.

A plan's colour follows from its name alone, so that figures made on different days agree; only where
two plans of one picture would share a colour does one of them take the next that is free. Plans on a
single tier, which most pictures have, choose first. The dashboard's `chart.js` chooses in the same way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

#: Eight colours that people of any colour vision tell apart (Okabe and Ito, 2008), black last. Pages have
#: the same hues in shades that read on their ground, `--c0` to `--c7`.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#D55E00", "#000000")
#: The same on a terminal, whose ground may be light or dark: grey in place of black.
TERMINAL_COLOURS = (*COLOURS[:-1], "#808080")

_PRIME = 8191


def plan_key(cuts: Sequence[int], tiers: Sequence[str]) -> str:
    """What a plan is called for its colour: `all on edge`, or its cuts as `2,4`.

    Args:
        cuts: The position that each link crosses.
        tiers: The names of the tiers that have work.
    """
    return f"all on {tiers[0]}" if len(tiers) == 1 else ",".join(map(str, cuts))


def plan_colours(keys: Iterable[str]) -> dict[str, tuple[int, int]]:
    """The colours of the plans of one picture.

    Args:
        keys: What `plan_key` calls them, in any order.

    Returns:
        By key, the index of its colour, and how many plans of the picture had that colour before.
    """
    used: Counter[int] = Counter()
    found: dict[str, tuple[int, int]] = {}
    for key in sorted(set(keys), key=lambda key: (not key.startswith("all on "), key)):
        first = 0
        for letter in key:
            first = (first * 31 + ord(letter)) % _PRIME
        order = [(first + step) % len(COLOURS) for step in range(len(COLOURS))]
        colour = min(order, key=lambda at: used[at])  # the first of those that are used least
        found[key] = colour, used[colour]
        used[colour] += 1
    return found
