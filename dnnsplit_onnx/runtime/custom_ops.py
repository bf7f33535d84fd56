"""Operators from libraries: what is registered here is there in every session of the process."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from dnnsplit_onnx.errors import InputError, MissingExtraError, ModelError
from dnnsplit_onnx.runtime.messages import clear_line

#: Named in place of a library's path, it stands for the library of that package.
EXTENSIONS = "onnxruntime-extensions"

_libraries: dict[str, str] = {}


def custom_ops(*libraries: str | os.PathLike[str]) -> None:
    """Makes the operators of libraries known wherever onnxruntime runs in this process.

    Args:
        libraries: Shared libraries that export `RegisterCustomOps`, or the name
            `onnxruntime-extensions`. One that is registered already is left as it is.

    Raises:
        InputError: There is no such file.
        MissingExtraError: onnxruntime-extensions is named and not installed.
    """
    for library in libraries:
        name = str(library)
        _libraries.setdefault(name, _path(name))


def _path(name: str) -> str:
    if name.replace("_", "-") == EXTENSIONS:
        try:
            module = import_module("onnxruntime_extensions")
        except ImportError as error:
            raise MissingExtraError(
                f"onnxruntime-extensions cannot be imported: {error}", hint=f"pip install {EXTENSIONS}"
            ) from None
        return str(module.get_library_path())
    if not Path(name).is_file():
        raise InputError(
            f"no such library of operators: `{name}`", hint=f"pass a shared library, or `{EXTENSIONS}`"
        )
    return str(Path(name).resolve())


def register_all(settings: Any) -> None:
    """Registers the libraries with the options of a session.

    Raises:
        ModelError: onnxruntime cannot load one, or it is none of operators.
    """
    for name, path in _libraries.items():
        try:
            settings.register_custom_ops_library(path)
        except Exception as error:
            raise ModelError(
                f"cannot register the operators of `{name}`: {clear_line(error)}",
                hint="it must be a shared library for this system that exports RegisterCustomOps",
            ) from error
