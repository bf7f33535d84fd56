"""A tier on several replicas: the server here takes requests, and each is run by one of them.

A replica computes one request at a time. Requests wait in one queue, and a thread for each
replica takes the next whenever its own is free: none waits behind a slow one while another
is idle. A replica that ends is started again, and the request it had is run once more by the
next that is free, since a slice computes the same wherever it runs. A request that ends two
replicas is to blame itself, and fails.

What a replica is, is another matter (`ray_engine`): here it is what `Spawn` returns.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Protocol

from dnnsplit_onnx.errors import DnnsplitError, InputError
from dnnsplit_onnx.serving.tier.engine import Arrays, Times, Values
from dnnsplit_onnx.serving.tier.legs import Leg
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.tier.sequences import Sequence
from dnnsplit_onnx.serving.wire.errors import DeadlineError, ServingError
from dnnsplit_onnx.serving.wire.stream import Deadline

_log = logging.getLogger(__name__)

#: The nodes of a slice: its first position, and the one after its last.
Range = tuple[int, int]

_MOST_ATTEMPTS = 2
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 30.0


class ReplicaLostError(Exception):
    """A replica ended, or does not answer."""


class Replica(Protocol):
    """One replica, used by one thread at a time."""

    def run(self, nodes: Range, values: Values) -> tuple[Arrays, float]:
        """Runs a slice; returns what it makes, and the seconds that took.

        Raises:
            ReplicaLostError: It ended before it answered.
            DnnsplitError: It refuses.
        """

    def open(self, nodes: Range) -> None:
        """Opens a slice; raises as `run` does."""

    def close(self) -> None:
        """Ends it."""


#: Starts a replica and returns it once its slice has run; raises as `Replica.run` does.
Spawn = Callable[[], Replica]


@dataclass(eq=False)
class _Job:
    nodes: Range
    values: Values | None  # None only opens the slice
    answer: Future[tuple[Arrays, float]] = field(default_factory=Future)
    started: float = 0.0
    attempts: int = 0


class Replicas:
    """An engine of several replicas.

    Args:
        routes: Of the manifest.
        tier: Which tier, counted from 0.
        spawn: Starts a replica.
        count: How many there shall be.
        on_start, on_close: Called before the first replica is started, and after the last
            has ended.
    """

    def __init__(
        self,
        routes: Routes,
        tier: int,
        spawn: Spawn,
        count: int,
        *,
        on_start: Callable[[], None] = lambda: None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self.routes, self.tier = routes, tier
        self.name = routes.tiers[tier]
        if routes.default.legs[tier].states:
            raise InputError(
                f"tier `{self.name}` keeps states from request to request, which replicas do not share",
                hint="serve it without --engine ray",
            )
        self._on_start, self._on_close = on_start, on_close
        self._news = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._closing = False
        self._runners = [_Runner(self, spawn, number) for number in range(count)]

    @property
    def ready(self) -> bool:
        """Whether a replica can compute."""
        return self.replicas > 0

    @property
    def waiting(self) -> int:
        """Requests that no replica has begun."""
        return len(self._jobs)

    @property
    def replicas(self) -> int:
        """How many replicas can compute now."""
        return sum(runner.is_up for runner in self._runners)

    def is_on_device(self, leg: Leg) -> bool:  # noqa: ARG002
        """Never: replicas are other processes, and get their values by way of these."""
        return False

    def forget(self, name: str) -> None:
        """Replicas keep no states."""

    def warm_up(self) -> None:
        """Starts all replicas, each of which runs the plan's slice once.

        Raises:
            DnnsplitError: None could be started.
        """
        self._on_start()
        for runner in self._runners:
            runner.start()
        for runner in self._runners:
            runner.tried.wait()
        if not self.ready:
            raise self._runners[0].error or ServingError(f"no replica of tier `{self.name}` could be started")

    def run(
        self,
        leg: Leg,
        values: Values,
        deadline: Deadline,
        times: Times | None = None,
        sequence: Sequence | None = None,  # noqa: ARG002
    ) -> Arrays:
        """Runs this tier's part of a route on the next replica that is free; see `Engine.run`."""
        record = leg.record
        if record is None:
            return {}
        if not self.ready:
            raise self.all_down()
        sent = {port.name: values.get(port.name) for port in record.inputs}
        job = _Job((record.start, record.stop), sent)
        asked = time.perf_counter()
        self._put(job)
        try:
            made, compute_s = job.answer.result(max(0.0, deadline.remaining_s))
        except FutureTimeout:
            raise self._too_late(job) from None
        if times is not None:
            times.queue_s, times.compute_s = job.started - asked, compute_s
        return made

    def open(self, leg: Leg) -> None:
        """Has every replica open a leg's slice."""
        if leg.record is None:
            return
        jobs = [
            runner.ask_to_open((leg.record.start, leg.record.stop))
            for runner in self._runners
            if runner.is_up
        ]
        for job in jobs:
            job.answer.result()

    def close(self) -> None:
        """Ends all replicas."""
        with self._news:
            self._closing = True
            self._news.notify_all()
        for runner in self._runners:
            if runner.is_alive():
                runner.join()
        self._on_close()

    def all_down(self) -> ServingError:
        """What requests get while no replica is up."""
        # To the tier below, that is a link that is down: it may know another way.
        link = max(0, self.tier - 1)
        return ServingError(f"no replica of tier `{self.name}` is up", status=503, link=link)

    def _put(self, job: _Job, *, first: bool = False) -> None:
        with self._news:
            (self._jobs.appendleft if first else self._jobs.append)(job)
            self._news.notify_all()

    def _too_late(self, job: _Job) -> DeadlineError:
        with self._news:
            if job in self._jobs:
                self._jobs.remove(job)
                return DeadlineError("no time was left in the queue", status=503)
        return DeadlineError(f"tier `{self.name}` took too long")


