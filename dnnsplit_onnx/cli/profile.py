"""`profile`: what this machine takes for a model, and what a link carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dnnsplit_onnx.cli.options import (
    Bind,
    CustomOps,
    Force,
    Format,
    ModelOptions,
    NodeOrder,
    Provider,
    Reporting,
    takes,
)
from dnnsplit_onnx.errors import InputError

if TYPE_CHECKING:
    from dnnsplit_onnx.machines.inputs import InputCode
    from dnnsplit_onnx.machines.profiles import Profile
    from dnnsplit_onnx.machines.topology import Workload
    from dnnsplit_onnx.runtime.sessions import SessionOptions

_HOW = (
    "profile MODEL --tier NAME -o FILE; --predict MODEL three times or more; "
    "or --listen PORT on one machine and --link HOST:PORT on the other"
)


@dataclass(frozen=True, kw_only=True)
class ProfileOptions(Reporting):
    """What is measured, and how."""

    custom_ops: CustomOps = None
    tier: Annotated[
        str | None,
        typer.Option("--tier", metavar="NAME", help="The tier that this machine is.", show_default=False),
    ] = None
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the profile here.", show_default=False),
    ] = None
    tiers: Annotated[
        Path | None,
        typer.Option(
            "--tiers",
            metavar="T.toml",
            help="Read the tier's provider from this tiers file.",
            show_default=False,
        ),
    ] = None
    provider: Provider = None
    threads: Annotated[
        int | None,
        typer.Option("--threads", metavar="N", min=1, help="Threads within an operator.", show_default=False),
    ] = None
    runs: Annotated[
        int | None,
        typer.Option(
            "--runs",
            metavar="N",
            min=2,
            help="How many runs. [default: as many as take ten seconds]",
            show_default=False,
        ),
    ] = None
    per_node: Annotated[
        bool, typer.Option("--per-node", help="Time each node too, through the runtime's fusions.")
    ] = False
    codes: Annotated[
        bool,
        typer.Option("--codes", help="Write what crosses each candidate cut in every code too, and pack it."),
    ] = False
    samples: Annotated[
        Path | None,
        typer.Option(
            "--samples",
            metavar="X.npz",
            help="Inputs for --codes, several along the first axis. [default: those of --input]",
            show_default=False,
        ),
    ] = None
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--input",
            metavar="X.npz",
            help="The inputs to run on. [default: random inputs]",
            show_default=False,
        ),
    ] = None
    predict: Annotated[
        list[str] | None,
        typer.Option(
            "--predict",
            metavar="MODEL",
            help="Fit a predictor for any model on this one and others; repeat it, three times at least.",
            show_default=False,
        ),
    ] = None
    prompt_tokens: Annotated[
        int | None,
        typer.Option(
            "--prompt-tokens",
            metavar="N",
            help="Measure a pass over a prompt of so many tokens, and a step after it. "
            "[default: as [workload] of --tiers says]",
            show_default=False,
        ),
    ] = None
    new_tokens: Annotated[
        int | None,
        typer.Option("--new-tokens", metavar="N", help="Tokens made of a prompt.", show_default=False),
    ] = None
    bind: Bind = None
    order: NodeOrder = "envelope"
    force: Force = False
    link: Annotated[
        str | None,
        typer.Option(
            "--link", metavar="HOST:PORT", help="Measure the link to a listening peer.", show_default=False
        ),
    ] = None
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="[HOST:]PORT",
            help="Listen as the peer of --link, until Ctrl-C.",
            show_default=False,
        ),
    ] = None


@takes(ProfileOptions)
def profile(
    options: ProfileOptions,
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="An ONNX file, or `zoo:NAME`.", show_default=False),
    ] = None,
    form: Format = "table",
) -> None:
    """Measure a model on this machine, or a link to another.

    Times the segments between candidate cuts with all optimisations on. The file takes the
    place of `gflops` in the tiers file: profile = "edge.json". With --predict, times each node of
    several models and fits how long a node of each kind takes: a file for any model.

    Example: dnnsplit-onnx profile model.onnx --tier edge -o edge.json
    """
    wanted = (model, options.link, options.listen, options.predict or None)
    if sum(what is not None for what in wanted) != 1:
        raise InputError("nothing to measure, or more than one thing", hint=_HOW)
    if options.listen is not None:
        _listen(options.listen)
    elif options.link is not None:
        _measure_link(options.link, options, form)
    elif options.predict:
        _fit_predictor(options.predict, options, form)
    else:
        _measure_model(model or "", options, form)


def _tier_and_output(options: ProfileOptions) -> tuple[str, Path]:
    from dnnsplit_onnx.files import already_exists

    output = options.output
    if options.samples is not None and not options.codes:
        raise InputError("`--samples` are for `--codes`", hint="add --codes, or leave out --samples")
    if options.tier is None or output is None:
        missing = "--tier NAME" if options.tier is None else "-o FILE"
        raise InputError(f"missing option `{missing}`", hint=_HOW)
    if output.exists() and not options.force:
        raise already_exists(output)  # better known before the measurement than after it
    return options.tier, output


def _fit_predictor(models: list[str], options: ProfileOptions, form: str) -> None:
    from dnnsplit_onnx.cli.loading import load_analysis
    from dnnsplit_onnx.cli.output import print_as
    from dnnsplit_onnx.measuring.profiling.predicting import fit_predictor
    from dnnsplit_onnx.reporting.predictor_view import show_predictor
    from dnnsplit_onnx.reporting.progress import progress

    tier, output = _tier_and_output(options)
    settings = _session_options(tier, options)
    analyses = [
        load_analysis(model, ModelOptions(bind=options.bind, order=options.order)) for model in models
    ]
    with progress("measuring") as update:
        found = fit_predictor(analyses, tier, options=settings, runs=options.runs, progress=update)
    found.save(output, force=options.force)
    if not print_as(form, found, json=options.json):
        show_predictor(found, output)


def _measure_model(model: str, options: ProfileOptions, form: str) -> None:
    from dnnsplit_onnx.files import written_whole

    tier, output = _tier_and_output(options)
    found = _measured(model, tier, options)
    with written_whole(output, force=options.force) as file:
        file.write(found.to_json().encode())
    from dnnsplit_onnx.cli.output import Rows, print_as

    rows = [segment.model_dump(mode="json") for segment in found.segments]
    if print_as(form, Rows(rows, found.model_dump(mode="json")), json=options.json):
        return
    _show(found, output)


def _measured(model: str, tier: str, options: ProfileOptions) -> Profile:
    from dnnsplit_onnx.cli.loading import load_analysis
    from dnnsplit_onnx.measuring.profiling.whole import profile as measured
    from dnnsplit_onnx.reporting.progress import progress

    settings = _session_options(tier, options)
    analysis = load_analysis(
        model, ModelOptions(bind=options.bind, order=options.order), _pictures(options.tiers)
    )
    with progress("measuring") as update:
        return measured(
            analysis,
            tier,
            options=settings,
            inputs=options.inputs,
            runs=options.runs,
            per_node=options.per_node,
            codes=options.codes,
            samples=options.samples,
            workload=_workload(options),
            progress=update,
        )


def _pictures(tiers: Path | None) -> Mapping[str, InputCode]:
    """What the tiers file says of inputs that are pictures."""
    if tiers is None:
        return {}
    from dnnsplit_onnx.machines.tiers_file import load_topology

    return load_topology(tiers).input


def _workload(options: ProfileOptions) -> Workload | None:
    """What a tiers file, or the options, say of texts."""
    from dnnsplit_onnx.machines.tiers_file import load_topology
    from dnnsplit_onnx.machines.topology import Workload

    given = {name: getattr(options, name) for name in ("prompt_tokens", "new_tokens")}
    given = {name: number for name, number in given.items() if number is not None}
    workload = Workload() if options.tiers is None else load_topology(options.tiers).workload
    return workload.changed(**given) if given else workload


def _session_options(tier: str, options: ProfileOptions) -> SessionOptions:
    from dnnsplit_onnx.runtime.sessions import SessionOptions

    provider, libraries = options.provider, tuple[str, ...]()
    given: dict[str, str | bool | int | float] = {}
    if options.tiers is not None:
        from dnnsplit_onnx.machines.tiers_file import load_topology
        from dnnsplit_onnx.runtime.custom_ops import custom_ops, needed

        topology = load_topology(options.tiers)
        named = next((t for t in topology.tiers if t.name == tier), None)
        if named is None:
            raise InputError(
                f"no tier `{tier}` in `{options.tiers}`", hint=f"it has {', '.join(topology.names)}"
            )
        if provider is None and named.provider == "web":
            raise InputError(
                f"tier `{named.name}` is a browser, which measures itself",
                hint="write its page, and press its button: dnnsplit-onnx export web DIR -o SITE",
            )
        if provider is None and named.provider != "web":
            provider = named.provider
            given = dict(named.provider_options)
        libraries = needed(named.custom_ops, named.name)
        custom_ops(*libraries)  # the whole is run too, to size it
    return SessionOptions(
        provider=provider or "cpu",
        threads=options.threads,
        custom_ops=libraries,
        provider_options=given,
    )


def _show(found: Profile, output: Path) -> None:
    from dnnsplit_onnx.reporting import units
    from dnnsplit_onnx.reporting.console import grid, stdout_console

    console = stdout_console()
    table = grid("=segment", ">nodes", ">median", ">spread", ">share")
    total = sum(segment.seconds for segment in found.segments)
    for segment in found.segments:
        table.add_row(
            f"{segment.start} to {segment.stop}",
            str(segment.stop - segment.start),
            units.seconds(segment.seconds),
            units.seconds(segment.spread_s),
            units.percent(segment.seconds, total),
        )
    console.print(table)
    console.print(
        f"All segments {units.seconds(total)}, the whole model {units.seconds(found.whole_s)}, a run of "
        f"nothing {units.seconds(found.overhead_s)} ({found.provider}, {found.segments[0].runs} runs)."
    )
    if found.speeds is not None:
        fast, slow = units.seconds(found.speeds.fast_s), units.seconds(found.speeds.slow_s)
        share = units.percent(found.speeds.slow_share, 1)
        console.print(
            f"This machine has two speeds, as a loop without memory shows: the whole takes {fast} or {slow}, "
            f"the slower in {share} of the runs. Seconds are means of both."
        )
    for phase in found.phases:
        sizes = ", ".join(f"{name}={size}" for name, size in phase.bindings.items())
        console.print(f"With {sizes}, the whole model {units.seconds(phase.whole_s)}.")
    for part in found.parts:
        both = f"{units.seconds(part.below_s)} below, {units.seconds(part.above_s)} above"
        console.print(f"Cut at {part.position}: {both}, each run by itself ({part.runs} runs).")
    if found.codes:
        _show_codes(found)
    console.print(f"wrote {output}", soft_wrap=True)
    console.print(
        f'next: in the tiers file, tier `{found.tier}`: profile = "{output.name}"',
        style="dim",
        soft_wrap=True,
    )


def _show_codes(found: Profile) -> None:
    from dnnsplit_onnx.reporting import units
    from dnnsplit_onnx.reporting.console import grid, stdout_console

    raw = {one.value: one.nbytes for one in found.codes if one.code == "raw"}
    table = grid(
        "=value",
        "code",
        ">size",
        ">packed",
        ">times smaller",
        ">error",
        ">write",
        ">read",
        ">pack",
        ">unpack",
    )
    for one in found.codes:
        least = one.nbytes if one.packed_nbytes is None else min(one.nbytes, one.packed_nbytes)
        table.add_row(
            one.value,
            one.code,
            units.nbytes(one.nbytes),
            "" if one.packed_nbytes is None else units.nbytes(one.packed_nbytes),
            f"{raw[one.value] / least:.2f}" if least else "",
            "" if one.error is None else f"{one.error:.2g}",
            *(units.seconds(seconds) for seconds in (one.encode_s, one.decode_s, one.pack_s, one.unpack_s)),
        )
    stdout_console().print(table)


def _measure_link(where: str, options: Reporting, form: str) -> None:
    from dnnsplit_onnx.cli.output import Rows, print_as
    from dnnsplit_onnx.measuring.profiling.link import measure_link

    host, port = _address(where, "--link")
    found = measure_link(host or "127.0.0.1", port)
    if print_as(form, Rows([found.to_dict()], found.to_dict()), json=options.json):
        return
    typer.echo("[[link]]")
    typer.echo(f"bandwidth_mbps = {found.bandwidth_mbps:.4g}")
    typer.echo(f"down_mbps = {found.down_mbps:.4g}")
    typer.echo(f"delay_ms = {found.delay_ms:.4g}")


def _listen(where: str) -> None:
    from dnnsplit_onnx.measuring.profiling.link import LinkPeer

    host, port = _address(where, "--listen")
    peer = LinkPeer(host or "127.0.0.1", port)
    typer.echo(f"listening on {host or '127.0.0.1'}:{peer.port}; stop with Ctrl-C", err=True)
    try:
        peer.serve()
    finally:
        peer.close()


def _address(text: str, option: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise InputError(f"cannot read `{option} {text}`", hint="write HOST:PORT, such as 192.0.2.7:7000")
    return host.strip("[]"), int(port)
