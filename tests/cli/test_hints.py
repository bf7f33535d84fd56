"""Every hint in the source names commands and options that exist, and what it quotes can be pasted.

Hints are found where they are written, so that none is missed because no test provokes it. What
stands in for the user's own (MODEL, DIR, an f-string's value) is filled in; then the words go to the
real parser, which refuses unknown commands, options and forms.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from dnnsplit_onnx.cli.app import app

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for folder in ("dnnsplit_onnx", "converters", "models") for path in (ROOT / folder).rglob("*.py")
)
#: What hints say for the user's own.
STANDS_FOR = {
    "MODEL": "model.onnx", "MODEL.onnx": "model.onnx", "DIR": "slices", "NAME": "edge", "FILE": "out.bin",
    "SITE": "site", "PORT": "9000", "T.toml": "tiers.toml", "X.npz": "x.npz", "HOST:PATH": "host:path",
    "URL": "http://host:8000", "N": "3", "...": "",
}  # fmt: skip
HOLE = "\0"


def texts(node: ast.AST) -> Iterator[str]:
    """The strings that an expression can be; each value put into one is a hole."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(p.value if isinstance(p, ast.Constant) else HOLE for p in parts)
        case ast.IfExp(body=body, orelse=other):
            yield from texts(body)
            yield from texts(other)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            for one in list(texts(left)) or [HOLE]:
                for two in list(texts(right)) or [HOLE]:
                    yield one + two


@cache
def hints() -> list[tuple[str, str]]:
    """Each hint, and where it is written."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                where = f"{path.relative_to(ROOT)}:{node.value.lineno}"
                found += [(text, where) for text in texts(node.value)]
    return found


@cache
def commands() -> dict[tuple[str, ...], Any]:
    """Every command by its words."""

    def within(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
        yield words, command
        for name in getattr(command, "commands", {}):
            yield from within((*words, name), command.commands[name])

    return dict(within((), typer.main.get_command(app)))


def options_of(command: Any) -> set[str]:
    return {name for param in command.params for name in (*param.opts, *param.secondary_opts)}


def quoted(text: str) -> Iterator[str]:
    """The commands in a hint: in backticks, or from the program's name to the end of the clause."""
    for line in re.findall(r"dnnsplit-onnx( [^`;]*)", text.replace(HOLE, "HOLE")):
        clause = re.split(r"[,:] |\. | > |\)| and | or |\|| \(", line)[0].strip()
        yield clause.rstrip(".,")


@pytest.mark.parametrize(("text", "where"), hints(), ids=[where for _, where in hints()])
def test_what_a_hint_says_can_be_pasted(text: str, where: str) -> None:
    known = {name for command in commands().values() for name in options_of(command)} | {"--help"}
    foreign = r"pip|npm|docker|apt|ulimit|kubectl|--use_xnnpack|--no-deps|--force-reinstall"
    if not re.search(foreign, text):
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text):
            assert option in known, f"no command has {option}"
    for line in quoted(text):
        words = [STANDS_FOR.get(word, word) for word in shlex.split(line)]
        path: tuple[str, ...] = ()
        while words and (*path, words[0]) in commands():
            path = (*path, words.pop(0))
        assert path, f"no command `{line}`"
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= options_of(commands()[path]) | {"--help"}, line


def test_the_check_can_fail() -> None:
    with pytest.raises(AssertionError, match="no command has --colour"):
        test_what_a_hint_says_can_be_pasted("pass --colour", "here")
    with pytest.raises(AssertionError, match="no command `peel"):
        test_what_a_hint_says_can_be_pasted("peel it: dnnsplit-onnx peel MODEL", "here")
    with pytest.raises(AssertionError, match="--url"):
        test_what_a_hint_says_can_be_pasted("dnnsplit-onnx plan MODEL --url x", "here")


def test_there_are_hints() -> None:
    assert len(hints()) > 200
    assert sum(bool(list(quoted(text))) for text, _ in hints()) > 10
