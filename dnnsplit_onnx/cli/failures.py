"""What a person sees when something goes wrong, and the exit code that scripts see.

    error: cannot size value `images`: dimension `batch` is symbolic
      in resnet50.onnx, used by node `conv1` (Conv)
    hint: pass --bind batch=1

Always this form, on stderr: for the package's own errors, for wrong usage, and for bugs.
"""

from __future__ import annotations

import os
import re
import sys
import traceback

import typer

from dnnsplit_onnx.errors import DnnsplitError, close_names

# A name in a model may be as long as the model.
_LONGEST_LINE = 4000

# What people call a choice of `--objective` or `--provider` that has another name.
_OTHER_WORDS = {
    "speed": "latency",
    "time": "latency",
    "price": "cost",
    "money": "cost",
    "prefill": "ttft",
    "decode": "tpot",
    "power": "energy",
    "gpu": "cuda",
}

BUG = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
BROKEN_PIPE = 141  # 128 + SIGPIPE


def report(error: BaseException, *, debug: bool) -> int:
    """Says on stderr what went wrong.

    Args:
        error: What was raised.
        debug: Whether to show the traceback too.

    Returns:
        The exit code.
    """
    if isinstance(error, BrokenPipeError):
        silence_stdout()
        return BROKEN_PIPE
    if debug:
        traceback.print_exception(error)
    if isinstance(error, DnnsplitError):
        complain(error.message, context=error.context, hint=error.hint)
        return error.exit_code
    if isinstance(error, typer.TyperException):
        complain(*_usage(error))
        return error.exit_code
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        complain("interrupted")
        return INTERRUPTED
    if isinstance(error, MemoryError):
        complain("out of memory", hint="close other programs, or use a machine with more")
        return 1
    where = "" if debug else "run again with --debug, and "
    complain(
        f"internal error: {type(error).__name__}: {error}",
        hint=f"this is a bug: {where}report it with the traceback",
    )
    return BUG


def complain(message: str, hint: str | None = None, context: str | None = None) -> None:
    """Writes an error to stderr: one line, its context indented, and the hint."""
    lines = [f"{_paint('error:', '1;31')} {one_line(message)}"]
    lines += [f"  {one_line(line)}" for line in (context or "").splitlines()]
    if hint:
        lines.append(f"{_paint('hint:', '1;36')} {one_line(hint)}")
    _write(lines)


def one_line(text: str) -> str:
    """Text made safe for a terminal: names in a model may hold line breaks or escapes."""
    if len(text) > _LONGEST_LINE:
        text = f"{text[:_LONGEST_LINE]}..."
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)


def silence_stdout() -> None:
    """Points stdout at nothing, so that Python does not stumble over it when it exits."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return  # not a real file: nothing to flush at exit


def _usage(error: typer.TyperException) -> tuple[str, str | None]:
    """A usage error of typer as a message and a hint."""
    message = error.format_message().replace("'", "`").strip()
    context = getattr(error, "ctx", None)
    hint = f"see `{context.command_path} --help`" if context is not None else None
    message = message.replace(": Value error, ", ": ")
    if near := getattr(error, "possibilities", None):
        message = message.partition(" (Possible options")[0]
        nearest = close_names(getattr(error, "option_name", ""), near, n=1, cutoff=0.0)
        hint = f"did you mean `{nearest[0]}`?"
    elif ". Did you mean " in message:
        message, _, suggestion = message.partition(". Did you mean ")
        hint = f"did you mean {suggestion}"
    elif choice := re.fullmatch(r"(.*: `(.*)` is not one of) (.*?)\.?", message):
        known = re.findall(r"`([^`]*)`", choice[3])
        wanted = _OTHER_WORDS.get(choice[2].lower(), choice[2].lower())
        if nearest := close_names(wanted, known, n=1):
            hint = f"did you mean `{nearest[0]}`?"
    message = message.rstrip(".")
    return message[:1].lower() + message[1:], hint


def _paint(text: str, code: str) -> str:
    if os.environ.get("NO_COLOR") or not sys.stderr.isatty():
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def _write(lines: list[str]) -> None:
    text = "\n".join(lines) + "\n"
    try:
        sys.stderr.write(text)
    except UnicodeEncodeError:
        sys.stderr.write(text.encode("ascii", "backslashreplace").decode())
    except OSError:
        return  # nobody is listening
