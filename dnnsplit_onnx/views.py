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


def draw(name: str, *arguments: Any) -> Any:
    """What a registered drawing makes of its arguments."""
    return getattr(import_module(_HOMES[name]), name)(*arguments)
