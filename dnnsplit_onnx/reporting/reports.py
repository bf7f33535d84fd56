"""One call that writes the page about a folder of slices: `report`."""

from __future__ import annotations

from pathlib import Path

from dnnsplit_onnx.errors import ManifestError
from dnnsplit_onnx.files import already_exists, written_whole
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.machines.topology import parse_topology
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.reporting.page import gather, render
from dnnsplit_onnx.reporting.page.measured import load_bench
from dnnsplit_onnx.running.origin import bindings_of, find_model, slices_folder
from dnnsplit_onnx.slicing.manifest import Manifest, load_manifest
from dnnsplit_onnx.work.analysis import Analysis, measure
from dnnsplit_onnx.work.orders import CUSTOM, in_order, in_order_of


def report(
    folder: str | Path,
    output: str | Path,
    *,
    model: str | Path | None = None,
    bench: str | Path | None = None,
    force: bool = False,
) -> None:
    """Writes one HTML page about a folder of slices, which needs no network.

    Args:
        folder: The folder of slices.
        output: The page to write.
        model: Where the whole model is now, if it was moved.
        bench: What `bench --json` printed, to compare.
        force: Whether to replace a page.

    Raises:
        ManifestError: The folder is not one of slices, or the model is another one.
        OutputError: The page exists, or cannot be written.
    """
    output = Path(output)
    if output.exists() and not force:
        raise already_exists(output)  # better known before the work than after it
    place = slices_folder(folder)
    manifest = load_manifest(place)
    plan = Plan.from_dict(manifest.plan)
    topology = None if plan.topology is None else parse_topology(dict(plan.topology), "the plan")
    tiers = [stage.tier for stage in plan.figures.stages]
    measured = None if bench is None else load_bench(Path(bench), tiers)
    analysis = _analysis(place, manifest, plan, model)
    page = render(gather(manifest, plan, analysis, topology, measured))
    with written_whole(output, force=force) as file:
        file.write(page.encode())


def _analysis(place: Path, manifest: Manifest, plan: Plan, model: str | Path | None) -> Analysis:
    """The whole model, its nodes in the order that the plan counts them in."""
    graph = load_graph(find_model(place, manifest, model), manifest.state_pairs)
    analysis = measure(graph, bind_shapes(graph, bindings_of(manifest)))
    if plan.order != CUSTOM:
        return in_order(analysis, plan.order)
    at = {node.index: place for place, node in enumerate(graph.nodes)}
    try:
        return in_order_of(analysis, graph.reordered([at[index] for index in manifest.node_order or ()]))
    except (KeyError, ValueError):
        raise ManifestError(
            "the plan counts nodes in an order of its own, which the manifest does not hold",
            hint="run `split` again",
        ) from None
