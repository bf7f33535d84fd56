"""Numbers as people write them: three significant digits and a unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dnnsplit_onnx.planning.figures import Transfer

UNKNOWN = "?"

_METRIC = ("", "k", "M", "G", "T", "P")


def seconds(value: float | None) -> str:
    """A time: `812 µs`, `45.1 ms`, `2.31 s`, `3 min 20 s`."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if not math.isfinite(value):
        return "never"
    if value == 0:
        return "0 s"
    for limit, factor, unit in ((0.9995e-3, 1e6, "µs"), (0.9995, 1e3, "ms"), (119.5, 1.0, "s")):
        if abs(value) < limit:
            return f"{three_digits(value * factor)} {unit}"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{three_digits(value / 3600)} h"


def milliseconds(value: float | None) -> str:
    """A time given in milliseconds."""
    return seconds(None if value is None else value / 1e3)


def nbytes(value: int | None) -> str:
    """A size, in powers of 1000 as links count: `401 kB`, `102 MB`."""
    return UNKNOWN if value is None or value < 0 else _metric(value, "B")


def sent(link: Transfer, nodes: int) -> str:
    """What a link carries in a model of so many nodes: `401 kB + 4 kB back`, or nothing above the last."""
    if link.position == nodes and not link.down_nbytes:
        return "nothing"
    back = f" + {nbytes(link.down_nbytes)} back" if link.down_nbytes else ""
    return f"{nbytes(link.nbytes)}{back}"


def code(link: Transfer) -> str:
    """The code of what crosses a link, and how much smaller it makes it."""
    return link.written if link.ratio is None else f"{link.written}, {link.ratio:.2g} times smaller"


def flops(value: float | None, unit: str = "FLOP") -> str:
    """An amount of work: `8.22 GFLOP`."""
    return UNKNOWN if value is None else _metric(value, unit)


def usd(value: float | None) -> str:
    """An amount of money: `$0.0123`, `$1.81e-06`."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if value == 0:
        return "$0"
    return f"${value:,.2f}" if value >= 100 else f"${value:.3g}"


def per_million(value: float | None) -> str:
    """What a million requests cost, each at this price: `$1.81`, `$4,190`."""
    if value is None or math.isnan(value):
        return UNKNOWN
    million = value * 1e6
    return f"${million:,.0f}" if million >= 100 else f"${million:.3g}"


def per_second(value: float | None) -> str:
    """A rate: `22.1 /s`."""
    if value is None or math.isnan(value):
        return UNKNOWN
    return "unlimited" if math.isinf(value) else f"{_metric(value, '')}/s"


def joules(value: float | None) -> str:
    """An energy: `1.2 J`, `310 mJ`."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if 0 < value < 0.9995:
        return f"{three_digits(value * 1e3)} mJ"
    return f"{three_digits(value)} J"


def count(number: int, thing: str) -> str:
    """A number of things: `1 node`, `1,746 nodes`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def percent(part: float, whole: float) -> str:
    """A share: `43.7%`."""
    return f"{100 * part / whole:.1f}%" if whole else UNKNOWN


def times(factor: float) -> str:
    """A ratio: `1.93x`, `1,200x`."""
    return f"{three_digits(factor)}x" if factor < 1e6 else f"{factor:.1e}x"


def listed(names: Sequence[str], most: int = 3) -> str:
    """Names in backticks, the first few of many."""
    shown = ", ".join(f"`{clean(name)}`" for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def clean(text: str) -> str:
    """Text from a model made safe for a terminal: what does not print is written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def three_digits(value: float) -> str:
    """A number with three significant digits and no exponent."""
    if value == 0:
        return "0"
    decimals = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    decimals = 2 - math.floor(math.log10(abs(rounded)))  # 9.996 became 10.0
    return f"{rounded:,.{max(decimals, 0)}f}"


def _metric(value: float, unit: str) -> str:
    for power, prefix in enumerate(_METRIC):
        scaled = value / 1000**power
        if abs(scaled) < 999.5 or prefix == _METRIC[-1]:
            text = f"{scaled:.0f}" if power == 0 and float(value).is_integer() else three_digits(scaled)
            return f"{text} {prefix}{unit}".rstrip()
    raise AssertionError("the last prefix takes any number")
