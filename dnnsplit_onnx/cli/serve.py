"""`serve`: one tier, over the network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dnnsplit_onnx.cli.options import takes
from dnnsplit_onnx.cli.serving_options import NetworkOptions, log_to_stderr
from dnnsplit_onnx.errors import InputError

if TYPE_CHECKING:
    from dnnsplit_onnx.serving.tier.service import Service
    from dnnsplit_onnx.serving.wire.server import Server

TierFolder = Annotated[
    Path,
    typer.Argument(metavar="DIR/TIER", help="A tier of a folder that `split` made.", show_default=False),
]


@takes(NetworkOptions)
def serve(
    tier: TierFolder,
    options: NetworkOptions,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 for any free one.")
    ] = 8000,
    grpc_port: Annotated[
        int | None,
        typer.Option(
            "--grpc-port",
            min=0,
            max=65535,
            help="Serve over gRPC as well, on this port of the same address (extra `grpc`).",
            show_default=False,
        ),
    ] = None,
    next_url: Annotated[
        str | None,
        typer.Option(
            "--next",
            metavar="URL",
            help="The next tier: `serve`, or any server of the Open Inference Protocol.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=1, help="Requests that compute at a time.")
    ] = 1,
    engine: Annotated[
        Literal["process", "ray"],
        typer.Option(
            "--engine", help="Compute in this process, or on replicas that are Ray actors (extra `ray`)."
        ),
    ] = "process",
    replicas: Annotated[
        int | None,
        typer.Option(
            "--replicas",
            metavar="N",
            min=1,
            help="Replicas of --engine ray, each of which computes one request at a time.",
            show_default=False,
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="ADDRESS",
            help="A Ray cluster of this tier's machines, with DIR at the same path on each; without it "
            "one is started on this machine.",
            show_default=False,
        ),
    ] = None,
    most_requests: Annotated[
        int,
        typer.Option(
            "--max-requests", metavar="N", min=1, help="Requests at a time; 503 at once for others."
        ),
    ] = 16,
    most_body_mb: Annotated[
        float, typer.Option("--max-body-mb", metavar="MB", min=0.001, help="Largest request.")
    ] = 256.0,
    most_states_mb: Annotated[
        float,
        typer.Option(
            "--max-states-mb",
            metavar="MB",
            min=0.001,
            help="Memory for states of sequences; those silent for longest make room.",
        ),
    ] = 1024.0,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Serve beyond loopback without TLS or token.")
    ] = False,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origin",
            metavar="ORIGIN",
            help="Pages of this origin (https://example.org) may use the tier; by default none. Repeatable.",
            show_default=False,
        ),
    ] = None,
    site: Annotated[
        Path | None,
        typer.Option(
            "--site",
            metavar="SITE",
            help="Serve the page that `export web` wrote as well, which may use the tier.",
            show_default=False,
        ),
    ] = None,
    machine: Annotated[
        str | None,
        typer.Option(
            "--machine",
            metavar="NAME",
            help="Which of the tier's machines this is, where they share rows; opens its tiles alone.",
            show_default=False,
        ),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            "--peer",
            metavar="NAME=URL",
            help="Another machine of the tier, which computes its rows; its `serve` runs at URL. Repeatable.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve a tier over HTTP, by the Open Inference Protocol.

    Runs the tier's slice on each request. With `--next`, sends what crosses the cut on to
    the next tier and returns the result on the way back. Health is at /v2/health/live and
    /v2/health/ready, Prometheus metrics at /metrics. Stops on SIGTERM or Ctrl-C, after the
    requests under way are answered.

    Example: dnnsplit-onnx serve slices/near --port 8001 --next http://127.0.0.1:8002
    """
    from dnnsplit_onnx.serving.tier.launch import ServeOptions, open_grpc, open_server, serve_until_stopped
    from dnnsplit_onnx.serving.wire.limits import ServerLimits

    log_to_stderr()
    if engine != "ray" and (replicas or ray_address):
        raise InputError("replicas are for `--engine ray`", hint="pass --engine ray, or leave them out")
    if engine == "ray" and workers != 1:
        raise InputError("`--workers` is for this process", hint="pass --replicas with --engine ray")
    serving = ServeOptions(
        host=host,
        port=port,
        grpc_port=grpc_port,
        next_url=next_url,
        session=options.session,
        workers=workers,
        engine=engine,
        replicas=replicas or 1,
        ray_address=ray_address,
        token_file=options.token_file,
        tls=options.tls,
        insecure=insecure,
        limits=ServerLimits(
            requests=most_requests,
            body_nbytes=int(most_body_mb * 1e6),
            states_nbytes=int(most_states_mb * 1e6),
        ),
        allow_origins=tuple(allow_origin or ()),
        site=site,
        machine=machine,
        peers=tuple(peer or ()),
    )
    server = open_server(tier, serving)
    grpc = open_grpc(server.service, serving)
    port_too = None if grpc is None else grpc.port
    serve_until_stopped(server, grpc, ready=lambda: _say(server, port_too, json=options.json))


def _say(server: Server[Service], grpc_port: int | None, *, json: bool) -> None:
    name, url = server.service.stage.name, server.url
    if not json:
        also = "" if grpc_port is None else f", and over gRPC on port {grpc_port}"
        sys.stderr.write(f"tier `{name}` is ready at {url}{also}\n")
        return
    from json import dumps

    # One line, so that a program can read it while this one goes on.
    also_json = {} if grpc_port is None else {"grpc_port": grpc_port}
    sys.stdout.write(dumps({"tier": name, "url": url, **also_json}) + "\n")
    sys.stdout.flush()
