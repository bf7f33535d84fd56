"""What commands print on stdout, and notes on stderr."""

from __future__ import annotations

import json
import shlex
import sys
from typing import Any


def print_json(data: dict[str, Any]) -> None:
    """Prints one JSON object, and nothing else, to stdout."""
    sys.stdout.write(json.dumps(data, indent=2, allow_nan=False) + "\n")


def next_command(*words: str) -> str:
    """The line that says what to run next."""
    return f"next: {shlex.join(['dnnsplit-onnx', *words])}"


def note(text: str) -> None:
    """Says something by the way, on stderr."""
    sys.stderr.write(f"note: {text}\n")
