"""What the shell offers for what has been typed so far."""

from __future__ import annotations

from pathlib import Path

import pytest

from dnnsplit_onnx.cli import completion
from dnnsplit_onnx.models.frameworks import FRAMEWORK_ENTRIES
from dnnsplit_onnx.planning.planners import PLANNERS


def test_names_that_begin_like_that() -> None:
    assert list(completion.planners("exa")) == ["exact"]
    assert list(completion.planners("")) == list(PLANNERS)
    assert "tiny_residual" in list(completion.zoo("tiny_"))
    assert set(FRAMEWORK_ENTRIES) < set(completion.zoo(""))
    assert "plan" in list(completion.schemas("p"))
    for offered in (completion.devices, completion.links):
        everything = list(offered(""))
        assert everything
        assert list(offered(everything[0])) == [name for name in everything if name.startswith(everything[0])]
        assert list(offered("no such thing")) == []


def test_models_are_files_folders_and_the_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    for name in ("a.onnx", "a.txt", "b.onnx", "models/c.onnx"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert list(completion.models("a")) == ["a.onnx"]
    assert list(completion.models("m")) == ["models/"]
    assert list(completion.models("models/")) == ["models/c.onnx"]
    assert list(completion.models(f"{tmp_path}/b")) == [f"{tmp_path}/b.onnx"]
    assert list(completion.models("nowhere/")) == []
    assert "zoo:tiny_residual" in list(completion.models("zoo:tiny"))
    assert list(completion.models(""))[-3:] == ["a.onnx", "b.onnx", "models/"]
