"""The optional parts of this package: which are installed, and the line that installs each."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from dnnsplit_onnx.runtime.provider import installed_runtimes

_PACKAGE = "dnnsplit-onnx"
_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*(?:>=\s*(?P<least>[0-9.]+))?.*;.*"
    r"\bextra\s*==\s*['\"](?P<extra>[^'\"]+)['\"]"
)
_SECONDS = 180.0
_PURPOSES = {
    "cpu": "running models on the CPU",
    "gpu": "running models on NVIDIA GPUs",
    "keras": "converting Keras models, without TensorFlow",
    "keras-tf": "converting Keras models and SavedModels by TensorFlow",
    "pytorch": "converting PyTorch models",
    "generate": "words of `generate`: tokenizers and chat templates",
    "zoo": "models of the zoo that come from Hugging Face's code",
    "ddpqn": "the planner `ddpqn`",
    "plot": "--plot",
}
# Two distributions of one module.
_MODULES = {"onnxruntime-gpu": "onnxruntime", "nvidia-ml-py": "pynvml"}


@dataclass(frozen=True, slots=True)
class Extra:
    """An optional part.

    Attributes:
        name: As pip takes it.
        purpose: What it is for, None if there is nothing to say.
        missing: What it needs that is not there, or too old.
        instead_of: Distributions that must go first: two of onnxruntime break each other.
        error: Why what is there cannot be imported; None if it can, or nobody tried.
    """

    name: str
    purpose: str | None
    missing: tuple[str, ...] = ()
    instead_of: tuple[str, ...] = ()
    error: str | None = None

    @property
    def installed(self) -> bool:
        """Whether everything it needs is there."""
        return not self.missing

    @property
    def install(self) -> str:
        """The line that installs it."""
        line = f"pip install '{_PACKAGE}[{self.name}]'"
        return f"pip uninstall -y {' '.join(self.instead_of)} && {line}" if self.instead_of else line

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {**asdict(self), "installed": self.installed, "install": self.install}


def find_extras(*, deep: bool = False) -> tuple[Extra, ...]:
    """The extras of the installed package; none if it is not installed but lies on the path.

    Args:
        deep: Whether to import what each needs, in a process of its own.
    """
    wanted: dict[str, list[tuple[str, str | None]]] = {}
    for extra, name, least in _requirements():
        wanted.setdefault(extra, []).append((name, least))
    return tuple(_look(extra, needs, deep) for extra, needs in wanted.items())


def _requirements() -> Iterator[tuple[str, str, str | None]]:
    """Extra, distribution, and least version of each optional requirement."""
    try:
        lines = metadata.requires(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        return
    for line in lines:
        match = _REQUIREMENT.match(line)
        if match is not None:
            yield match["extra"], match["name"], match["least"]


def _look(extra: str, needs: list[tuple[str, str | None]], deep: bool) -> Extra:
    missing = tuple(text for name, least in needs if (text := _lacks(name, least)) is not None)
    modules = [_MODULES.get(name, name.replace("-", "_")) for name, _ in needs]
    error = _import(modules) if deep and not missing else None
    instead_of: tuple[str, ...] = ()
    if missing and "onnxruntime" in modules:
        instead_of = tuple(installed_runtimes())
    return Extra(extra, _PURPOSES.get(extra), missing, instead_of, error)


def _lacks(name: str, least: str | None) -> str | None:
    """What is missing of a requirement; None if nothing is."""
    text = name if least is None else f"{name}>={least}"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return text
    if least is not None and _numbers(version) < _numbers(least):
        return f"{text} ({version} is installed)"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """The release part of a version, for comparison: `2.9.0+cpu` is (2, 9, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _import(modules: list[str]) -> str | None:
    """Why modules cannot be imported, None if they can."""
    return failure_of(["-c", f"import {', '.join(modules)}"], "importing")


def failure_of(arguments: list[str], what: str) -> str | None:
    """Why a Python process of its own fails, None if it does not.

    Args:
        arguments: What Python is to run.
        what: What it is, for a process that ends without a word.
    """
    command = [sys.executable, "-W", "ignore", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"{what} ends with status {done.returncode}"
