"""What people script against changes on purpose or not at all: public names, commands, options."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
AGAIN = "if it is meant: .venv/bin/python scripts/lib/surface.py, and a line in CHANGELOG.md"


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "lib" / "surface.py"))


@pytest.mark.parametrize("name", ["api.txt", "cli.txt"])
def test_the_surface_is_the_committed_one(made: dict[str, Any], name: str) -> None:
    committed = (ROOT / "tests" / "surface" / name).read_text(encoding="utf-8").splitlines()
    found = made["SURFACES"][name]().splitlines()
    assert found == committed, AGAIN


def test_a_change_would_be_noticed(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import dnnsplit_onnx

    before = made["api"]()
    monkeypatch.setattr(dnnsplit_onnx, "__all__", dnnsplit_onnx.__all__[:-1])
    assert made["api"]() != before
    monkeypatch.undo()

    def verify(folder: str, *, more: int = 0) -> None:
        """Stands in for the real one."""

    monkeypatch.setattr(dnnsplit_onnx, "verify", verify, raising=False)
    assert "def verify(folder: 'str', *, more: 'int' = 0) -> 'None'" in made["api"]()


def test_the_lists_are_whole() -> None:
    import dnnsplit_onnx

    api = (ROOT / "tests" / "surface" / "api.txt").read_text(encoding="utf-8")
    cli = (ROOT / "tests" / "surface" / "cli.txt").read_text(encoding="utf-8")
    for name in dnnsplit_onnx.__all__:
        assert any(
            line.startswith((f"def {name}(", f"class {name}(", f"{name}:")) for line in api.splitlines()
        )
    for command in ("inspect", "plan", "split", "verify", "bench", "profile", "sweep", "compare", "run"):
        assert f"\ndnnsplit-onnx {command}\n" in cli
    assert "    --objective <latency|cost|throughput|energy" in cli
