"""Pages of the documentation as programs: their blocks of code, run in the order they stand in.

A comment before a block says what is special about it:

- `<!-- not run -->`: it cannot be run here, such as an installation;
- `<!-- measured -->`: what a command prints has other numbers on another machine;
- `<!-- background -->`: it goes on until the page ends; an address that it prints takes the place
  of those in the blocks below.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parents[1] / "docs"

_BLOCK = re.compile(r"^(?:<!-- ([a-z ]+) -->\n\n?)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ADDRESS = re.compile(r"\b127\.0\.0\.1:\d+")
_NUMBER = re.compile(r"\d[\d.,]*(?:e[-+]?\d+)?(?: ?(?:ms|µs|ns|s)\b)?")
_LONGEST_S = 300


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code.

    Attributes:
        language: `sh`, `python`, `toml`, `text` for what the block before it printed, or another.
        text: What stands in it.
        mark: The comment before it, or "".
    """

    language: str
    text: str
    mark: str = ""


def blocks(page: str) -> list[Block]:
    """The blocks of a page's text."""
    return [Block(match[2], match[3], match[1] or "") for match in _BLOCK.finditer(page)]


def run_page(page: str, folder: Path) -> None:
    """Runs a page's shell and Python blocks in a folder, and holds outputs against what it shows.

    A block of TOML is written to the file that its first line names: `# tiers.toml`.

    Raises:
        AssertionError: A command fails, or prints something else.
    """
    printed, address, servers = "", "", []
    try:
        for block in blocks(page):
            text = _ADDRESS.sub(address, block.text) if address else block.text
            if block.mark == "not run":
                continue
            if block.mark == "background":
                servers.append(_start(text, folder))
                address = _address_of(servers[-1])
            elif block.language in ("sh", "python"):
                printed = _run(block.language, text, folder)
            elif block.language == "toml":
                (folder / text.splitlines()[0].removeprefix("# ")).write_text(text, encoding="utf-8")
            elif block.language == "text":
                missing = missing_lines(text, printed, measured=block.mark == "measured")
                assert not missing, f"not printed: {missing}\n{printed}"
    finally:
        for server in servers:
            server.send_signal(signal.SIGINT)  # Ctrl-C
            server.communicate(timeout=_LONGEST_S)


def missing_lines(shown: str, printed: str, *, measured: bool = False) -> list[str]:
    """The lines of a page that were not printed, in this order, whatever else was.

    Args:
        shown: What the page shows; `...` stands for anything.
        printed: What was printed.
        measured: Whether numbers may differ.
    """
    rest: Iterator[str] = iter(_plain(printed, measured))
    return [line for line in _plain(shown, measured) if not any(line in found for found in rest)]


def _plain(text: str, measured: bool) -> list[str]:
    lines = (" ".join(line.split()) for line in text.splitlines())
    return [_NUMBER.sub("#", line) if measured else line for line in lines if line not in ("", "...")]


def _environment() -> dict[str, str]:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return os.environ | {"PATH": path, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}


def _run(language: str, text: str, folder: Path) -> str:
    program = ["bash", "-euo", "pipefail", "-c"] if language == "sh" else [sys.executable, "-c"]
    done = subprocess.run(
        [*program, text],
        cwd=folder,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=_LONGEST_S,
        check=False,
    )
    assert done.returncode == 0, f"{text}\nended with {done.returncode}:\n{done.stdout}"
    return done.stdout


# A shell that starts the tests in the background has its children ignore Ctrl-C.
_HEARING_CTRL_C = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp("bash", ["bash", "-c", sys.argv[1]])
"""


def _start(text: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _HEARING_CTRL_C, f"exec {text}"],
        cwd=folder,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def _address_of(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    seen = []
    for line in server.stdout:
        if found := _ADDRESS.search(line):
            return found[0]
        seen.append(line)
    raise AssertionError(f"it ended and printed no address:\n{''.join(seen)}")


def load_script(name: str) -> ModuleType:
    """A script of scripts/lib as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS.parent / "scripts" / "lib" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
