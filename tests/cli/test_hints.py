"""Every hint in the source names commands and options that exist, and what it quotes can be pasted.

Hints are found where they are written, so that none is missed because no test provokes it. What
stands in for the user's own (MODEL, DIR, an f-string's value) is filled in; then the words go to the
real parser, which refuses unknown commands, options and forms. Those that are whole commands run in
a shell, beside a small model.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer

from dnnsplit_onnx.cli.app import app
from tests.cli.conftest import TIERS

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for folder in ("dnnsplit_onnx", "converters", "models") for path in (ROOT / folder).rglob("*.py")
)
#: What hints say for the user's own.
STANDS_FOR = {
    "MODEL": "model.onnx", "MODEL.onnx": "model.onnx", "DIR": "slices", "NAME": "edge", "FILE": "out.bin",
    "SITE": "site", "PORT": "9000", "T.toml": "tiers.toml", "X.npz": "x.npz", "HOST:PATH": "host:path",
    "URL": "http://host:8000", "N": "3", "...": "", "IMAGE_MODEL": "image.onnx", "OUT.onnx": "out.onnx",
}  # fmt: skip
#: Commands that hints quote and no shell runs here, and why.
NOT_RUN = {
    "convert saved": "reads a SavedModel of TensorFlow, which is no part of the default tests",
    "doctor": "fails by design where something installed does not work; has tests of its own",
    "export web DIR -o SITE": "asks npm for onnxruntime-web; test_export.py gives a stand-in",
    "export web DIR -o SITE --force": "as without --force",
    "profile --listen PORT": "serves until Ctrl-C",
}
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
    for line in re.findall(r"`([a-z][^`]*)`", text):
        if " " in line and HOLE not in line and (line.split()[0],) in commands():
            yield line


@cache
def whole_commands() -> dict[str, str]:
    """Each command that hints quote and a shell can run, and a place where one is written."""
    found = {line: where for text, where in hints() for line in quoted(text)}
    return {line: where for line, where in found.items() if line not in NOT_RUN}


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


@pytest.fixture
def beside(tiny: Path, tmp_path: Path) -> Path:
    """A folder with what hints take for granted: a model, its tiers, samples, and the program."""
    (tmp_path / "model.onnx").write_bytes(tiny.read_bytes())
    (tmp_path / "tiers.toml").write_text(TIERS)
    (reads,) = onnx.load(tiny).graph.input
    shape = [dim.dim_value or 1 for dim in reads.type.tensor_type.shape.dim]
    np.savez(tmp_path / "x.npz", **{reads.name: np.zeros((2, *shape), np.float32)})
    program = tmp_path / "bin" / "dnnsplit-onnx"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m dnnsplit_onnx "$@"\n')
    program.chmod(0o755)
    return tmp_path


def pasted(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a shell makes of a quoted command, the user's own filled in."""
    words = " ".join(STANDS_FOR.get(word, word) for word in line.split())
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", f"dnnsplit-onnx {words}"],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("line", whole_commands())
def test_a_whole_command_runs_in_a_shell(line: str, beside: Path) -> None:
    if "--codes" in line:
        pytest.importorskip("zstandard", reason="needs zstandard: pip install 'dnnsplit-onnx[packed]'")
    if line.startswith("tiers new"):
        (beside / "tiers.toml").unlink()  # it is for those who have none
    ended = pasted(line, beside)
    assert ended.returncode == 0, f"{whole_commands()[line]}: {ended.stderr}"


def test_a_command_that_fails_would_be_seen(beside: Path) -> None:
    assert pasted("inspect missing.onnx", beside).returncode == 2


def test_what_is_not_run_is_still_quoted() -> None:
    assert NOT_RUN.keys() <= {line for text, _ in hints() for line in quoted(text)}
    assert len(whole_commands()) > 6
