"""What went wrong inside a framework, in one line."""

from __future__ import annotations

_LONGEST = 300


def reason(error: BaseException) -> str:
    """The class of an error and the first line it says.

    Frameworks write paragraphs; all of it stays in the traceback.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:_LONGEST]}" if lines else type(error).__name__


def innermost(error: BaseException) -> str:
    """The same for the error that caused it all."""
    while error.__cause__ is not None:
        error = error.__cause__
    return reason(error)
