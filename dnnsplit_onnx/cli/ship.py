"""`ship`: a tier's files to the machine that runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from dnnsplit_onnx.cli.options import Folder, Reporting, takes


@takes(Reporting)
def ship(
    folder: Folder,
    target: Annotated[str, typer.Argument(metavar="HOST:PATH", help="A folder on the tier's machine.")],
    options: Reporting,
    tier: Annotated[
        str, typer.Option("--tier", metavar="NAME", help="The tier whose files go there.", show_default=False)
    ],
    ssh: Annotated[
        str,
        typer.Option("--ssh", metavar="COMMAND", help="How to connect, as in 'ssh -p 2222 -i key'."),
    ] = "ssh",
    bench: Annotated[
        bool,
        typer.Option("--bench", help="Run `bench` there, and write its figures to DIR/NAME.bench.json."),
    ] = False,
    program: Annotated[
        str,
        typer.Option("--program", metavar="PATH", help="What the program is called there, for `--bench`."),
    ] = "dnnsplit-onnx",
) -> None:
    """Send a tier's files to its machine, check them there, and switch over.

    Sends the manifest and the tier's slices, by rsync or sftp; not the model. PATH/current leads
    to them once their checksums are right there, and PATH/previous to what was there before.
    Weights that are there already are not sent again, and an interrupted shipment resumes.

    Example: dnnsplit-onnx ship slices --tier edge pi@camera-1:/opt/tiers
    """
    from dnnsplit_onnx.cli.output import print_json
    from dnnsplit_onnx.reporting import units
    from dnnsplit_onnx.reporting.progress import progress
    from dnnsplit_onnx.serving.deploy.shipping import Target, run_there, ship

    place = Target.parse(target, ssh)
    with progress("shipping"):
        sent = ship(folder, tier, place)
    data = sent.to_dict()
    if bench:
        with progress(f"measuring on {place.host}"):
            command = [program, "bench", f"{place.path}/current", "--tier", tier, "--json"]
            data["bench"] = json.loads(run_there(place, command))
        figures = Path(folder) / f"{tier}.bench.json"
        figures.write_text(json.dumps(data["bench"], indent=2) + "\n", encoding="utf-8")
    if options.json:
        print_json(data)
        return
    what = f"{units.nbytes(sent.sent_nbytes)} sent" if sent.is_new else "it was there already"
    sys.stdout.write(f"{place}/current is version {sent.version} ({what})\n")
    if sent.previous and sent.is_new:
        sys.stdout.write(f"{place}/previous is version {sent.previous}\n")
    if bench:
        from dnnsplit_onnx.reporting.console import stdout_console
        from dnnsplit_onnx.reporting.proof_view import print_bench

        print_bench(stdout_console(), data["bench"])
    sys.stdout.write(f"next, there: dnnsplit-onnx serve {place.path}/current/{tier}\n")
