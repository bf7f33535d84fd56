"""Where what a result looks like is found: `reporting` draws, the rooms below only ask.

A plan knows that a notebook may show it and not how. The root package, which knows every
room, names the drawings here; each is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES: dict[str, str] = {}


def register(name: str, home: str) -> None:
    """Names the module that holds a drawing, a function of the same name."""
    _HOMES[name] = home


class Tabled:
    """What has rows, `records()`: a notebook shows them as a table."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        html: str = draw("records_html", self)
        return html


def draw(name: str, *arguments: Any) -> Any:
    """What a registered drawing makes of its arguments."""
    return getattr(import_module(_HOMES[name]), name)(*arguments)