class _Runner(threading.Thread):
    """Keeps one replica, and has it run what is next.

    Attributes:
        is_up: Whether the replica can compute.
        tried: Set once it was started, or could not be.
        error: Why it could not.
    """

    def __init__(self, pool: Replicas, spawn: Spawn, number: int) -> None:
        super().__init__(name=f"replica {number}", daemon=True)
        self._pool, self._spawn, self._number = pool, spawn, number
        self._own: deque[_Job] = deque()  # what this replica is to open
        self.is_up = False
        self.tried = threading.Event()
        self.error: DnnsplitError | None = None

    def ask_to_open(self, nodes: Range) -> _Job:
        """Puts opening a slice before all that waits."""
        job = _Job(nodes, None)
        with self._pool._news:
            self._own.append(job)
            self._pool._news.notify_all()
        return job

    def run(self) -> None:
        """Starts the replica again and again, until the pool is closed."""
        pause_s = _SHORTEST_PAUSE_S
        while not self._pool._closing:
            replica = self._begin()
            if replica is not None:
                began = time.monotonic()
                self._work(replica)
                if time.monotonic() - began > _LONGEST_PAUSE_S:
                    pause_s = _SHORTEST_PAUSE_S
            with self._pool._news:
                self._pool._news.wait_for(lambda: self._pool._closing, pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _begin(self) -> Replica | None:
        try:
            replica = self._spawn()
        except DnnsplitError as error:
            self.error = error
        except ReplicaLostError as error:
            self.error = ServingError(f"a replica of tier `{self._pool.name}` ended at once: {error}")
        else:
            self.error, self.is_up = None, True
            self.tried.set()
            _log.info("replica %d of tier `%s` is up", self._number, self._pool.name)
            return replica
        self.tried.set()
        _log.error("replica %d of tier `%s`: %s", self._number, self._pool.name, self.error.message)
        return None

    def _work(self, replica: Replica) -> None:
        """Runs one job after another, until the replica is lost or the pool is closed."""
        try:
            while (job := self._next()) is not None:
                try:
                    self._do(replica, job)
                except ReplicaLostError as lost:
                    self._lost(job, lost)
                    return
        finally:
            self.is_up = False
            self._leave_none()
            replica.close()

    def _next(self) -> _Job | None:
        pool = self._pool
        with pool._news:
            pool._news.wait_for(lambda: pool._closing or self._own or pool._jobs)
            if pool._closing:
                return None
            job = self._own.popleft() if self._own else pool._jobs.popleft()
            job.started = time.perf_counter()
            return job

    def _do(self, replica: Replica, job: _Job) -> None:
        try:
            if job.values is None:
                replica.open(job.nodes)
                made, seconds = Arrays(), 0.0
            else:
                made, seconds = replica.run(job.nodes, job.values)
        except DnnsplitError as error:
            job.answer.set_exception(error)
        else:
            job.answer.set_result((made, seconds))

    def _lost(self, job: _Job, lost: ReplicaLostError) -> None:
        self.is_up = False
        name = self._pool.name
        _log.error("replica %d of tier `%s` is lost: %s", self._number, name, lost)
        job.attempts += 1
        if job.values is None or not self._pool.ready:
            job.answer.set_exception(self._pool.all_down())
        elif job.attempts < _MOST_ATTEMPTS:
            self._pool._put(job, first=True)
        else:
            job.answer.set_exception(
                ServingError(f"{job.attempts} replicas of tier `{name}` ended while running the request")
            )

    def _leave_none(self) -> None:
        """Answers what this replica, or none any more, will do."""
        pool = self._pool
        with pool._news:
            left = list(self._own)
            self._own.clear()
            if pool._closing or not pool.ready:
                left += pool._jobs
                pool._jobs.clear()
        for job in left:
            job.answer.set_exception(pool.all_down())
