"""`run`: requests through the chain, from the edge."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dnnsplit_onnx.cli.options import Folder, Format, takes
from dnnsplit_onnx.cli.serving_options import NetworkOptions, log_to_stderr
from dnnsplit_onnx.errors import InputError, RequestError

if TYPE_CHECKING:
    from dnnsplit_onnx.serving.edge.edge import Edge
    from dnnsplit_onnx.serving.edge.here import Here
    from dnnsplit_onnx.serving.edge.running import Report


@takes(NetworkOptions)
def run(
    folder: Folder,
    options: NetworkOptions,
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--input",
            metavar="X.npz",
            help="The inputs, or a picture, or a folder of pictures. [default: random inputs]",
            show_default=False,
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            help="The next tier's address. [default: run the slices of all tiers in this process]",
            show_default=False,
        ),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            "--peer",
            metavar="NAME=URL",
            help="Another machine of the edge, which computes its rows; its `serve` runs at URL. Repeatable.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="Y.npz", help="Write the outputs here.", show_default=False),
    ] = None,
    runs: Annotated[
        int,
        typer.Option("--runs", metavar="N", min=0, help="How many requests; 0 goes on until Ctrl-C."),
    ] = 1,
    concurrency: Annotated[
        int, typer.Option("--concurrency", metavar="N", min=1, help="Requests under way at a time.")
    ] = 1,
    deadline_ms: Annotated[
        float, typer.Option("--deadline-ms", metavar="MS", min=1, help="How long a request may take.")
    ] = 30_000.0,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="Move the cuts as links and tiers change; needs --tiers.")
    ] = False,
    tiers: Annotated[
        Path | None,
        typer.Option("--tiers", metavar="T.toml", help="The tiers, for --adaptive.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="Where the whole model is now.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is at --output.")] = False,
    dashboard: Annotated[
        str | None,
        typer.Option(
            "--dashboard",
            metavar="[HOST:]PORT",
            help="Serve a page on loopback that shows tiers, cuts, links and requests; port 0 is any free.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the dashboard after the last request, until Ctrl-C.")
    ] = False,
    form: Format = "table",
) -> None:
    """Run requests through the chain of tiers.

    The edge's slice runs in this process; what crosses the cut goes to --url. Without it the
    slices of all tiers run in this process. If a link or a tier is down, requests run on the
    best cuts that remain, or fail with an error. With `--dashboard` a browser shows what
    happens while it does.

    Example: dnnsplit-onnx run slices --input x.npz --url http://near:8000 -o y.npz
    """
    from dnnsplit_onnx.serving.edge.running import run_requests

    log_to_stderr()
    _check(adaptive=adaptive, tiers=tiers, keep=keep, dashboard=dashboard)
    with ExitStack() as stack:
        stop = _until_told(stack) if keep or runs == 0 else None
        client: Edge | Here
        if url is None and not (peer or adaptive or dashboard):
            from dnnsplit_onnx.serving.edge.here import Here

            client = Here(folder, options.session, deadline_s=deadline_ms / 1e3)
        else:
            client = edge = stack.enter_context(
                _open(folder, url, peer or (), options, deadline_ms / 1e3, tiers if adaptive else None, model)
            )
            if dashboard is not None:
                _serve_page(stack, edge, dashboard)
            edge.open()
        report = run_requests(client, inputs, runs=runs or None, concurrency=concurrency, stop=stop)
        if output is not None and report.outputs is not None:
            _save(output, report.outputs, force=force)
        _show(report, form, json=options.json)
        if stop is not None and keep:
            stop.wait()
    if report.failed:
        raise RequestError(f"{report.failed} of {report.requests} requests failed: {report.errors[0]}")


def _check(*, adaptive: bool, tiers: Path | None, keep: bool, dashboard: str | None) -> None:
    if adaptive and tiers is None:
        raise InputError(
            "`--adaptive` needs the tiers", hint="pass --tiers, the file that the plan was made with"
        )
    if keep and dashboard is None:
        raise InputError("`--keep` keeps a dashboard, and there is none", hint="pass --dashboard PORT")


def _until_told(stack: ExitStack) -> Event:
    """Ctrl-C ends the requests, not the program: it still says what came of them."""
    from dnnsplit_onnx.serving.tier.launch import until_told

    return stack.enter_context(until_told(insist=True))


def _serve_page(stack: ExitStack, edge: Edge, address: str) -> None:
    from dnnsplit_onnx.serving.dashboard.page import open_dashboard

    server = stack.enter_context(open_dashboard(edge, address))
    sys.stderr.write(f"dashboard at {server.url}/\n")


def _open(
    folder: Path,
    url: str | None,
    peer: Sequence[str],
    options: NetworkOptions,
    deadline_s: float,
    tiers: Path | None,
    model: str | None,
) -> Edge:
    from dnnsplit_onnx.serving.edge.edge import Edge
    from dnnsplit_onnx.serving.tier.tiles import parse_peers
    from dnnsplit_onnx.serving.wire.pool import Target
    from dnnsplit_onnx.serving.wire.security import read_token

    token = read_token(options.token_file)
    target = None if url is None else Target(url, token, options.tls)
    peers = {name: Target(at, token, options.tls) for name, at in parse_peers(peer).items()}
    if tiers is None:
        return Edge(folder, target, options=options.session, deadline_s=deadline_s, peers=peers)
    from dnnsplit_onnx.cli.loading import model_file
    from dnnsplit_onnx.serving.edge.adaptive import adaptive_edge

    whole = None if model is None else model_file(model)
    return adaptive_edge(
        folder, target, tiers, whole, options=options.session, deadline_s=deadline_s, peers=peers
    )


def _save(path: Path, outputs: dict[str, Any], *, force: bool) -> None:
    import numpy as np

    from dnnsplit_onnx.files import written_whole

    present = {name: array for name, array in outputs.items() if array is not None}
    for name, array in present.items():
        if not isinstance(array, np.ndarray):
            raise InputError(f"output `{name}` is no tensor, and `--output` holds tensors alone")
    with written_whole(path, force=force) as file:
        np.savez(file, **present)


def _show(report: Report, form: str, *, json: bool) -> None:
    from dnnsplit_onnx.cli.output import print_as

    if print_as(form, report, json=json):
        return
    from dnnsplit_onnx.cli.serving_view import print_report
    from dnnsplit_onnx.reporting.console import stdout_console

    print_report(stdout_console(), report.to_dict())
    sys.stdout.flush()  # with `--keep`, this goes on
