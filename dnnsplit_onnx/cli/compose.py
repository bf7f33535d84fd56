"""`compose`: files that run each tier where it belongs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dnnsplit_onnx.cli.options import Folder, Force, Reporting, takes
from dnnsplit_onnx.errors import InputError


@takes(Reporting)
def compose(
    folder: Folder,
    options: Reporting,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="The folder to write to.")
    ] = Path("deploy"),
    cuda: Annotated[
        list[str] | None,
        typer.Option("--cuda", metavar="TIER", help="This tier has a GPU. Repeatable.", show_default=False),
    ] = None,
    force: Force = False,
) -> None:
    """Write a docker-compose file and systemd units, one service for each tier.

    Tiers are served over TLS with certificates and a token; `OUT/secrets.sh` makes them.
    The edge is the client, and runs wherever the data is: `run DIR --url ...`.

    Example: dnnsplit-onnx compose slices -o deploy --cuda cloud
    """
    from dnnsplit_onnx.cli.output import print_json
    from dnnsplit_onnx.serving.deploy.deploy import plan_deployment, write_deployment

    deployment = plan_deployment(folder, dict.fromkeys(cuda or (), "cuda"))
    for tier in cuda or ():
        if tier not in deployment.tiers:
            raise InputError(
                f"no tier is named `{tier}`", hint=f"the tiers are {', '.join(deployment.tiers)}"
            )
    paths = write_deployment(deployment, output, force=force)
    if options.json:
        print_json({"output": str(output), "files": [str(path) for path in paths]})
        return
    sys.stdout.write("".join(f"wrote {path}\n" for path in paths))
    sys.stdout.write(
        f"next: {output / 'secrets.sh'} && docker compose -f {output / 'docker-compose.yml'} up\n"
    )
