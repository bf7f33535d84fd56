"""HTML and SVG elements as text that cannot be broken out of.

Text is escaped where it is put into an element, and only what an element is made of counts
as markup. So a node named `</script>` stays a name.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from dnnsplit_onnx.reporting.units import clean


class Markup(str):
    """Text that is markup already, made by `tag` or `raw`."""

    __slots__ = ()


Content = str | Iterable["Content"] | None

_VOID = frozenset({"meta", "br", "hr", "input", "link"})


def tag(name: str, *children: Content, **attributes: object) -> Markup:
    """An element.

    Args:
        name: Its name.
        children: Markup as it is, text to be escaped, lists of these, or None for nothing.
        attributes: By name, a trailing `_` cut off and any other `_` turned into `-`. True
            is an attribute without a value; None and False leave it out; numbers are
            written short.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{joined(children)}</{name}>")


def joined(children: Content) -> Markup:
    """Markup and text, one after the other."""
    if children is None:
        return Markup("")
    if isinstance(children, str):
        return children if isinstance(children, Markup) else text(children)
    return Markup("".join(joined(child) for child in children))


def text(given: str) -> Markup:
    """Text made safe: what does not print is written out, what is markup is escaped."""
    return Markup(escape(clean(given), quote=True))


def sentence(given: str) -> Markup:
    """A sentence in which names stand in backticks, with these as code."""
    parts = given.split("`")
    if len(parts) % 2 == 0:  # a name holds one
        return text(given)
    return joined([tag("code", part) if at % 2 else part for at, part in enumerate(parts)])


def lines(given: str) -> Markup:
    """Text of several lines made safe; its line ends stay."""
    return Markup("\n".join(text(line) for line in given.split("\n")))


def number(value: float) -> str:
    """A coordinate: at most one decimal, as short as can be."""
    short = f"{value:.1f}"
    return "0" if short == "-0.0" else short.removesuffix(".0")


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = key.removesuffix("_").replace("_", "-")
    if value is True:
        return f" {name}"
    shown = number(value) if isinstance(value, float) else str(value)
    return f' {name}="{text(shown)}"'
