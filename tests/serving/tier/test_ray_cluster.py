"""Three replicas of a tier on a Ray cluster of two nodes, of which one is lost.

Both nodes are of this machine: two raylets. Ray may be in an environment of its own:

    python -m venv rays && rays/bin/pip install -e '.[cpu,ray]'
    DNNSPLIT_RAY_PYTHON=rays/bin/python python -m pytest -m slow tests/serving/tier/test_ray_cluster.py
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.serving.conftest import CUTS, Network, eventually, inputs, same
from tests.serving.tier.test_ray import gauge

PYTHON = os.environ.get("DNNSPLIT_RAY_PYTHON") or (sys.executable if importlib.util.find_spec("ray") else "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="needs Ray: pip install 'dnnsplit-onnx[ray]'"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]

REPLICAS = 3
_STORE_NBYTES = 100 << 20


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Cluster:
    """Two raylets on this machine, each with its workers in a session of its own."""

    def __init__(self, folder: Path) -> None:
        self.environment = {
            **os.environ,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            # A node that is gone is missed after seconds, and not after a minute.
            "RAY_health_check_initial_delay_ms": "1000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "1000",
            "RAY_health_check_failure_threshold": "3",
            "RAY_agent_register_timeout_ms": "120000",
            "RAY_raylet_start_wait_time_s": "120",
        }
        self.address = f"127.0.0.1:{free_port()}"
        self._folder = folder
        head = ("--head", "--port", self.address.rpartition(":")[2], "--include-dashboard", "false")
        self.nodes = [self._start("head", *head, "--temp-dir", f"/tmp/{folder.name}{os.getpid()}")]
        assert eventually(self._listens, 60)
        self.nodes.append(self._start("second", "--address", self.address))

    def _start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        sizes = ("--num-cpus", "2", "--object-store-memory", str(_STORE_NBYTES), "--block")
        # Ports that were not given are waited for, too short a time on a busy machine.
        agents = ("dashboard-agent-grpc", "dashboard-agent-listen", "runtime-env-agent", "metrics-export")
        ports = [word for agent in agents for word in (f"--{agent}-port", str(free_port()))]
        with (self._folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [PYTHON, "-m", "ray.scripts.scripts", "start", *words, *ports, *sizes],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _listens(self) -> bool:
        host, _, port = self.address.rpartition(":")
        with socket.socket() as sock:
            return sock.connect_ex((host, int(port))) == 0

    def replicas_of(self, node: int) -> list[int]:
        """The processes of replicas on a node: those below the program that started it."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                is_replica = folder.name.isdigit() and (folder / "cmdline").read_bytes().startswith(
                    b"ray::Worker"
                )
                if is_replica and self.nodes[node].pid in ancestors(int(folder.name)):
                    found.append(int(folder.name))
            except OSError:  # it ended meanwhile
                continue
        return found

    def lose(self, node: int) -> None:
        """Ends all processes of a node at once, as when its machine loses power."""
        for pid in descendants(self.nodes[node].pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.nodes[node].wait(30)

    def close(self) -> None:
        for node in range(len(self.nodes)):
            self.lose(node)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        pid = parent(pid)
        found.append(pid)
    return found


def descendants(root: int) -> list[int]:
    """A process and all below it."""
    found = [root]
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and root in ancestors(int(folder.name)):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@contextmanager
def served(cluster: Cluster, tier: Path, log: Path) -> Iterator[str]:
    words = ["serve", tier, "--engine", "ray", "--replicas", REPLICAS, "--ray-address", cluster.address]
    command = [
        PYTHON,
        "-m",
        "tests.serving.program",
        *map(str, words),
        "--threads",
        "1",
        "--port",
        "0",
        "--json",
    ]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, env=cluster.environment, stdout=subprocess.PIPE, stderr=stderr)
    assert process.stdout is not None
    with process.stdout:
        try:
            line = process.stdout.readline()
            assert line, log.read_text()[-2000:]
            yield json.loads(line)["url"]
        finally:
            process.terminate()
            try:
                process.wait(60)
            finally:
                process.kill()
                process.wait()


def test_three_replicas_on_two_nodes_survive_the_loss_of_one(
    slices: Path, network: Network, whole, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        cluster = Cluster(tmp_path)
        stack.callback(cluster.close)
        url = stack.enter_context(served(cluster, slices / "cloud", tmp_path / "serve.log"))
        assert eventually(lambda: gauge(url, "replicas") == REPLICAS, 120)
        spread = [len(cluster.replicas_of(node)) for node in (0, 1)]
        assert sum(spread) == REPLICAS
        assert min(spread) > 0, "the replicas are not spread over both nodes"
        edge = network.edge(network.serve("near", url).url, deadline_s=60.0)
        for seed in range(10):
            answer = edge.infer(inputs(seed))
            assert (answer.cuts, same(answer.outputs, whole(inputs(seed)))) == (CUTS, True)
        cluster.lose(1)
        lost_at = time.monotonic()
        for seed in range(200):
            answer = edge.infer(inputs(seed))
            assert same(answer.outputs, whole(inputs(seed))), seed
        assert eventually(lambda: gauge(url, "replicas") == REPLICAS, 180)
        print(f"three replicas again {time.monotonic() - lost_at:.1f} s after the loss")
        assert len(cluster.replicas_of(0)) == REPLICAS
        answers = [edge.infer(inputs(seed), cuts=CUTS) for seed in range(20)]
        assert all(same(a.outputs, whole(inputs(seed))) for seed, a in enumerate(answers))
