"""Open dimensions of a model: how they are called, and the numbers that bindings give them.

An open dimension has up to three names, tried in this order:

1. `INPUT.AXIS`, which is always one dimension and no other;
2. the name that the file gives it, which stands for one number wherever it stands. Names such
   as `?` stand for anything, and so name nothing;
3. arithmetic on such names, as exporters write it: `past_sequence_length + sequence_length`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

Dim = int | str | None

# What exporters write where they know nothing of a dimension.
_NAMELESS = frozenset({"", "?", "-1", "None", "none", "unknown", "*"})
# A hyphen between letters is part of a name: `batch-size`.
_TOKEN = re.compile(r"\s*(?:(\d+)|([^\W\d][\w.]*(?:-[^\W\d][\w.]*)*)|(//|[-+*/()]))")
_LONGEST = 200
_LARGEST = 1 << 62

# A number, a name, or an operator with two operands.
Term = int | str | tuple[str, "Term", "Term"]


def is_name(dim: Dim) -> bool:
    """Whether a dimension has a name that stands for one number."""
    return isinstance(dim, str) and dim not in _NAMELESS


def axis_name(value: str, axis: int) -> str:
    """The name of one axis of one input."""
    return f"{value}.{axis}"


def size_of(dim: Dim, value: str, axis: int, bindings: Mapping[str, int]) -> int | None:
    """The number of a dimension under bindings, None if they leave it open."""
    if isinstance(dim, int):
        return dim
    own = bindings.get(axis_name(value, axis))
    return own if own is not None else size_of_name(dim, bindings)


def size_of_name(dim: str | None, bindings: Mapping[str, int]) -> int | None:
    """The number of what a dimension is called, None if bindings leave it open."""
    if dim is None:
        return None
    if dim in bindings:
        return bindings[dim]
    term = _parse(dim)
    return None if term is None else _number(term, bindings)


def open_names(dim: Dim, value: str, axis: int, bindings: Mapping[str, int]) -> tuple[str, ...]:
    """The names that must be bound for a dimension to have a number; none if it has one."""
    if size_of(dim, value, axis, bindings) is not None:
        return ()
    if not is_name(dim):
        return (axis_name(value, axis),)
    return tuple(name for name in names_in(str(dim)) if name not in bindings) or (str(dim),)


def names_in(dim: str) -> tuple[str, ...]:
    """The plain names that a dimension's name is made of: itself, unless it is arithmetic."""
    term = _parse(dim)
    return (dim,) if term is None else tuple(dict.fromkeys(_names(term)))


def _names(term: Term) -> Iterator[str]:
    if isinstance(term, str):
        yield term
    elif isinstance(term, tuple):
        yield from _names(term[1])
        yield from _names(term[2])


def _number(term: Term, bindings: Mapping[str, int]) -> int | None:
    """The value of arithmetic; None where a name is unbound, or the result is no size."""
    if isinstance(term, int):
        return term
    if isinstance(term, str):
        return bindings.get(term)
    operator, left, right = term[0], _number(term[1], bindings), _number(term[2], bindings)
    if left is None or right is None or (operator in ("/", "//") and right == 0):
        return None
    if operator == "*":
        found = left * right
    elif operator in ("/", "//"):
        found = left // right
    else:
        found = left + right if operator == "+" else left - right
    return found if abs(found) < _LARGEST else None


@lru_cache(maxsize=1024)
def _parse(text: str) -> Term | None:
    """The arithmetic that a name holds, None where it is a name and no more."""
    if len(text) > _LONGEST:
        return None
    tokens: list[str] = []
    at = 0
    while at < len(text.rstrip()):
        token = _TOKEN.match(text, at)
        if token is None:
            return None
        tokens.append(token[0].strip())
        at = token.end()
    if len(tokens) < 3 or not any(token[0].isalpha() or token[0] == "_" for token in tokens):
        return None
    try:
        term, left = _sum(tokens)
    except (IndexError, ValueError):
        return None
    return term if not left else None


def _sum(tokens: Sequence[str]) -> tuple[Term, Sequence[str]]:
    term, tokens = _product(tokens)
    while tokens and tokens[0] in "+-":
        right, rest = _product(tokens[1:])
        term, tokens = (tokens[0], term, right), rest
    return term, tokens


def _product(tokens: Sequence[str]) -> tuple[Term, Sequence[str]]:
    term, tokens = _atom(tokens)
    while tokens and tokens[0] in ("*", "/", "//"):
        right, rest = _atom(tokens[1:])
        term, tokens = (tokens[0], term, right), rest
    return term, tokens


def _atom(tokens: Sequence[str]) -> tuple[Term, Sequence[str]]:
    first = tokens[0]
    if first == "(":
        term, rest = _sum(tokens[1:])
        if rest[0] != ")":
            raise ValueError("an open parenthesis")
        return term, rest[1:]
    if first in ("+", "-", "*", "/", "//", ")"):
        raise ValueError("an operator without its operand")
    return int(first) if first.isdecimal() else first, tokens[1:]
