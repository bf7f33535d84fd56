"""The top tier of a chain on somebody else's server, where one is installed."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.serving.conftest import CUTS, NODES, Network, eventually, inputs, same


def free_port() -> int:
    """A port that is free, with the two after it; these servers cannot choose one themselves."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port: int = first.getsockname()[1]
            try:
                for more in (1, 2):
                    socket.create_server(("127.0.0.1", port + more)).close()
            except OSError:
                continue
            return port


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def served(kind: str, slices: Path) -> Iterator[str]:
    record = load_manifest(slices).slices[-1]
    port = free_port()
    words = ("-m", "tests.serving.foreign_server", kind, record.tier, slices / str(record.file), port)
    process = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        assert eventually(
            lambda: process.poll() is not None or answers(f"{url}/v2/models/{record.tier}/ready"), 90
        )
        assert process.poll() is None
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("kind", ["kserve", "mlserver"])
def test_the_top_tier_on_another_server(slices: Path, network: Network, whole, kind: str):
    if importlib.util.find_spec(kind) is None:
        pytest.skip(f"needs the package {kind}")
    with served(kind, slices) as url:
        near = network.serve("near", url)
        edge = network.edge(near.url)
        for seed in range(5):
            answer = edge.infer(inputs(seed))
            assert answer.cuts == CUTS
            assert same(answer.outputs, whole(inputs(seed)))
        extremes = inputs()
        extremes["x"][0] = [1e-45, -0.0, 1e18, 1e-7, 0.1, 1 / 3, 16777217.0, -1e-30]
        extremes["k"][0, :2] = [2**62, -(2**62)]
        assert same(edge.infer(extremes).outputs, whole(extremes))
        answered = list(edge.infer_all([inputs(seed) for seed in range(20)], concurrency=4))
        assert all(same(found.outputs, whole(inputs(seed))) for seed, found in enumerate(answered))  # type: ignore[union-attr]
    # It went away: what remains does its work.
    assert edge.infer(inputs()).cuts == (CUTS[0], NODES)


@pytest.mark.parametrize("kind", ["kserve", "mlserver"])
def test_what_json_cannot_carry_is_an_error(slices: Path, network: Network, kind: str):
    if importlib.util.find_spec(kind) is None:
        pytest.skip(f"needs the package {kind}")
    with served(kind, slices) as url:
        edge = network.edge(network.serve("near", url).url)
        broken = {**inputs(), "x": np.full((2, 8), np.inf, np.float32)}
        with pytest.raises(Exception, match="not finite"):
            edge.infer(broken)
        assert edge.infer(inputs()).cuts == CUTS
