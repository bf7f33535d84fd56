"""`bench`: how fast the slices are on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dnnsplit_onnx.cli.options import CudaGraph, CustomOps, Folder, Format, Reporting, TierProvider, takes


@takes(Reporting)
def bench(
    folder: Folder,
    options: Reporting,
    tier: Annotated[
        str | None,
        typer.Option("--tier", metavar="NAME", help="Measure this tier's slice alone.", show_default=False),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--input",
            metavar="X.npz",
            help="The inputs to run on: the model's, or with --tier its slice's. [default: random inputs]",
            show_default=False,
        ),
    ] = None,
    provider: TierProvider = None,
    cuda_graph: CudaGraph = False,
    custom_ops: CustomOps = None,  # noqa: ARG001 # its callback registers them
    runs: Annotated[
        int | None,
        typer.Option(
            "--runs",
            metavar="N",
            min=1,
            help="How many runs. [default: as many as take ten seconds]",
            show_default=False,
        ),
    ] = None,
    form: Format = "table",
) -> None:
    """Measure each slice, the chain of them, and the whole model; of shared rows, each tile.

    Everything runs on this machine, without links between the tiers. Where a tier is planned
    for CUDA and this machine has none, say --provider cpu.

    Example: dnnsplit-onnx bench slices --tier edge --runs 200
    """
    from dnnsplit_onnx.cli.output import print_as
    from dnnsplit_onnx.measuring.benchmark import bench
    from dnnsplit_onnx.reporting.progress import progress

    with progress("measuring") as update:
        report = bench(
            folder,
            tier=tier,
            provider=provider,
            cuda_graph=cuda_graph,
            runs=runs,
            inputs=inputs,
            progress=update,
        )
    if print_as(form, report, json=options.json):
        return
    from dnnsplit_onnx.reporting.console import stdout_console
    from dnnsplit_onnx.reporting.proof_view import print_bench

    print_bench(stdout_console(), report.to_dict())
