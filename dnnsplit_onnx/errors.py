"""Everything that can go wrong, as exceptions a person can act on.

    DnnsplitError                 exit code
    ├── InputError                2   what was given cannot be read or used
    │   ├── ModelError                an ONNX file, or what it refers to
    │   ├── ShapeError                a size that is needed and not known
    │   ├── TopologyError             a tiers file
    │   ├── CutError                  a cut that is not one
    │   ├── PlanError                 a plan file, or a plan that does not fit the model
    │   ├── ProfileError              a measured profile, or one of another model
    │   └── ManifestError             a manifest, or a slice that does not match it
    ├── OutputError               2   the output exists already, or cannot be written
    ├── MissingExtraError         2   an optional library is not installed
    └── RequestError              1   valid, but it cannot be met
        ├── InfeasibleError           no plan satisfies the limits
        └── VerificationError         the chain is not the whole

Each error holds one line that names the culprit and, where there is one, a hint with
the fix. The command line prints them as ``error: ...`` and ``hint: ...``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class DnnsplitError(Exception):
    """The base of all errors that this package raises on purpose.

    Args:
        message: One line that names the culprit, lower case, no full stop.
        hint: One line with the fix, or None.
        context: Further lines (indented on the terminal), such as the file or node.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None, context: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context = context


class InputError(DnnsplitError):
    """What was given cannot be read or used."""


class ModelError(InputError):
    """An ONNX file is unreadable, invalid, or refers to data that is not there."""


class ShapeError(InputError):
    """A size is needed and cannot be known from the model."""


class TopologyError(InputError):
    """A tiers file is unreadable or says something impossible."""


class CutError(InputError):
    """A cut is not downward-closed, or names nothing in the graph."""


class PlanError(InputError):
    """A plan file is unreadable or does not fit the model or the topology."""


class ProfileError(InputError):
    """A measured profile is unreadable, or is of another model, provider or binding."""


class ManifestError(InputError):
    """A manifest is unreadable, or a slice does not match it."""


class OutputError(DnnsplitError):
    """The output exists already or cannot be written."""


class MissingExtraError(DnnsplitError):
    """An optional library is needed and not installed, or installed twice over."""


class RequestError(DnnsplitError):
    """The request is valid and cannot be met."""

    exit_code = 1


class InfeasibleError(RequestError):
    """No plan satisfies the limits."""


class VerificationError(RequestError):
    """The chain of slices does not compute what the whole model computes."""


def check_name(what: str, name: object, known: Iterable[str]) -> None:
    """Refuses a name that is not one of those there are.

    Args:
        what: What it should name, such as `planner`.
        name: What was given.
        known: The names there are.

    Raises:
        InputError: There is no such name; the hint shows near ones, then all.
    """
    names = tuple(known)
    if name not in names:
        raise InputError(f"no {what} is named `{name}`", hint=_did_you_mean(what, str(name), names))


def close_names(name: str, known: Iterable[str], *, n: int = 3, cutoff: float = 0.6) -> list[str]:
    """What a mistaken name may have meant, the likeliest first.

    Args:
        name: The mistaken name.
        known: The names there are.
        n: How many at most.
        cutoff: How alike they must be at least, from 0 to 1.
    """
    from difflib import get_close_matches  # only for mistakes: it takes time to load

    return get_close_matches(name, list(known), n, cutoff)


def _did_you_mean(what: str, name: str, names: tuple[str, ...]) -> str:
    listed = f"known {what}s: {', '.join(names)}"
    close = close_names(name.lower().replace("_", "-"), names, n=1)
    return f"did you mean `{close[0]}`? {listed}" if close else listed


def first_fault(error: ValidationError) -> str:
    """The first fault that pydantic found in a file: where it is, and what it is."""
    first = error.errors()[0]
    where, what = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    return f"`{where}`: {what[:1].lower()}{what[1:]}" if where else f"{what[:1].lower()}{what[1:]}"
