"""Values through memory that client and server share: right, bounded, given back, and for nobody else."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.serving.tier.remote import Remote
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.wire import shared
from dnnsplit_onnx.serving.wire.encoding import to_text
from dnnsplit_onnx.serving.wire.errors import BusyError, ProtocolError
from dnnsplit_onnx.serving.wire.pool import Target
from dnnsplit_onnx.serving.wire.shared import Budget, Place, Shared, attach, ends_of, key_of, make
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.serving.conftest import Network, eventually, same
from tests.serving.emulation import Relay

pytestmark = pytest.mark.skipif(not shared.IS_THERE, reason="needs memfd_create, which Linux has")

ROWS = 20_000  # of 8 numbers of four bytes: far more than what travels with the text


def rows(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "x": rng.standard_normal((ROWS, 8)).astype(np.float32),
        "k": rng.integers(0, 9, (ROWS, 8)),
    }


def mapped(pid: int | str = "self") -> frozenset[str]:
    """The regions that a process sees."""
    return frozenset(re.findall("/memfd:(dnnsplit-[0-9a-f]+)", Path(f"/proc/{pid}/maps").read_text()))


@pytest.fixture
def is_mapped() -> Callable[[], bool]:
    """Says whether this process sees a region that it did not see when the test began.

    A test that failed earlier may hold one still, by the traceback that is kept of it.
    """
    before = mapped()
    return lambda: not mapped() <= before


@pytest.fixture
def remote(network: Network) -> Iterator[Remote]:
    server = network.serve("cloud")
    way = Remote(Target(server.url), Routes(load_manifest(network.folder)), 2)
    yield way
    way.close()


def regions(remote: Remote) -> list[shared.Region | None]:
    return [connection.region for connection in remote._pool._idle]


def ask(remote: Remote, values: dict[str, np.ndarray]) -> dict[str, np.ndarray | None]:
    results, _ = remote.infer(remote._routes.route((0, 0)), values, Deadline(20))
    return results


def test_large_values_cross_in_memory_and_small_ones_with_the_text(remote: Remote, network: Network, whole):
    small = {"x": rows()["x"][:2], "k": rows()["k"][:2]}
    assert same(ask(remote, small), whole(small))
    assert regions(remote) == [None]
    metrics = network.servers["cloud"].service.metrics
    for seed in range(5):
        assert same(ask(remote, rows(seed)), whole(rows(seed)))
        (region,) = regions(remote)
        assert region is not None
    # What is counted is what crossed, whichever way: inputs of 12 bytes an element five times.
    received = metrics.value("received_bytes_total", 'peer="client"')
    assert received > 5 * ROWS * 8 * 12


def test_answers_are_the_callers_own(remote: Remote, whole):
    ask(remote, rows(0))
    first = ask(remote, rows(1))  # now the lengths of outputs are known, and they too are shared
    second = ask(remote, rows(2))
    assert same(first, whole(rows(1)))
    assert same(second, whole(rows(2)))
    for name, array in second.items():
        assert array is not None
        assert not np.shares_memory(array, regions(remote)[0]._memory), name  # type: ignore[union-attr]


def test_values_that_grow_and_shrink(remote: Remote, whole):
    for count in (10_000, 20_000, 100, 60_000, 3, 10_000):
        values = {"x": np.full((count, 8), count, np.float32), "k": np.full((count, 8), 1, np.int64)}
        assert same(ask(remote, values), whole(values)), count


def test_strided_and_empty_values(remote: Remote, whole):
    wide = {"x": np.ones((ROWS, 16), np.float32)[:, ::2], "k": rows()["k"][::-1]}
    assert same(ask(remote, wide), whole({name: np.ascontiguousarray(v) for name, v in wide.items()}))
    assert regions(remote) != [None]
    none = {"x": np.zeros((0, 8), np.float32), "k": np.zeros((0, 8), np.int64)}
    assert same(ask(remote, none), whole(none))


def test_a_relay_between_them_carries_the_values(network: Network, whole):
    # It stands for a slow link: what went past it would not be on that link.
    server = network.serve("cloud")
    with Relay(server.port, 10_000.0) as relay:
        remote = Remote(Target(relay.url), Routes(load_manifest(network.folder)), 2)
        assert same(ask(remote, rows()), whole(rows()))
        assert regions(remote) == [None]
        assert same(ask(remote, rows()), whole(rows()))
        assert server.service.metrics.value("responses_total", 'code="403"') == 1  # asked once, and not again
        remote.close()


def test_a_server_bounds_what_is_shared_with_it(network: Network, whole):
    server = network.serve("cloud", bodies_nbytes=1 << 20)
    remote = Remote(Target(server.url), Routes(load_manifest(network.folder)), 2)
    assert same(ask(remote, rows()), whole(rows()))  # it would take 2 MiB: the values go with the text
    assert regions(remote) == [None]
    assert server.service.metrics.value("responses_total", 'code="503"') == 1
    remote.close()


def test_all_is_given_back_with_the_connection(is_mapped, remote: Remote, network: Network):
    server = network.servers["cloud"]
    before = server._budget.left
    ask(remote, rows())
    assert server._budget.left < before
    assert is_mapped()
    remote.close()
    assert eventually(lambda: server._budget.left == before)
    assert eventually(lambda: not is_mapped())


CLIENT = """
    import sys
    from pathlib import Path
    from tests.serving.wire.test_shared import Remote, Routes, Target, ask, load_manifest, regions, rows
    way = Remote(Target(sys.argv[1]), Routes(load_manifest(Path(sys.argv[2]))), 2)
    ask(way, rows())
    assert regions(way) != [None]
    print("asked", flush=True)
    sys.stdin.read()
