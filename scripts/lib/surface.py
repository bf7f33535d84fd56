"""Writes tests/surface/: the public names with their signatures, and every command's options.

    .venv/bin/python scripts/lib/surface.py

Both are what people script against. A test holds the program against these files, so that
nothing of it changes unless somebody runs this and the change is seen in review.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import dnnsplit_onnx
from dnnsplit_onnx.cli.app import PROGRAM, app

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "surface"
HIDDEN = {"help", "install_completion", "show_completion"}


def api() -> str:
    """The public names: functions, and classes with their fields, properties and methods."""
    lines: list[str] = []
    for name in sorted(dnnsplit_onnx.__all__):
        thing = getattr(dnnsplit_onnx, name)
        if inspect.isclass(thing):
            lines += [
                f"class {name}({', '.join(base.__name__ for base in thing.__bases__)})",
                *members(thing),
            ]
        elif callable(thing):
            lines.append(f"def {name}{inspect.signature(thing)}")
        else:
            lines.append(f"{name}: {type(thing).__name__}")
    return "\n".join(lines) + "\n"


def members(thing: type) -> Iterator[str]:
    """What a class gives its users: what it defines itself, private names left out."""
    for name, kind in fields(thing):
        yield f"    {name}: {kind}"
    known = {name for name, _ in fields(thing)}
    for name, member in sorted(vars(thing).items()):
        if name.startswith("_") or name in known:
            continue
        if isinstance(member, property) or type(member).__name__ == "cached_property":
            yield f"    {name} (property)"
        elif isinstance(member, classmethod | staticmethod):
            yield f"    {type(member).__name__} {name}{inspect.signature(member.__func__)}"
        elif inspect.isfunction(member):
            yield f"    def {name}{inspect.signature(member)}"


def fields(thing: type) -> list[tuple[str, str]]:
    """Fields and their types, of a dataclass or a pydantic model, in order."""
    if dataclasses.is_dataclass(thing):
        return [(each.name, f"{each.type}{default(each)}") for each in dataclasses.fields(thing)]
    hints = inspect.get_annotations(thing)
    models = getattr(thing, "model_fields", {})
    return [
        (name, f"{hints.get(name)}{'' if field.is_required() else ' = ...'}")
        for name, field in models.items()
    ]


def default(field: dataclasses.Field[Any]) -> str:
    has = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    return " = ..." if has else ""


def cli() -> str:
    """Every command with its arguments and options: names, type, default."""
    lines: list[str] = []
    for words, command in commands((PROGRAM,), typer.main.get_command(app)):
        lines.append(" ".join(words))
        lines += [f"    {parameter(each)}" for each in command.params if each.name not in HIDDEN]
    return "\n".join(lines) + "\n"


def commands(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and all below it."""
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands((*words, name), inner)


def parameter(each: Any) -> str:
    """One argument or option in a line."""
    names = "/".join((*each.opts, *each.secondary_opts))
    if each.param_type_name == "argument":
        names = str(each.metavar or each.name)
    choices, kind = each.type_descriptor.choices, each.type_descriptor.annotation
    if choices:
        kind = "|".join(map(str, choices))
    else:
        kind = kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)
    words = [f"{names} <{kind}>"]
    words += ["required"] if each.required else []
    words += ["repeatable"] if getattr(each, "multiple", False) or each.nargs != 1 else []
    if not each.required and each.default not in (None, False, (), []):
        words.append(f"default {each.default}")
    return ", ".join(words)


SURFACES = {"api.txt": api, "cli.txt": cli}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in SURFACES.items():
        (FOLDER / file).write_text(text(), encoding="utf-8")
