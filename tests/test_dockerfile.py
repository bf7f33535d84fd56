"""The Dockerfile: linted, held against the project, and built where Docker is."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
#: What a builder is sent, by name.
SENT = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), flags=re.MULTILINE)


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its words, lines that go on joined, comments left out."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]  # type: ignore[misc]


def test_its_instructions_are_sound() -> None:
    names = [name for name, _ in instructions()]
    assert names[0] == "FROM"
    assert names.count("ENTRYPOINT") == names.count("CMD") == 1
    assert set(names) <= {"FROM", "COPY", "RUN", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}
    words = dict(instructions())
    image, _, tag = words["FROM"].partition(":")
    assert image == "python"
    assert tag != "latest"
    assert "--no-cache-dir" in words["RUN"]
    assert words["USER"] not in ("root", "0")
    for name in ("ENTRYPOINT", "CMD"):  # the form that gets signals
        assert re.fullmatch(r'\[".*"\]', words[name])


def test_it_is_this_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    words = dict(instructions())
    assert words["ENTRYPOINT"].strip('[]"') in project["scripts"]
    assert re.findall(r"/src\[(\w+)\]", words["RUN"]) == ["cpu"]
    assert "cpu" in project["optional-dependencies"]
    version = re.fullmatch(r"(\d+\.\d+)-slim", words["FROM"].partition(":")[2])
    assert version is not None
    assert f"Programming Language :: Python :: {version[1]}" in project["classifiers"]
    for name in SENT:
        assert (ROOT / name).exists(), name
    assert {"dnnsplit_onnx", "converters", "models", "pyproject.toml", "constraints.txt"} <= set(SENT)


def test_hadolint_has_nothing_to_say() -> None:
    if shutil.which("hadolint") is None:
        pytest.skip("needs hadolint")
    done = subprocess.run(["hadolint", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_it_builds_and_runs() -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], check=False).returncode:
        pytest.skip("needs Docker, and its daemon")
    subprocess.run(["docker", "build", "-t", "dnnsplit-onnx-test", ROOT], check=True)
    done = subprocess.run(
        ["docker", "run", "--rm", "dnnsplit-onnx-test", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("dnnsplit-onnx ")
