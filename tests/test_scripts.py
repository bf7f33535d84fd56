"""Scripts are checked as the package is, though most have no suffix."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def scripts(interpreter: str) -> list[Path]:
    """The scripts that begin with `#!` and an interpreter."""
    found = [path for path in (ROOT / "scripts").rglob("*") if path.is_file() and "results" not in path.parts]
    return sorted(
        path for path in found if path.read_bytes().startswith(f"#!/usr/bin/env {interpreter}".encode())
    )


def linted() -> set[Path]:
    """The files under scripts/ that ruff looks at."""
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--show-files", "scripts"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {Path(line) for line in done.stdout.splitlines()}


def test_ruff_sees_scripts_in_python_and_no_others() -> None:
    python = set(scripts("python3"))
    assert len(python) > 20
    seen = linted()
    assert python <= seen, "add them to extend-include of [tool.ruff]"
    assert not seen & set(scripts("bash"))


@pytest.mark.parametrize("path", scripts("bash"), ids=lambda path: path.name)
def test_shell_scripts_parse_and_stop_at_errors(path: Path) -> None:
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    text = path.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text or "lib/environment.sh" in text


def test_scripts_can_be_run() -> None:
    assert [
        path.name for path in (*scripts("bash"), *scripts("python3")) if not os.access(path, os.X_OK)
    ] == []
