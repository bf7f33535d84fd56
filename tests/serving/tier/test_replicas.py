"""A tier on replicas: which one runs what, and what becomes of requests when one ends."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.errors import InputError, MissingExtraError, ModelError
from dnnsplit_onnx.runtime.sessions import SessionOptions
from dnnsplit_onnx.serving.tier import ray_engine
from dnnsplit_onnx.serving.tier.engine import Arrays, Times, Values
from dnnsplit_onnx.serving.tier.replicas import Range, ReplicaLostError, Replicas
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.tier.service import Service
from dnnsplit_onnx.serving.tier.stage import Stage
from dnnsplit_onnx.serving.wire.errors import DeadlineError, ProtocolError, ServingError
from dnnsplit_onnx.serving.wire.server import Server
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.slicing.manifest import load_manifest
from tests.serving.conftest import CUTS, NODES, Network, eventually, inputs, open_files, same

CLOUD = 2


class Local:
    """A replica in this process: real slices, and a way to make it end."""

    def __init__(self, slices: Path, number: int) -> None:
        self.number = number
        self.worker = ray_engine.Worker(str(slices), CLOUD, SessionOptions(threads=1), identity(slices))
        _, error = self.worker.warm_up()
        assert error is None
        self.ran = 0
        self.ends = self.closed = False
        self.gate = threading.Event()
        self.gate.set()
        self.begun: queue.SimpleQueue[int] = queue.SimpleQueue()

    def run(self, nodes: Range, values: Values) -> tuple[Arrays, float]:
        self.begun.put(self.number)
        assert self.gate.wait(10)
        if self.ends:
            raise ReplicaLostError("killed")
        answer, error = self.worker.run(nodes, values)
        if error is not None:
            raise ServingError(error[0], status=error[1])
        assert answer is not None
        self.ran += 1
        return answer

    def open(self, nodes: Range) -> None:
        if self.ends:
            raise ReplicaLostError("killed")
        _, error = self.worker.open(nodes)
        if error is not None:
            raise ServingError(error[0], status=error[1])

    def close(self) -> None:
        self.closed = True


def identity(slices: Path) -> str:
    return Routes(load_manifest(slices)).identity


class Farm:
    """Starts replicas, and remembers them."""

    def __init__(self, slices: Path) -> None:
        self.slices = slices
        self.made: list[Local] = []
        self.fails: list[Exception] = []
        self._numbers = itertools.count()

    def __call__(self) -> Local:
        if self.fails:
            raise self.fails.pop()
        made = Local(self.slices, next(self._numbers))
        self.made.append(made)
        return made


@contextmanager
def pool_of(farm: Farm, count: int) -> Iterator[Replicas]:
    pool = Replicas(Routes(load_manifest(farm.slices)), CLOUD, farm, count)
    try:
        pool.warm_up()
        yield pool
    finally:
        for replica in farm.made:
            replica.gate.set()
        pool.close()
        assert all(replica.closed for replica in farm.made)


@pytest.fixture
def farm(slices: Path) -> Farm:
    return Farm(slices)


def arrived(pool: Replicas, seed: int = 0) -> dict[str, np.ndarray]:
    """All of the model for the top tier."""
    return inputs(seed)


def run(pool: Replicas, seed: int = 0, seconds: float = 10.0, times: Times | None = None) -> Arrays:
    return pool.run(pool.routes.route((0, 0)).legs[CLOUD], arrived(pool, seed), Deadline(seconds), times)


def test_requests_spread_over_replicas_and_answers_are_right(farm: Farm, whole):
    with pool_of(farm, 3) as pool:
        assert pool.replicas == 3
        for replica in farm.made:
            replica.gate.clear()
        with ThreadPoolExecutor(6) as threads:
            waiting = [threads.submit(run, pool, seed) for seed in range(6)]
            assert {replica.begun.get(timeout=10) for replica in farm.made} == {0, 1, 2}
            assert eventually(lambda: pool.waiting == 3)
            for replica in farm.made:
                replica.gate.set()
            for seed, answer in enumerate(waiting):
                assert same({name: answer.result(10)[name] for name in ("y", "z", "m")}, whole(inputs(seed)))
        assert sum(replica.ran for replica in farm.made) == 6


def test_a_request_whose_replica_ends_is_run_by_another(farm: Farm, whole):
    with pool_of(farm, 2) as pool:
        first, second = farm.made
        second.gate.clear()
        with ThreadPoolExecutor(2) as threads:
            # Both are busy; the one that ends leaves its request to the other.
            first.gate.clear()
            waiting = [threads.submit(run, pool, seed) for seed in range(2)]
            first.begun.get(timeout=10)
            second.begun.get(timeout=10)
            first.ends = True
            first.gate.set()
            second.gate.set()
            for seed, answer in enumerate(waiting):
                assert same({name: answer.result(10)[name] for name in ("y", "z", "m")}, whole(inputs(seed)))
        assert (first.ran, second.ran) == (0, 2)
        assert eventually(lambda: pool.replicas == 2)
        assert first.closed
        assert len(farm.made) == 3


def test_a_request_that_ends_replicas_fails_and_the_tier_goes_on(farm: Farm):
    with pool_of(farm, 3) as pool:
        first = list(farm.made)
        for replica in first:
            replica.ends = True
        # The third is still up when two have ended.
        with pytest.raises(ServingError, match="2 replicas of tier `cloud` ended"):
            run(pool)
        assert eventually(lambda: sum(replica.closed for replica in first) == 2)
        next(replica for replica in first if not replica.closed).ends = False
        assert eventually(lambda: pool.replicas == 3)
        assert run(pool)["y"] is not None


def test_with_no_replica_left_requests_name_the_link(farm: Farm):
    with pool_of(farm, 1) as pool:
        farm.made[0].ends = True
        farm.fails = [ModelError("cannot be opened")] * 2
        with pytest.raises(ServingError, match="no replica of tier `cloud` is up") as caught:
            run(pool)
        assert (caught.value.status, caught.value.link) == (503, CLOUD - 1)
        assert not pool.ready
        with pytest.raises(ServingError, match="no replica"):
            run(pool)
        assert eventually(lambda: pool.ready)
        assert run(pool)["y"] is not None


def test_requests_that_wait_are_answered_when_the_last_replica_ends(farm: Farm):
    with pool_of(farm, 1) as pool:
        only = farm.made[0]
        only.gate.clear()
        with ThreadPoolExecutor(3) as threads:
            waiting = [threads.submit(run, pool, seed) for seed in range(3)]
            only.begun.get(timeout=10)
            assert eventually(lambda: pool.waiting == 2)
            farm.fails = [ModelError("cannot be opened")] * 3
            only.ends = True
            only.gate.set()
            for answer in waiting:
                with pytest.raises(ServingError, match="no replica"):
                    answer.result(10)


def test_time_runs_out_in_the_queue_and_on_a_replica(farm: Farm):
    with pool_of(farm, 1) as pool:
        only = farm.made[0]
        only.gate.clear()
        with pytest.raises(DeadlineError, match="took too long") as running:
            run(pool, seconds=0.05)
        with pytest.raises(DeadlineError, match="in the queue") as queued:
            run(pool, seconds=0.05)
        assert (running.value.status, queued.value.status) == (504, 503)
        assert pool.waiting == 0
        only.gate.set()
        times = Times()
        assert run(pool, times=times)["y"] is not None
        assert times.compute_s > 0
        assert times.queue_s >= 0


def test_what_a_slice_refuses_is_the_requests_fault(farm: Farm):
    with pool_of(farm, 1) as pool:
        leg = pool.routes.route((0, 0)).legs[CLOUD]
        bad = {"x": np.zeros((2, 8), np.float32), "k": np.zeros((3, 5), np.int64)}
        with pytest.raises(ServingError) as caught:
            pool.run(leg, bad, Deadline(10))
        assert caught.value.status == 422
        assert len(farm.made) == 1


def test_all_replicas_open_a_slice_ahead(farm: Farm):
    with pool_of(farm, 2) as pool:
        leg = pool.routes.route((1, 5)).legs[CLOUD]
        pool.open(leg)
        for replica in farm.made:
            assert leg.record.file in open_files(replica.worker._ready())  # type: ignore[union-attr]
        pool.open(pool.routes.route((NODES, NODES)).legs[CLOUD])


def test_a_tier_that_cannot_start_says_why(farm: Farm):
    farm.fails = [ModelError("the file is broken")] * 9
    with pytest.raises(ModelError, match="the file is broken"), pool_of(farm, 2):
        pass


def test_some_replicas_are_enough_to_start(farm: Farm):
    farm.fails = [ReplicaLostError("killed")]
    with pool_of(farm, 2) as pool:
        assert pool.replicas >= 1
        assert eventually(lambda: pool.replicas == 2)


def test_a_chain_uses_the_replicas_and_falls_back_without_them(farm: Farm, network: Network, whole):
    with ExitStack() as stack:
        pool = Replicas(Routes(load_manifest(farm.slices)), CLOUD, farm, 2)
        server = stack.enter_context(Server(Service(pool)))
        pool.warm_up()
        edge = network.edge(network.serve("near", server.url).url)
        assert edge.infer(inputs()).cuts == CUTS
        farm.fails = [ModelError("cannot be opened")] * 4
        for replica in farm.made:
            replica.ends = True
        answer = edge.infer(inputs(1))
        assert answer.cuts == (CUTS[0], NODES)
        assert same(answer.outputs, whole(inputs(1)))
        assert eventually(lambda: edge.infer(inputs()).cuts == CUTS)


def test_a_worker_holds_its_slices_against_the_servers(slices: Path, plain_slices: Path):
    worker = ray_engine.Worker(str(plain_slices), CLOUD, SessionOptions(threads=1), identity(slices))
    _, error = worker.warm_up()
    assert error is not None
    assert "other slices" in error[0]
    assert worker.run((0, 1), {})[1] == ("the replica has not warmed up", 503)
    good = ray_engine.Worker(str(slices), CLOUD, SessionOptions(threads=1), identity(slices))
    assert good.warm_up() == (None, None)
    assert good.open((3, 99))[1] == ("the replica has no slice of nodes 3 to 99", 404)


def test_ray_is_an_extra(slices: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    monkeypatch.setattr(ray_engine.os, "environ", {})
    routes = Routes(load_manifest(slices))
    with pytest.raises(MissingExtraError) as caught:
        ray_engine.ray_engine(slices, routes, CLOUD, SessionOptions(), count=1)
    assert caught.value.hint == "pip install 'dnnsplit-onnx[ray]'"
    assert ray_engine.os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    with pytest.raises(InputError, match="0 replicas"):
        ray_engine.ray_engine(slices, routes, CLOUD, SessionOptions(), count=0)


def test_a_stage_in_this_process_is_one_replica(slices: Path):
    stage = Stage(slices, Routes(load_manifest(slices)), CLOUD, SessionOptions(threads=1))
    assert (stage.replicas, stage.waiting) == (0, 0)
    stage.warm_up()
    assert stage.replicas == 1
    bad = {"x": np.zeros((2, 8), np.float32), "k": np.zeros((3, 5), np.int64)}
    with pytest.raises(ProtocolError):
        stage.run(stage.routes.route((0, 0)).legs[CLOUD], bad, Deadline(5))
    stage.close()
    assert open_files(stage) == ()
