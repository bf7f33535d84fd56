"""Operators from libraries: what is registered here is there in every session of the process.

A library is a program. One that a person names, on the command line or in a call, is loaded; one
that a tiers file or a manifest names is loaded only if a person allowed it here: by its name, or
by `tier`, which allows all that tiers name. The package onnxruntime-extensions, which somebody
installed, needs no leave.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any

from dnnsplit_onnx.errors import InputError, MissingExtraError, ModelError
from dnnsplit_onnx.graph.kinds import EXTENSIONS, is_extensions
from dnnsplit_onnx.runtime.messages import clear_line
from dnnsplit_onnx.runtime.options import TIER

# Names as they were given, and the files; `TIER` has none.
_libraries: dict[str, str] = {}


def custom_ops(*libraries: str | os.PathLike[str]) -> None:
    """Makes the operators of libraries known wherever onnxruntime runs in this process.

    Args:
        libraries: Shared libraries that export `RegisterCustomOps`, or the name
            `onnxruntime-extensions`. One that is registered already is left as it is. `tier`
            allows those that tiers name in a tiers file, for their own slices.

    Raises:
        InputError: There is no such file.
        MissingExtraError: onnxruntime-extensions is named and not installed.
    """
    for library in libraries:
        name = str(library)
        _libraries.setdefault(name, "" if name == TIER else _path(name))


def registered() -> tuple[str, ...]:
    """What `custom_ops` was given, as files, for the options of a session in another process."""
    return tuple(path or name for name, path in _libraries.items())


def needed(names: Sequence[str], tier: str, given: Sequence[str] = ()) -> tuple[str, ...]:
    """The files on this machine of the libraries that a tier names.

    A library of the same file name that a person gave stands for it: machines keep them in places
    of their own.

    Args:
        names: Paths, or `onnxruntime-extensions`.
        tier: The tier's name, for errors.
        given: What a person gave besides, as `registered` has it.

    Raises:
        InputError: There is no such file, or nobody allowed it.
        MissingExtraError: onnxruntime-extensions is named and not installed.
    """
    return tuple(_needed(name, tier, {*registered(), *given}) for name in names)


def _needed(name: str, tier: str, given: set[str]) -> str:
    if is_extensions(name):
        return _path(name)
    same = [path for path in given if path == name or PurePath(path).name == PurePath(name).name]
    if same:
        return same[0]
    if TIER not in given:
        raise InputError(
            f"tier `{tier}` names the library of operators `{name}`, and nobody allowed it to run here",
            hint=f"pass --custom-ops {shlex.quote(name)}, or --custom-ops {TIER} for all that tiers name",
        )
    return _path(name)


def _path(name: str) -> str:
    if is_extensions(name):
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


def register_all(settings: Any, more: Sequence[str] = ()) -> None:
    """Registers libraries with the options of a session: those of the process, and more.

    Raises:
        ModelError: onnxruntime cannot load one, or it is none of operators.
    """
    files = {path: name for name, path in _libraries.items() if path}
    for path in more:
        if path != TIER:
            files.setdefault(path, path)
    for path, name in files.items():
        try:
            settings.register_custom_ops_library(path)
        except Exception as error:
            raise ModelError(
                f"cannot register the operators of `{name}`: {clear_line(error)}",
                hint="it must be a shared library for this system that exports RegisterCustomOps",
            ) from error
