"""`report`: one page that shows what was cut, why, and how to make it again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dnnsplit_onnx.cli.options import Common, Folder, Force, takes

if TYPE_CHECKING:
    from dnnsplit_onnx.machines.topology import Topology
    from dnnsplit_onnx.planning.plans import Plan
    from dnnsplit_onnx.slicing.manifest import Manifest
    from dnnsplit_onnx.work.analysis import Analysis


@takes(Common)
def report(
    folder: Folder,
    options: Common,  # noqa: ARG001
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.html", help="The page to write.")
    ] = Path("report.html"),
    force: Force = False,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="Where the whole model is now.", show_default=False),
    ] = None,
    tiers: Annotated[
        Path | None,
        typer.Option(
            "--tiers",
            metavar="T.toml",
            help="The tiers, where the plan does not hold them.",
            show_default=False,
        ),
    ] = None,
    bench: Annotated[
        Path | None,
        typer.Option(
            "--bench",
            metavar="bench.json",
            help="What `bench --json` printed, to compare.",
            show_default=False,
        ),
    ] = None,
    sample_input: Annotated[
        Path | None,
        typer.Option("--sample-input", metavar="X.npz", help="As `split` was given it.", show_default=False),
    ] = None,
    trips: Annotated[
        list[str] | None,
        typer.Option(
            "--trips", metavar="NAME=N", help="As `split` was given it. Repeatable.", show_default=False
        ),
    ] = None,
) -> None:
    """Write one HTML page about a folder of slices, to read and to send.

    It needs no network: the verdict, the graph by tier, the cuts there were, trade-offs, what
    changes with a link's bandwidth, the proof, and how to make the slices again.

    Example: dnnsplit-onnx report slices -o report.html --bench bench.json
    """
    from dnnsplit_onnx.files import already_exists, written_whole
    from dnnsplit_onnx.running.origin import slices_folder
    from dnnsplit_onnx.slicing.manifest import load_manifest
    from dnnsplit_onnx.slicing.records import recorded_plan

    place, manifest = slices_folder(folder), load_manifest(folder)
    if output.exists() and not force:
        raise already_exists(output)  # better known before the work than after it
    plan = recorded_plan(manifest)
    topology = _topology(plan, tiers)

    from dnnsplit_onnx.reporting.page import gather, render
    from dnnsplit_onnx.reporting.page.measured import load_bench
    from dnnsplit_onnx.reporting.progress import progress

    measured = None if bench is None else load_bench(bench, [stage.tier for stage in plan.figures.stages])
    analysis = _analysis(place, manifest, plan, model, sample_input, trips)
    with progress("planning again"):
        facts = gather(manifest, plan, analysis, topology, measured)
    page = render(facts)
    with written_whole(output, force=force) as file:
        file.write(page.encode())
    typer.echo(f"wrote {output}")


def _topology(plan: Plan, tiers: Path | None) -> Topology | None:
    """The tiers that are named, or those that the plan holds; None if there are none."""
    from dnnsplit_onnx.machines.topology import load_topology, parse_topology

    if tiers is not None:
        return load_topology(tiers)
    return None if plan.topology is None else parse_topology(dict(plan.topology), "the plan in the manifest")


def _analysis(
    place: Path,
    manifest: Manifest,
    plan: Plan,
    model: str | None,
    sample_input: Path | None,
    trips: list[str] | None,
) -> Analysis:
    """The whole model, its nodes in the order that the plan counts them in.

    Raises:
        ManifestError: The model is not there, or another one.
        PlanError: The plan's order is none of this model's nodes.
    """
    from dnnsplit_onnx.cli.loading import model_file
    from dnnsplit_onnx.cli.options import ModelOptions
    from dnnsplit_onnx.planning.fitting import analysis_of
    from dnnsplit_onnx.running.origin import bindings_of, find_model
    from dnnsplit_onnx.work.analysing import analyse
    from dnnsplit_onnx.work.analysis import CUSTOM

    path = find_model(place, manifest, None if model is None else model_file(model))
    analysis = analyse(
        path,
        bindings_of(manifest),
        order="file" if plan.order == CUSTOM else plan.order,
        states=manifest.state_pairs,
        trips=ModelOptions(trips=trips).trip_counts or plan.trips,
        sample_input=sample_input,
    )
    return analysis_of(plan, analysis)
