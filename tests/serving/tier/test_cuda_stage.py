"""A tier that runs on a device, as a server has it; the device is the CPU under another name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.runtime import sessions
from dnnsplit_onnx.runtime.sessions import TIER, Session, SessionOptions
from dnnsplit_onnx.serving.edge.edge import Edge
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.tier.service import Service
from dnnsplit_onnx.serving.tier.stage import Stage
from dnnsplit_onnx.serving.wire.arena import Arena
from dnnsplit_onnx.serving.wire.limits import ServerLimits
from dnnsplit_onnx.serving.wire.server import Server
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.providers import pretend_cuda
from tests.running.folders import PERCEPTRON, edit_manifest, split, with_weights

X = np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)


@pytest.fixture
def folder(model_text: Callable[..., Path]) -> Path:
    """Two slices of fixed shapes, the upper planned for CUDA."""
    made = split(with_weights(model_text(PERCEPTRON)), 1)

    def plan_for_cuda(data: dict[str, Any]) -> None:
        data["slices"][1]["provider"] = "cuda"

    edit_manifest(made, plan_for_cuda)
    return made


def stage_of(folder: Path, tier: int, **options: Any) -> Stage:
    return Stage(folder, Routes(load_manifest(folder)), tier, SessionOptions(provider=TIER, **options))


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_chain_with_an_upper_tier_on_the_device(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cuda_graph: bool
) -> None:
    pretend_cuda(monkeypatch)
    stage = stage_of(folder, 1, cuda_graph=cuda_graph)
    expected = sessions.open_session(folder.parent / "m.onnx").run_arrays({"x": X})["y"]
    runs: list[str] = []
    real = Session.run

    def run(self: Session, values: Any, **options: Any) -> Any:
        runs.append(self.provider)
        return real(self, values, **options)

    monkeypatch.setattr(Session, "run", run)
    with Server(Service(stage, None, ServerLimits())) as server:
        stage.warm_up()
        # Algorithms are searched, a graph is captured, and a run is as all others.
        assert runs == ["cuda"] * 3
        with Edge(folder, server.url) as edge:
            for _ in range(3):
                made = edge.infer({"x": X}).outputs["y"]
                assert made is not None
                assert np.allclose(made, expected, atol=1e-6)
    assert runs == ["cuda"] * 6  # the edge, on the CPU, takes a shorter way


def test_large_requests_for_the_device_are_received_into_pinned_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_cuda(monkeypatch)
    asked: list[bool] = []
    real = Arena.reset

    def reset(self: Arena, nbytes: int, count: int, *, pinned: bool = False) -> None:
        asked.append(pinned)
        real(self, nbytes, count, pinned=pinned)

    monkeypatch.setattr(Arena, "reset", reset)
    for options, pinned in ((TIER, True), ("cpu", False)):
        stage = Stage(folder, Routes(load_manifest(folder)), 1, SessionOptions(provider=options))
        with Server(Service(stage, None, ServerLimits())) as server, Edge(folder, server.url) as edge:
            edge.infer({"x": X})
        assert asked.pop() is pinned


def test_nodes_that_fell_back_are_logged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretend_cuda(monkeypatch)
    nodes = tuple(f"n{at} (NonZero)" for at in range(7))
    monkeypatch.setattr(sessions, "fallback_nodes", lambda *_: nodes)
    with caplog.at_level(logging.WARNING):
        stage_of(folder, 1).warm_up()
    assert "CUDA has no kernel for 7 of these" in caplog.text
    assert "n4 (NonZero)" in caplog.text
    assert "n5 (NonZero)" not in caplog.text


def test_a_tier_on_the_cpu_has_no_cuda_graphs(folder: Path) -> None:
    with pytest.raises(InputError, match="tier `t0` does not run on `cuda`"):
        stage_of(folder, 0, cuda_graph=True)


def test_a_tier_on_the_cpu_is_tried_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of(folder, 0)
    runs: list[int] = []
    monkeypatch.setattr(stage, "_run", lambda *_: runs.append(1) or {})
    stage.warm_up()
    assert runs == [1]
    assert not stage.is_on_device(stage.routes.default.legs[0])
    assert stage.run(stage.routes.default.legs[0], {"x": X}, Deadline(5)) == {}
