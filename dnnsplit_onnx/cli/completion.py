"""What the shell offers when tab is pressed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def models(incomplete: str) -> Iterator[str]:
    """Models of the zoo, ONNX files, and folders on the way to them."""
    from dnnsplit_onnx.models.registry import ENTRIES

    yield from (f"zoo:{name}" for name in ENTRIES if f"zoo:{name}".startswith(incomplete))
    if not incomplete.startswith("zoo:"):
        yield from _files(incomplete, ".onnx")


def planners(incomplete: str) -> Iterator[str]:
    """Names of planners."""
    from dnnsplit_onnx.planners import PLANNERS

    yield from (name for name in PLANNERS if name.startswith(incomplete))


def zoo(incomplete: str) -> Iterator[str]:
    """Names of the zoo."""
    from dnnsplit_onnx.models.registry import ENTRIES

    yield from (name for name in ENTRIES if name.startswith(incomplete))


def _files(incomplete: str, suffix: str) -> Iterator[str]:
    folder, slash, start = incomplete.rpartition("/")
    try:
        found = sorted(Path(folder + slash or ".").iterdir())
    except OSError:
        return
    for path in found:
        if path.name.startswith(start) and (path.is_dir() or path.suffix == suffix):
            yield f"{folder}{slash}{path.name}" + ("/" if path.is_dir() else "")
