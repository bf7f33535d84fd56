"""`convert`, from a module of one's own to what is printed of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.converters.support import needs

from .conftest import Run

NET = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), (torch.zeros(1, 4),)
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that builds a network, where Python finds it."""
    name = f"net_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    return f"{name}:build"


@needs("pytorch", "cpu")
@pytest.mark.filterwarnings("ignore")
def test_what_is_said_of_a_conversion(run: Run, net: str, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    ended = run("convert", net, "-o", model)
    assert ended.code == 0, ended.err
    lines = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    assert lines["route"] == "pytorch: the function says which framework it is"
    assert lines["inputs"] == "input float[batch, 4]"
    assert lines["outputs"] == "output float[batch, 3]"
    assert lines["nodes"] == "3, 100% with their layer's name"
    assert "relative" in lines["checked"]
    assert " GB at its peak" in lines["took"]
    assert f"wrote {model}" in ended.err
    assert f"next: dnnsplit-onnx inspect {model}" in ended.err
    again = run("convert", net, "-o", model)
    assert again.code == 2
    assert f"error: `{model}` exists already\nhint: pass --force to replace it" in again.err
    fixed = run("convert", net, "-o", model, "--force", "--batch", "2", "--no-check", "--json")
    assert fixed.code == 0, fixed.err
    assert fixed.json["max_rel_diff"] is None
    assert fixed.json["inputs"][0]["shape"] == [2, 4]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing.xyz", "error: no such file: `nothing.xyz`\nhint: pass a .keras or .h5 file, "),
        ("zoo:nothing", "error: no framework builds `zoo:nothing`\nhint: `dnnsplit-onnx zoo list` shows"),
    ],
)
def test_sources_that_are_none(run: Run, tmp_path: Path, source: str, message: str) -> None:
    ended = run("convert", source, "-o", tmp_path / "m.onnx")
    assert ended.code == 2
    assert message in ended.err
    assert ended.out == ""
    assert not (tmp_path / "m.onnx").exists()
