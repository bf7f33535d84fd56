"""The zoo: models people measure with, none of which needs a download.

    path = model_path("random_resnet50")

Three families:

- `light_*`: nine real topologies that the onnx package ships. All their weights are one
  number, which is fine for planning and next to nothing to verify with.
- `random_*`: the same topologies with seeded random weights; verifying them means something.
- `tiny_*`: small networks built from code.

Beside these stand the models that Keras and PyTorch build (`frameworks`), with what they
require; `converters.zoo` turns them into ONNX.
"""

from __future__ import annotations

import os
from pathlib import Path

from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.files import written_whole
from dnnsplit_onnx.models.registry import ENTRIES, Entry

__all__ = ["ENTRIES", "Entry", "cache_file", "get_entry", "model_path", "write_model"]

# Built models are kept under this number: raise it when a builder makes another model.
_REVISION = 1


def get_entry(name: str) -> Entry:
    """The entry of a name.

    Raises:
        ModelError: The zoo has no such model; the hint names the nearest.
    """
    entry = ENTRIES.get(name)
    if entry is None:
        from difflib import get_close_matches

        from dnnsplit_onnx.models.frameworks import FRAMEWORK_ENTRIES

        near = get_close_matches(name, (*ENTRIES, *FRAMEWORK_ENTRIES), n=1)
        hint = f"did you mean `{near[0]}`?" if near else "`dnnsplit-onnx zoo list` shows them all"
        raise ModelError(f"the zoo has no model `{name}`", hint=hint)
    return entry


def model_path(name: str) -> Path:
    """A file that holds a model of the zoo, built on first use.

    Built models are kept in the user's cache folder (`$XDG_CACHE_HOME` or `~/.cache`),
    which may be deleted at any time.

    Raises:
        ModelError: The zoo has no such model.
        MissingExtraError: What it is made from is not installed.
        OutputError: It cannot be written to the cache.
    """
    entry = get_entry(name)
    if entry.file is not None:
        return entry.file()
    path = cache_file(name)
    if not path.is_file():
        write_model(name, path, force=True)  # another process may be as far
    return path


def cache_file(name: str) -> Path:
    """Where a built model is kept."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "dnnsplit-onnx" / f"zoo-{_REVISION}" / f"{name}.onnx"


def write_model(name: str, path: str | Path, *, force: bool = False) -> None:
    """Writes a model of the zoo to a file.

    Args:
        name: Its name.
        path: Where to write it.
        force: Whether an existing file may be replaced.

    Raises:
        ModelError: The zoo has no such model.
        MissingExtraError: What it is made from is not installed.
        OutputError: The file exists already, or cannot be written.
    """
    entry = get_entry(name)
    with written_whole(Path(path), force=force) as file:
        if entry.file is not None:
            file.write(entry.file().read_bytes())
        elif entry.build is not None:
            file.write(entry.build().SerializeToString())
