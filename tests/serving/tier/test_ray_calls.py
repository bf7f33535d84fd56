"""What is asked of Ray, and what its answers become; Ray itself is a stand-in here.

`test_ray.py` has a real cluster, which takes minutes and an extra.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.runtime.sessions import SessionOptions
from dnnsplit_onnx.serving.tier import ray_engine
from dnnsplit_onnx.serving.tier.ray_engine import RayReplica
from dnnsplit_onnx.serving.tier.replicas import ReplicaLostError
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.wire.errors import ServingError
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.serving.conftest import inputs, same

EDGE = 0
ONE = SessionOptions(threads=1)


class RayError(Exception):
    pass


class GetTimeoutError(RayError):
    pass


def _later(method: Callable[..., Any]) -> SimpleNamespace:
    """A method of an actor: `remote` gives what `get` waits for."""
    return SimpleNamespace(remote=lambda *values: lambda: method(*values))


class FakeRay:
    """Actors are objects of this process, calls wait until they are asked for."""

    exceptions = SimpleNamespace(RayError=RayError, GetTimeoutError=GetTimeoutError)

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.killed: list[object] = []
        self.timeouts: list[float] = []
        self.failure: BaseException | None = None
        self.started: dict[str, Any] = {}
        self.starting: Callable[[], None] = lambda: None

    def remote(self, kind: type) -> Any:
        def make(*arguments: Any) -> Any:
            actor = kind(*arguments)
            calls = {name: _later(getattr(actor, name)) for name in ("warm_up", "open", "run")}
            return SimpleNamespace(**calls)

        def options(**given: Any) -> Any:
            self.options = given
            return SimpleNamespace(remote=make)

        return SimpleNamespace(options=options)

    def get(self, call: Callable[[], Any], timeout: float) -> Any:
        self.timeouts.append(timeout)
        if self.failure is not None:
            raise self.failure
        return call()

    def kill(self, actor: object) -> None:
        self.killed.append(actor)

    def init(self, **settings: Any) -> None:
        self.started = settings
        self.starting()

    def shutdown(self) -> None:
        self.started = {}


@pytest.fixture
def ray() -> FakeRay:
    return FakeRay()


@pytest.fixture
def replica(ray: FakeRay, slices: Path) -> RayReplica:
    return RayReplica(ray, slices, Routes(load_manifest(slices)), EDGE, ONE, run_s=7.0)  # type: ignore[arg-type]


def test_a_replica_runs_slices_and_opens_others(replica: RayReplica, ray: FakeRay, whole) -> None:
    replica.open((0, 7))
    made, seconds = replica.run((0, 7), inputs())
    wanted = whole(inputs())
    assert same({name: made[name] for name in wanted}, wanted)
    assert seconds > 0
    # It may take its time to start and to open, a run has its own limit; nothing starts by itself again.
    assert ray.timeouts == [ray_engine._START_S, ray_engine._OPEN_S, 7.0]
    assert ray.options["max_restarts"] == 0
    assert ray.options["num_gpus"] == 0
    replica.close()
    assert ray.killed == [replica._actor]


def test_errors_of_an_actor_come_back_with_their_status(replica: RayReplica) -> None:
    with pytest.raises(ServingError, match="the replica has no slice of nodes 3 to 99") as refused:
        replica.open((3, 99))
    assert refused.value.status == 404
    with pytest.raises(ServingError, match="no slice of nodes 3 to 99"):
        replica.run((3, 99), {"x": np.ones((2, 8), np.float32)})


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (GetTimeoutError(), "it did not answer within 7 s"),
        (RayError("the actor died\nat length"), "the actor died"),
        (RayError(), "RayError"),
        (OSError("no space"), "no space"),
    ],
)
def test_an_actor_that_is_lost(replica: RayReplica, ray: FakeRay, failure: Exception, message: str) -> None:
    ray.failure = failure
    with pytest.raises(ReplicaLostError) as lost:
        replica.run((0, 2), inputs())
    assert str(lost.value) == message


def test_an_actor_that_does_not_start_is_ended(ray: FakeRay, slices: Path, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="no manifest"):
        RayReplica(ray, tmp_path, Routes(load_manifest(slices)), EDGE, ONE, 7.0)  # type: ignore[arg-type]
    assert len(ray.killed) == 1


def test_an_actor_that_has_not_warmed_up_refuses(slices: Path) -> None:
    worker = ray_engine.Worker(str(slices), EDGE, ONE, "")
    assert worker.run((0, 2), {}) == (None, ("the replica has not warmed up", 503))
    assert worker.open((0, 2)) == (None, ("the replica has not warmed up", 503))


def test_a_cluster_of_ones_own_is_for_this_machine_alone(ray: FakeRay) -> None:
    ray_engine._connect(ray, None)  # type: ignore[arg-type]
    assert ray.started["address"] == "local"
    assert ray.started["_node_ip_address"] == "127.0.0.1"
    assert ray.started["include_dashboard"] is False


def test_a_cluster_that_runs_is_joined(ray: FakeRay) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        ray_engine._connect(ray, address)  # type: ignore[arg-type]
    assert ray.started["address"] == address
    assert "_node_ip_address" not in ray.started
    with pytest.raises(InputError, match=f"no Ray cluster at `{address}`: "):
        ray_engine._connect(ray, address)  # type: ignore[arg-type]
    for other in ("auto", "ray://head:10001", "10001"):  # Ray's own forms are for Ray to judge
        ray_engine._connect(ray, other)  # type: ignore[arg-type]
        assert ray.started["address"] == other


@pytest.mark.parametrize(
    ("address", "failure", "kind", "message"),
    [
        (None, ConnectionError("no\nmore"), ServingError, "Ray does not start: no"),
        (None, RuntimeError("no shm"), ServingError, "Ray does not start: no shm"),
        ("auto", ConnectionError("none"), InputError, "no Ray cluster at `auto`: none"),
        ("auto", ValueError("what"), InputError, "no Ray cluster at `auto`: what"),
        ("auto", RayError("versions"), ServingError, "Ray does not start: versions"),
    ],
)
def test_ray_that_does_not_start(
    ray: FakeRay, address: str | None, failure: Exception, kind: type[Exception], message: str
) -> None:
    def fail() -> None:
        raise failure

    ray.starting = fail
    with pytest.raises(kind) as refused:
        ray_engine._connect(ray, address)  # type: ignore[arg-type]
    assert str(refused.value) == message


def test_signals_stay_as_they_were(ray: FakeRay) -> None:
    before = signal.getsignal(signal.SIGTERM)
    ray.starting = lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN) and None
    ray_engine._connect(ray, None)  # type: ignore[arg-type]
    assert signal.getsignal(signal.SIGTERM) is before
    # Elsewhere than in the main thread there are none to keep.
    ray.starting = lambda: None
    thread = threading.Thread(target=ray_engine._connect, args=(ray, "auto"))
    thread.start()
    thread.join()
    assert ray.started["address"] == "auto"


def test_replicas_on_a_cluster(ray: FakeRay, slices: Path, whole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "import_module", lambda _: ray)
    monkeypatch.setattr(ray_engine.os, "environ", dict(os.environ))
    routes = Routes(load_manifest(slices))
    engine = ray_engine.ray_engine(slices, routes, EDGE, ONE, count=2)
    assert ray_engine.os.environ["RAY_AUTH_MODE"] == "token"
    assert len(ray_engine.os.environ["RAY_AUTH_TOKEN"]) == 64
    try:
        assert ray.started == {}  # nothing starts before it is used
        engine.warm_up()
        assert ray.started["address"] == "local"
    finally:
        engine.close()
    assert ray.started == {}
    assert len(ray.killed) == 2
