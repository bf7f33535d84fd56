"""Replicas that are Ray actors, on this machine or on the nodes of a Ray cluster.

The server stays ours: what arrives is checked, bounded and authenticated as always, and only
then handed to an actor. Plain actors rather than Ray Serve, whose own HTTP server, router and
controller would take 10 ms a request and half a gigabyte for what is done here already.

Ray is for the inside of a tier. It gives a node up for dead when its network falters, and
whoever is let into it can run any code, so it must never span the link between two tiers. Its
processes listen on all addresses; a cluster that is started here asks for a token that nobody
else knows.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from dnnsplit_onnx.errors import DnnsplitError, InputError, MissingExtraError
from dnnsplit_onnx.running.slices import options_on
from dnnsplit_onnx.runtime.sessions import SessionOptions
from dnnsplit_onnx.serving.tier.engine import Arrays, Values
from dnnsplit_onnx.serving.tier.legs import Leg
from dnnsplit_onnx.serving.tier.replicas import Range, ReplicaLostError, Replicas
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.tier.stage import Stage
from dnnsplit_onnx.serving.wire.errors import ServingError
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.slicing.manifest import load_manifest

INSTALL = "pip install 'dnnsplit-onnx[ray]'"

_START_S = 120.0
_OPEN_S = 120.0
# Memory that tensors pass through between processes; more of them spill to disk.
_STORE_NBYTES = 1 << 30
_HOUR_S = 3600.0
_REACH_S = 5.0


def ray_engine(
    folder: Path,
    routes: Routes,
    tier: int,
    options: SessionOptions,
    *,
    count: int,
    address: str | None = None,
    run_s: float = 60.0,
) -> Replicas:
    """An engine of Ray actors.

    Args:
        folder: The folder of the manifest; with an address, it is at the same path on every
            node that actors may run on.
        routes: Of the manifest.
        tier: Which tier, counted from 0.
        options: How each actor runs its slices.
        count: How many actors.
        address: Of a Ray cluster that runs; None starts one on this machine, for this server
            alone.
        run_s: An actor that computes for longer than this is ended and replaced.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: There is no number of actors to start.
    """
    if count < 1:
        raise InputError(f"{count} replicas cannot serve anything", hint="pass --replicas 1 or more")
    ray = _ray(is_own=address is None)

    def spawn() -> RayReplica:
        return RayReplica(ray, folder.absolute(), routes, tier, options, run_s)

    return Replicas(
        routes, tier, spawn, count, on_start=lambda: _connect(ray, address), on_close=ray.shutdown
    )


class RayReplica:
    """One actor; a `Replica`."""

    def __init__(
        self,
        ray: ModuleType,
        folder: Path,
        routes: Routes,
        tier: int,
        options: SessionOptions,
        run_s: float,
    ) -> None:
        self._ray, self._run_s = ray, run_s
        actor = ray.remote(Worker).options(
            # Replicas wait for each other's processors no more than threads of one server do.
            num_cpus=0,
            num_gpus=1 if _is_on_gpu(routes, tier, options) else 0,
            max_restarts=0,
            scheduling_strategy="SPREAD",
        )
        self._actor: Any = actor.remote(str(folder), tier, options, routes.identity)
        try:
            self._ask("warm_up", seconds=_START_S)
        except BaseException:
            self.close()
            raise

    def run(self, nodes: Range, values: Values) -> tuple[Arrays, float]:
        """Runs a slice on the actor."""
        made: tuple[Arrays, float] = self._ask("run", nodes, values, seconds=self._run_s)
        return made

    def open(self, nodes: Range) -> None:
        """Opens a slice on the actor."""
        self._ask("open", nodes, seconds=_OPEN_S)

    def close(self) -> None:
        """Ends the actor."""
        self._ray.kill(self._actor)

    def _ask(self, method: str, *arguments: object, seconds: float) -> Any:
        """Calls a method; errors come as values, so that no exception has to be unpickled."""
        errors = self._ray.exceptions
        try:
            answer, error = self._ray.get(getattr(self._actor, method).remote(*arguments), timeout=seconds)
        except errors.GetTimeoutError:
            raise ReplicaLostError(f"it did not answer within {seconds:g} s") from None
        except (errors.RayError, OSError) as failure:
            raise ReplicaLostError(_first_line(failure)) from None
        if error is not None:
            message, status = error
            raise ServingError(message, status=status)
        return answer


class Worker:
    """What runs in an actor's process: the tier's slices, as a server without replicas has them.

    Each method returns its answer, or None and an error's message and HTTP status.
    """

    def __init__(self, folder: str, tier: int, options: SessionOptions, identity: str) -> None:
        self._folder, self._tier, self._options, self._identity = Path(folder), tier, options, identity
        self._stage: Stage | None = None

    def warm_up(self) -> tuple[None, tuple[str, int] | None]:
        """Opens the plan's slice and runs it once."""
        try:
            routes = Routes(load_manifest(self._folder))
            if routes.identity != self._identity:
                raise InputError(f"`{self._folder}` has other slices on the node of a replica")
            self._stage = Stage(self._folder, routes, self._tier, self._options)
            self._stage.warm_up()
        except DnnsplitError as error:
            return None, _error(error)
        return None, None

    def open(self, nodes: Range) -> tuple[None, tuple[str, int] | None]:
        """Opens a slice."""
        try:
            self._ready().open(self._leg(nodes))
        except DnnsplitError as error:
            return None, _error(error)
        return None, None

    def run(self, nodes: Range, values: Values) -> tuple[tuple[Arrays, float] | None, tuple[str, int] | None]:
        """Runs a slice."""
        from dnnsplit_onnx.serving.tier.engine import Times

        times = Times()
        try:
            made = self._ready().run(self._leg(nodes), values, Deadline(_HOUR_S), times)
        except DnnsplitError as error:
            return None, _error(error)
        return (made, times.compute_s), None

    def _ready(self) -> Stage:
        if self._stage is None:
            raise ServingError("the replica has not warmed up", status=503)
        return self._stage

    def _leg(self, nodes: Range) -> Leg:
        stage = self._ready()
        for record in stage.routes.ranges(self._tier):
            if (record.start, record.stop) == nodes:
                return Leg(self._tier, stage.name, record, (), (), (), goes_on=False)
        raise ServingError(f"the replica has no slice of nodes {nodes[0]} to {nodes[1]}", status=404)


