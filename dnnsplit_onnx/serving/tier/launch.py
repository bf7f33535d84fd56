"""From a tier's folder to a server of it, and from a folder of slices to a client."""

from __future__ import annotations

import logging
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.runtime.options import TIER, SessionOptions
from dnnsplit_onnx.serving.tier.engine import Engine
from dnnsplit_onnx.serving.tier.remote import Remote
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.tier.service import Service
from dnnsplit_onnx.serving.tier.stage import Stage
from dnnsplit_onnx.serving.tier.tiles import Machines, parse_peers
from dnnsplit_onnx.serving.wire.limits import ServerLimits
from dnnsplit_onnx.serving.wire.origins import origins_of
from dnnsplit_onnx.serving.wire.pool import Target
from dnnsplit_onnx.serving.wire.security import (
    TlsFiles,
    check_exposure,
    is_loopback,
    read_token,
    server_context,
)
from dnnsplit_onnx.serving.wire.server import Server
from dnnsplit_onnx.serving.wire.site import Site
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.slicing.manifest import FILE_NAME, load_manifest

if TYPE_CHECKING:
    from dnnsplit_onnx.serving.tier.grpc_server import GrpcServer

_log = logging.getLogger(__name__)

_LOOK_S = 0.2

#: The port that tiers serve on by default.
PORT = 8000


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """How to serve a tier.

    Attributes:
        host, port: Where to listen; port 0 is any free one.
        next_url: The next tier; None if this is the last, or stands alone.
        session: How to run the slices.
        workers: How many requests compute at a time in this process.
        engine: `process` computes in this process, `ray` on replicas.
        replicas: How many replicas, each of which computes one request at a time.
        ray_address: Of a Ray cluster that runs; None starts one for this server alone.
        grpc_port: Where to listen for gRPC as well; port 0 is any free one, None none.
        token_file: The token that clients must show, and that is shown to the next tier.
        tls: What is shown to clients, and who may sign what they show. The same files are
            used towards the next tier.
        insecure: Whether TLS and a token may be left out beyond loopback.
        limits: What is too much.
        allow_origins: Pages of browsers that may use the server, by their origin.
        site: A folder that `export web` wrote, whose files are handed out; None for none.
        machine: Which of the tier's machines this is; None for the first, or for the only one.
        peers: The tier's other machines, each as `NAME=URL`, if this is the first.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    next_url: str | None = None
    session: SessionOptions = field(default_factory=lambda: SessionOptions(provider=TIER))
    workers: int = 1
    engine: str = "process"
    replicas: int = 1
    ray_address: str | None = None
    grpc_port: int | None = None
    token_file: Path | None = None
    tls: TlsFiles = field(default_factory=TlsFiles)
    insecure: bool = False
    limits: ServerLimits = field(default_factory=ServerLimits)
    allow_origins: tuple[str, ...] = ()
    site: Path | None = None
    machine: str | None = None
    peers: tuple[str, ...] = ()


def find_tier(path: Path) -> tuple[Path, str]:
    """The folder of slices and the tier's name, from `DIR/TIER`.

    A tier without work has no folder of its own; its path is taken all the same.

    Raises:
        InputError: There is no manifest beside the tier.
    """
    absolute = path.absolute()
    if not (absolute.parent / FILE_NAME).is_file():
        hint = "name a tier: DIR/TIER, DIR being a folder that `split` made"
        if (absolute / FILE_NAME).is_file():
            tiers = [record.tier for record in load_manifest(absolute).slices]
            hint = f"name a tier: {', '.join(f'{path}/{tier}' for tier in tiers)}"
        raise InputError(f"`{path}` is no tier: there is no {FILE_NAME} beside it", hint=hint)
    return absolute.parent, absolute.name


def open_server(path: Path, options: ServeOptions) -> Server[Service]:
    """A server of a tier that listens, and has not begun to accept.

    Raises:
        InputError: There is no such tier, or it would be open to anyone.
        ManifestError: The folder is not one of slices.
    """
    folder, name = find_tier(path)
    routes = Routes(load_manifest(folder))
    if name not in routes.tiers:
        raise InputError(f"no tier is named `{name}`", hint=f"the tiers are {', '.join(routes.tiers)}")
    tier = routes.tiers.index(name)
    token, tls = read_token(options.token_file), server_context(options.tls)
    check_exposure(options.host, tls, token, insecure=options.insecure)
    remote = None
    if options.next_url is not None:
        if tier + 1 == len(routes.tiers):
            raise InputError(f"tier `{name}` is the last: nothing comes after it", hint="leave out --next")
        remote = Remote(Target(options.next_url, token, options.tls), routes, tier + 1)
    elif routes.default.legs[tier].goes_on:
        _log.warning("tier `%s` stands alone: without --next it answers with what its slice makes", name)
    site = _site(options.site, routes)
    origins = origins_of(
        options.allow_origins,
        host=options.host,
        has_pages=site is not None,
        has_tls=tls is not None,
        has_token=token is not None,
        is_local=is_loopback(options.host),
    )
    stage = _engine(folder, routes, tier, options)
    service = Service(stage, remote, options.limits, token, origins=origins, site=site)
    return Server(service, options.host, options.port, tls)


def _site(folder: Path | None, routes: Routes) -> Site | None:
    """The files for browsers.

    Raises:
        InputError: They are none, or were exported from other slices.
    """
    site = None if folder is None else Site(folder)
    if site is not None and site.identity != routes.identity:
        raise InputError(
            f"the site `{folder}` was exported from other slices",
            hint="export it again: dnnsplit-onnx export web DIR -o SITE --force",
        )
    return site


def _engine(folder: Path, routes: Routes, tier: int, options: ServeOptions) -> Engine:
    if options.engine != "ray":
        stage = Stage(
            folder,
            routes,
            tier,
            options.session,
            workers=options.workers,
            states_nbytes=options.limits.states_nbytes,
        )
        if not options.peers and options.machine is None:
            return stage
        token = read_token(options.token_file)
        peers = parse_peers(options.peers)
        targets = {name: Target(url, token, options.tls) for name, url in peers.items()}
        return Machines(stage, targets, options.machine)
    if options.peers or options.machine is not None:
        raise InputError("machines that share rows are no replicas", hint="leave out --engine ray")
    from dnnsplit_onnx.serving.tier.ray_engine import ray_engine

    return ray_engine(
        folder,
        routes,
        tier,
        options.session,
        count=options.replicas,
        address=options.ray_address,
        run_s=options.limits.request_s,
    )


def open_grpc(service: Service, options: ServeOptions) -> GrpcServer | None:
    """A server of the same tier over gRPC, if one is asked for.

    Raises:
        MissingExtraError: `grpcio` is not installed.
        InputError: The address cannot be listened on.
    """
    if options.grpc_port is None:
        return None
    from dnnsplit_onnx.serving.tier.grpc_server import GrpcServer

    return GrpcServer(service, options.host, options.grpc_port, options.tls)


def serve_until_stopped(
    server: Server[Service],
    grpc: GrpcServer | None = None,
    *,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serves until the process is told to stop (SIGTERM or SIGINT), then finishes what is under way.

    Args:
        server: It is closed in the end.
        grpc: The same over gRPC, which is closed first.
        ready: Called when the slice has run.

    Raises:
        DnnsplitError: The slice cannot be opened.
    """
    # Health is answered while the slice is being opened.
    with until_told() as stop, server, grpc or nullcontext():
        server.service.stage.warm_up()
        ready()
        stop.wait()


class _Told(threading.Event):
    """An event that a handler of signals sets.

    A signal may reach another thread than the main one, after SIGCONT for one, and does not wake
    this one up then, which alone runs handlers: so it looks up from time to time.
    """

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it is set, or so many seconds."""
        deadline = Deadline(math.inf if timeout is None else timeout)
        while not super().wait(min(_LOOK_S, max(0.0, deadline.remaining_s))):
            if deadline.remaining_s <= 0:
                return False
        return True


@contextmanager
def until_told(*, insist: bool = False) -> Iterator[threading.Event]:
    """Yields what is set when the process is told to stop (SIGTERM or SIGINT).

    Args:
        insist: Whether telling it a second time does what it did before.
    """
    stop = _Told()
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stopped(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        if insist:
            restore()

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, stopped)
    try:
        yield stop
    finally:
        restore()
