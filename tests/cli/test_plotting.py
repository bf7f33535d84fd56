"""`--plot` of the commands that draw."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run

MODEL = "zoo:light_squeezenet"
needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib"
)


def words(command: str, tiers: Path) -> tuple[object, ...]:
    if command == "inspect":
        return (command, MODEL)
    return (command, MODEL, "--tiers", tiers, "--planners", "exact,neurosurgeon")


@needs_matplotlib
@pytest.mark.parametrize("command", ["inspect", "compare"])
@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_a_plot_beside_the_report(
    run: Run, tiers: Path, tmp_path: Path, command: str, kind: str, start: bytes
) -> None:
    file = tmp_path / "folder" / f"plot.{kind}"
    ended = run(*words(command, tiers), "--plot", file, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.json  # stdout is what it is without a plot
    assert file.read_bytes().startswith(start)
    other = tmp_path / "other.svg"
    assert run(*words(command, tiers), "--plot", file, "--plot", other, "--force").code == 0
    assert other.read_bytes().startswith(b"<?xml")
    ended = run(*words(command, tiers), "--plot", file)
    assert (ended.code, ended.out) == (2, "")
    assert "exists already" in ended.err
    assert run(*words(command, tiers), "--plot", file, "--force").code == 0


@pytest.mark.parametrize("command", ["inspect", "compare"])
def test_another_format_is_refused_before_the_work(run: Run, tiers: Path, command: str) -> None:
    ended = run(command, "no-such-model.onnx", *words(command, tiers)[2:], "--plot", "a.gif")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "error: cannot draw `a.gif`\nhint: name it .png, .svg or .pdf\n"


@pytest.mark.parametrize("command", ["inspect", "compare"])
def test_without_the_library_a_line_says_what_to_install(
    run: Run, tiers: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ended = run(*words(command, tiers), "--plot", "a.png")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        "error: plots need matplotlib, which is not installed\nhint: pip install 'dnnsplit-onnx[plot]'\n"
    )
    assert not Path("a.png").exists()
