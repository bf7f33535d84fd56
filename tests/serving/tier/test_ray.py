"""A tier on real Ray actors, as a user runs it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.serving.conftest import CUTS, Network, eventually, inputs, same
from tests.serving.edge.test_programs import PROGRAM, call

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="needs Ray: pip install 'dnnsplit-onnx[ray]'"
    ),
    pytest.mark.slow,
]

ONE = ("--threads", "1")


@contextmanager
def served(*words: object) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    process = subprocess.Popen(
        [*PROGRAM, "serve", *map(str, words), "--engine", "ray", *ONE, "--json"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout:
        try:
            yield process, json.loads(process.stdout.readline())["url"]
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                assert process.wait(60) == 0
            finally:
                process.kill()
                process.wait()


def gauge(url: str, name: str) -> float:
    text = urllib.request.urlopen(url + "/metrics", timeout=10).read().decode()
    (line,) = [line for line in text.splitlines() if line.startswith(f"dnnsplit_{name} ")]
    return float(line.split()[1])


def workers_of(pid: int) -> list[int]:
    """The processes of the actors that belong to a server, found by their session's folder."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            title, environ = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:  # it ended meanwhile, or is another's
            continue
        if title.startswith(b"ray::Worker") and f"_{pid}/".encode() in title + environ + maps(folder):
            found.append(int(folder.name))
    return found


def maps(folder: Path) -> bytes:
    links = []
    for link in (folder / "fd").iterdir():
        try:
            links.append(str(link.readlink()))
        except OSError:
            continue
    return "\n".join(links).encode()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_chain_through_ray_is_right_and_survives_a_killed_replica(slices: Path, network: Network, whole):
    with served(slices / "cloud", "--replicas", 2, "--port", 0) as (process, url):
        assert gauge(url, "replicas") == 2
        edge = network.edge(network.serve("near", url).url)
        for seed in range(20):
            answer = edge.infer(inputs(seed))
            assert answer.cuts == CUTS
            assert same(answer.outputs, whole(inputs(seed)))
        # Cuts that travel with the request, and tensors that pass through shared memory.
        rows = {"x": np.ones((40_000, 8), np.float32), "k": np.ones((40_000, 8), np.int64)}
        assert same(edge.infer(rows).outputs, whole(rows))
        edge.prepare((0, 0))
        for killed in range(3):
            (victim, *_) = workers_of(process.pid)
            os.kill(victim, signal.SIGKILL)
            for seed in range(10):
                answer = edge.infer(inputs(seed))
                assert same(answer.outputs, whole(inputs(seed))), killed
            assert eventually(lambda: gauge(url, "replicas") == 2, 60)
        assert all(answer.attempts == 1 for answer in edge.infer_all([inputs()] * 20, concurrency=4))
        left = workers_of(process.pid)
        assert len(left) == 2
    assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), 20)


def test_a_cluster_that_is_not_there_is_an_error_soon(slices: Path):
    ended = call(*("serve", slices / "cloud", "--port", 0, "--engine", "ray", "--ray-address", "127.0.0.1:1"))
    assert ended.returncode == 2
    assert "error: no Ray cluster at `127.0.0.1:1`" in ended.stderr
