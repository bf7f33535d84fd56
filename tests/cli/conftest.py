"""The command line run in this process, and models that are quick to run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dnnsplit_onnx.cli import main
from dnnsplit_onnx.models import write_model

TIERS = """
[[tier]]
name = "edge"
gflops = 1
usd_per_hour = 0.01

[[tier]]
name = "cloud"
gflops = 1000
usd_per_hour = 4

[[link]]
bandwidth_mbps = 100
delay_ms = 1
"""


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout, which must be one JSON object and nothing else."""
        return json.loads(self.out)


Run = Callable[..., Ended]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command as a process would, with a terminal of no particular kind."""
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: object) -> Ended:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        seen = capfd.readouterr()
        return Ended(code, seen.out, seen.err)

    return call


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small residual network with a symbolic batch."""
    path = tmp_path_factory.mktemp("zoo") / "tiny.onnx"
    write_model("tiny_residual", path)
    return path


@pytest.fixture
def tiers(tmp_path: Path) -> Path:
    """Two tiers."""
    path = tmp_path / "tiers.toml"
    path.write_text(TIERS)
    return path


@pytest.fixture(scope="session")
def slices(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of slices, cut in the middle, not verified."""
    folder = tmp_path_factory.mktemp("cut")
    (folder / "tiers.toml").write_text(TIERS)
    words = ("split", tiny, "--tiers", folder / "tiers.toml", "--bind", "batch=1", "--at", "block1_add")
    assert main([*map(str, words), "-o", str(folder / "slices"), "--no-verify", "--json"]) == 0
    return folder / "slices"
