"""One call that writes the page about a folder of slices: `report`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dnnsplit_onnx.files import already_exists, written_whole
from dnnsplit_onnx.machines.tiers_file import topology_of
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.planning.fitting import analysis_of
from dnnsplit_onnx.reporting.page import gather, render
from dnnsplit_onnx.reporting.page.measured import load_bench
from dnnsplit_onnx.reporting.pdf import browser, pdf_of
from dnnsplit_onnx.running.origin import bindings_of, find_model, slices_folder
from dnnsplit_onnx.slicing.manifest import load_manifest
from dnnsplit_onnx.slicing.records import recorded_plan
from dnnsplit_onnx.work.analysing import analyse
from dnnsplit_onnx.work.analysis import CUSTOM


def report(
    folder: str | Path,
    output: str | Path,
    *,
    model: str | Path | None = None,
    topology: Topology | str | Path | None = None,
    bench: str | Path | None = None,
    sample_input: Mapping[str, Any] | str | Path | None = None,
    trips: Mapping[str, int] | None = None,
    force: bool = False,
) -> None:
    """Writes one HTML page about a folder of slices, which needs no network.

    Args:
        folder: The folder of slices.
        output: The page to write; printed by Chromium where its name ends in `.pdf`.
        model: Where the whole model is now, if it was moved.
        topology: The tiers, where the plan does not hold them.
        bench: What `bench --json` printed, to compare.
        sample_input: As `split` was given it.
        trips: As `split` was given it.
        force: Whether to replace a page.

    Raises:
        InputError: A PDF is asked for, and no Chromium is here to print it.
        ManifestError: The folder is not one of slices, or the model is not there or another one.
        PlanError: The plan's order is none of this model's nodes.
        OutputError: The page exists, or cannot be written.
    """
    output = Path(output)
    place, manifest = slices_folder(folder), load_manifest(folder)
    if output.exists() and not force:
        raise already_exists(output)  # better known before the work than after it
    is_pdf = output.suffix.lower() == ".pdf"
    if is_pdf:
        browser()
    plan = recorded_plan(manifest)
    machines = topology or plan.topology
    tiers = [stage.tier for stage in plan.figures.stages]
    measured = None if bench is None else load_bench(Path(bench), tiers)
    analysis = analyse(
        find_model(place, manifest, model),
        bindings_of(manifest),
        order="file" if plan.order == CUSTOM else plan.order,
        states=manifest.state_pairs,
        trips=trips or plan.trips,
        sample_input=sample_input,
    )
    facts = gather(
        manifest,
        plan,
        analysis_of(plan, analysis),
        None if machines is None else topology_of(machines),
        measured,
    )
    page = render(facts)
    with written_whole(output, force=force) as file:
        file.write(pdf_of(page) if is_pdf else page.encode())
