"""The whole zoo as ONNX files: what is ready or built from code, and what frameworks build."""

from __future__ import annotations

from pathlib import Path

from dnnsplit_onnx import models
from dnnsplit_onnx.models.registry import ENTRIES


def zoo_path(name: str) -> Path:
    """A file that holds a model of the zoo, made on first use and kept in the user's cache.

    Raises:
        ModelError: The zoo has no such model.
        MissingExtraError: What it is made from is not installed.
        OutputError: It cannot be written to the cache.
    """
    if not _is_framework_model(name):
        return models.model_path(name)
    path = models.cache_file(name)
    if not path.is_file():
        write_zoo_model(name, path, force=True)
    return path


def write_zoo_model(name: str, path: str | Path, *, force: bool = False) -> None:
    """Writes a model of the zoo to a file; one that a framework builds is checked against it.

    Raises:
        ModelError: The zoo has no such model.
        MissingExtraError: What it is made from is not installed.
        VerificationError: The converted model computes something else.
        OutputError: The file exists already, or cannot be written.
    """
    if not _is_framework_model(name):
        models.write_model(name, path, force=force)
        return
    from dnnsplit_onnx.converters import convert

    convert(f"zoo:{name}", path, force=force)


def _is_framework_model(name: str) -> bool:
    if name in ENTRIES:
        return False
    from dnnsplit_onnx.models.frameworks import FRAMEWORK_ENTRIES

    return name in FRAMEWORK_ENTRIES
