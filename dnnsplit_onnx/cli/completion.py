"""What the shell offers when tab is pressed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def models(incomplete: str) -> Iterator[str]:
    """Models of the zoo, ONNX files, and folders on the way to them."""
    yield from (f"zoo:{name}" for name in _zoo_names() if f"zoo:{name}".startswith(incomplete))
    if not incomplete.startswith("zoo:"):
        yield from _files(incomplete, ".onnx")


def planners(incomplete: str) -> Iterator[str]:
    """Names of planners."""
    from dnnsplit_onnx.planning.planners import planner_names

    yield from (name for name in planner_names() if name.startswith(incomplete))


def zoo(incomplete: str) -> Iterator[str]:
    """Names of the zoo."""
    yield from (name for name in _zoo_names() if name.startswith(incomplete))


def devices(incomplete: str) -> Iterator[str]:
    """Names of devices that a tiers file can start from."""
    from dnnsplit_onnx.machines.presets import presets

    yield from (name for name in presets().devices if name.startswith(incomplete))


def links(incomplete: str) -> Iterator[str]:
    """Names of links that a tiers file can start from."""
    from dnnsplit_onnx.machines.presets import presets

    yield from (name for name in presets().connections if name.startswith(incomplete))


def schemas(incomplete: str) -> Iterator[str]:
    """Files that have a schema."""
    from dnnsplit_onnx.schemas import NAMES

    yield from (name for name in NAMES if name.startswith(incomplete))


def _files(incomplete: str, suffix: str) -> Iterator[str]:
    folder, slash, start = incomplete.rpartition("/")
    try:
        found = sorted(Path(folder + slash or ".").iterdir())
    except OSError:
        return
    for path in found:
        if path.name.startswith(start) and (path.is_dir() or path.suffix == suffix):
            yield f"{folder}{slash}{path.name}" + ("/" if path.is_dir() else "")


def _zoo_names() -> tuple[str, ...]:
    from dnnsplit_onnx.models.frameworks import FRAMEWORK_ENTRIES
    from dnnsplit_onnx.models.registry import ENTRIES

    return (*ENTRIES, *FRAMEWORK_ENTRIES)