def _is_on_gpu(routes: Routes, tier: int, options: SessionOptions) -> bool:
    record = routes.default.legs[tier].record
    return record is not None and options_on(options, record).provider == "cuda"


def _error(error: DnnsplitError) -> tuple[str, int]:
    return error.message, error.status if isinstance(error, ServingError) else 500


def _ray(*, is_own: bool) -> ModuleType:
    """The module `ray`, which reads these settings when it is first imported.

    Raises:
        MissingExtraError: It is not installed.
    """
    # Ray reports on its use to its makers unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if is_own:
        os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
    try:
        return import_module("ray")
    except ImportError:
        raise MissingExtraError("Ray is not installed", hint=INSTALL) from None


def _connect(ray: ModuleType, address: str | None) -> None:
    """Joins a cluster, or starts one on this machine.

    Raises:
        InputError: There is none at this address.
        ServingError: None could be started.
    """
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    if address is None:
        settings |= {
            "address": "local",
            "include_dashboard": False,
            "object_store_memory": _STORE_NBYTES,
            "_node_ip_address": "127.0.0.1",
        }
    else:
        _reach(address)
        settings["address"] = address
    try:
        with _own_signals():
            ray.init(**settings)
    except (ConnectionError, ValueError) as error:
        if address is None:
            raise ServingError(f"Ray does not start: {_first_line(error)}") from None
        raise InputError(f"no Ray cluster at `{address}`: {_first_line(error)}") from None
    except (ray.exceptions.RayError, RuntimeError, OSError) as error:
        raise ServingError(f"Ray does not start: {_first_line(error)}") from None


def _reach(address: str) -> None:
    """Finds out soon whether anything is there: Ray itself would try for more than a minute.

    Raises:
        InputError: Nothing listens at `HOST:PORT`. Other forms of addresses are Ray's own.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"no Ray cluster at `{address}`: {error}") from None


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keeps this process's handlers of signals: Ray sets one that ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
