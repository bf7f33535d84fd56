"""`up`: every tier on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from dnnsplit_onnx.cli.options import CustomOps, Folder, Reporting, TierProvider, takes
from dnnsplit_onnx.errors import RequestError


@takes(Reporting)
def up(
    folder: Folder,
    options: Reporting,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            metavar="N",
            min=1,
            help="Threads of each tier. [default: all cores]",
            show_default=False,
        ),
    ] = None,
    provider: TierProvider = None,
    custom_ops: CustomOps = None,
) -> None:
    """Serve every tier of a folder on this machine, for trying things out.

    Starts a process for each tier above the edge, chained on loopback, and keeps them until
    Ctrl-C or SIGTERM. The edge is the client: `run DIR --url URL` in another terminal.

    Example: dnnsplit-onnx up slices
    """
    from dnnsplit_onnx.serving.deploy.local import LocalTiers
    from dnnsplit_onnx.serving.tier.launch import until_told

    words = [] if threads is None else ["--threads", str(threads)]
    words += [] if provider is None else ["--provider", provider]
    words += [word for library in custom_ops or () for word in ("--custom-ops", library)]
    with until_told() as stop, LocalTiers(folder, words) as tiers:
        _say(tiers.url, str(folder), provider, json=options.json)
        if not tiers.tiers:
            return
        ended = tiers.wait(stop)
        if ended is None:
            return
        raise RequestError(f"tier `{ended.name}` ended by itself", hint="its errors are above")


def _say(url: str | None, folder: str, provider: str | None, *, json: bool) -> None:
    import sys
    from json import dumps

    from dnnsplit_onnx.cli.output import next_command

    words = ["run", folder, *(("--url", url) if url else ())]
    words += ["--provider", provider] if provider else []
    line = dumps({"url": url}) if json else next_command(*words)
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