"""


def test_a_killed_client_leaves_nothing(is_mapped, network: Network):
    server = network.serve("cloud")
    before = server._budget.left
    client = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CLIENT), server.url, str(network.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert client.stdout is not None
    assert client.stdin is not None
    with client.stdout, client.stdin:
        assert client.stdout.readline() == b"asked\n"
        assert is_mapped()
        client.kill()
        client.wait()
    assert eventually(lambda: server._budget.left == before)
    assert eventually(lambda: not is_mapped())


def test_a_killed_server_leaves_nothing_and_the_next_one_shares_again(is_mapped, network: Network, whole):
    def start(port: int) -> tuple[subprocess.Popen[bytes], str]:
        words = ["serve", network.folder / "cloud", "--threads", 1, "--port", port, "--json"]
        program = subprocess.Popen(
            [sys.executable, "-m", "tests.serving.program", *map(str, words)], stdout=subprocess.PIPE
        )
        assert program.stdout is not None
        with program.stdout:
            return program, json.loads(program.stdout.readline())["url"]

    first, url = start(0)
    remote = Remote(Target(url), Routes(load_manifest(network.folder)), 2)
    ask(remote, rows())
    (region,) = regions(remote)
    first.kill()
    first.wait()
    second, _ = start(int(url.rpartition(":")[2]))
    try:
        assert same(ask(remote, rows(1)), whole(rows(1)))
        (other,) = regions(remote)
        assert other is not None
        assert other is not region
        del region, other
        second.send_signal(signal.SIGTERM)
        assert second.wait(20) == 0
    finally:
        second.kill()
        second.wait()
    remote.close()
    assert not is_mapped()


class Other:
    """A client of its own making, on one connection."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        self.sock = socket.create_connection((host, int(port)), timeout=10)

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        self.sock.sendall(head.encode() + body)
        file = self.sock.makefile("rb")
        status = int(file.readline().split()[1])
        length = 0
        while (line := file.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length"):
                length = int(line.split(b":")[1])
        return status, file.read(length)

    def register(self, name: str, **asked: object) -> int:
        asked = {"offset": 0, "dnnsplit_ends": ends_of(self.sock), **asked}
        path = f"/v2/systemsharedmemory/region/{name}/register"
        return self.post(path, to_text(asked))[0]


@pytest.fixture
def other(network: Network) -> Iterator[Other]:
    client = Other(network.serve("cloud").url)
    yield client
    assert client.post("/v2/nothing", b"x")[0] == 404  # the connection goes on, whatever was refused
    client.sock.close()


def test_what_is_no_region_is_refused(other: Other, tmp_path: Path):
    region, descriptor = make(1 << 16)
    secret = (tmp_path / "secret").open("w+b")
    unsealed = os.memfd_create("dnnsplit-" + "0" * 32)
    os.truncate(unsealed, 1 << 16)
    good = {"key": key_of(descriptor), "byte_size": 1 << 16}
    assert other.register(region.name, **good) == 200
    for name, change, status in [
        ("dnnsplit-" + "1" * 32, {}, 404),  # a name that was guessed
        (region.name, {"key": key_of(secret.fileno())}, 404),
        (region.name, {"key": "/dev/shm/dnnsplit"}, 404),
        (region.name, {"key": f"/proc/1/fd/../../{os.getpid()}/fd/{descriptor}"}, 404),
        (region.name, {"key": key_of(10**8)}, 404),
        (region.name, {"key": None}, 404),
        (region.name, {"byte_size": (1 << 16) + 1}, 403),
        (region.name, {"byte_size": 0}, 400),
        (region.name, {"byte_size": 1 << 40}, 400),
        (region.name, {"byte_size": True}, 400),
        (region.name, {"dnnsplit_ends": ["127.0.0.1 1", "127.0.0.1 2"]}, 403),
        (region.name, {"dnnsplit_ends": None}, 403),
        ("dnnsplit-" + "0" * 32, {"key": key_of(unsealed)}, 403),
        ("x" * 200, {}, 404),
    ]:
        assert other.register(name, **{**good, **change}) == status, (name, change)
    os.close(descriptor)
    os.close(unsealed)
    secret.close()


def test_a_region_cannot_be_taken_away_from_under_a_server():
    region, descriptor = make(1 << 16)
    with pytest.raises(PermissionError):
        os.truncate(descriptor, 10)
    assert os.fstat(descriptor).st_mode & 0o777 == 0o600
    attached = attach(region.name, key_of(descriptor), 1 << 16)
    os.close(descriptor)
    place = Place(region.name, 64, 4)
    region.view(place)[:] = [1, 2, 3, 4]
    assert attached.view(place).tolist() == [1, 2, 3, 4]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_the_memory_of_another_user_is_refused():
    region, descriptor = make(1 << 16)
    key = key_of(descriptor)
    os.seteuid(65534)
    try:
        with pytest.raises(ProtocolError):
            attach(region.name, key, 1 << 16)
    finally:
        os.seteuid(0)
        os.close(descriptor)


def infer_text(region: str, offset: int, nbytes: int) -> bytes:
    place = {
        "shared_memory_region": region,
        "shared_memory_offset": offset,
        "shared_memory_byte_size": nbytes,
    }
    tensors = [
        {"name": "x", "datatype": "FP32", "shape": [2, 8], "parameters": place},
        {"name": "k", "datatype": "INT64", "shape": [2, 8], "data": [0] * 16},
    ]
    return to_text({"inputs": tensors, "parameters": {"dnnsplit_cuts": "0,0"}})


def test_places_outside_of_a_region_are_refused(other: Other):
    path = "/v2/models/cloud/infer"
    region, descriptor = make(1 << 12)
    assert other.post(path, infer_text(region.name, 0, 64))[0] == 400  # it is not registered yet
    assert other.register(region.name, key=key_of(descriptor), byte_size=1 << 12) == 200
    region.view(Place(region.name, 128, 64))[:] = np.ones(16, np.float32).view(np.uint8)
    status, body = other.post(path, infer_text(region.name, 128, 64))
    assert status == 200
    assert [o["name"] for o in json.loads(body)["outputs"]] == ["y", "z", "m"]
    for name, offset, nbytes in [
        ("dnnsplit-" + "1" * 32, 0, 64),
        (region.name, 4096 - 63, 64),
        (region.name, 1 << 47, 64),
        (region.name, -64, 64),
        (region.name, 0, 65),
        (region.name, 0, -64),
    ]:
        assert other.post(path, infer_text(name, offset, nbytes))[0] == 400, (name, offset, nbytes)
    os.close(descriptor)


def test_one_region_a_connection():
    ends = socket.socketpair()
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    budget = Budget(3 << 12)
    mine = Shared(server, budget)
    for _ in range(5):
        region, descriptor = make(1 << 12)
        asked = {"key": key_of(descriptor), "byte_size": 1 << 12, "dnnsplit_ends": ends_of(client)}
        mine.register(region.name, asked)
        os.close(descriptor)
        assert budget.left == 2 << 12
    large, descriptor = make(1 << 14)
    with pytest.raises(BusyError):
        mine.register(large.name, {**asked, "key": key_of(descriptor), "byte_size": 1 << 14})
    assert mine.region is not None
    mine.close()
    mine.close()
    assert budget.left == 3 << 12
    assert ends_of(ends[0]) == []  # no TCP, so no machine is known
    os.close(descriptor)
    for sock in (*ends, listener, client, server):
        sock.close()
