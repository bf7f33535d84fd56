"""From what a person named to a graph, an analysis and a plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dnnsplit_onnx.cli.conditions import PlanOptions
from dnnsplit_onnx.cli.options import ModelOptions
from dnnsplit_onnx.errors import CutError, DnnsplitError

if TYPE_CHECKING:
    from dnnsplit_onnx.graph.shapes import Types
    from dnnsplit_onnx.machines.topology import Topology
    from dnnsplit_onnx.planning.plans import Plan
    from dnnsplit_onnx.work.analysis import Analysis

ZOO = "zoo:"

# A model with more weights is not run unless the user asks for it.
_MOST_UNASKED = 1_000_000_000


def model_file(model: str) -> Path:
    """The file of a model that is named by path or as `zoo:NAME`."""
    if not model.startswith(ZOO):
        return Path(model)
    from dnnsplit_onnx.models import ENTRIES, model_path

    name = model.removeprefix(ZOO)
    if name in ENTRIES:
        return model_path(name)
    from dnnsplit_onnx.converters.zoo import zoo_path  # a model of a framework, or a mistake

    return zoo_path(name)


def load_analysis(model: str, options: ModelOptions) -> Analysis:
    """Reads a model, counts its work, and brings its nodes into order."""
    from dnnsplit_onnx.graph.graph import load_graph
    from dnnsplit_onnx.graph.shapes import bind_shapes
    from dnnsplit_onnx.reporting.progress import progress
    from dnnsplit_onnx.work.analysis import measure
    from dnnsplit_onnx.work.orders import in_order

    bindings, trips = options.bindings, options.trip_counts
    with progress("reading the model"):
        graph = load_graph(model_file(model), options.state)
        types = _with_observed(bind_shapes(graph, bindings), options.sample_input)
        return in_order(measure(graph, types, trips), options.order)


def _with_observed(types: Types, sample: Path | None) -> Types:
    """Sizes that inference cannot prove, seen in one run where that is possible.

    Without a sample it is a courtesy: whatever stands in its way leaves sizes unknown.
    """
    from dnnsplit_onnx.cli.output import note
    from dnnsplit_onnx.graph.shapes import free_dimensions

    if not types.unsized or (sample is None and free_dimensions(types.graph, types.bindings)):
        return types
    from dnnsplit_onnx.runtime.observing import observe

    if sample is None and types.weight_nbytes > _MOST_UNASKED:
        note("some shapes cannot be inferred; --sample-input X.npz sees them in one run of the model")
        return types
    try:
        found = observe(types, sample)
    except DnnsplitError as error:
        if sample is not None:
            raise
        note(f"some shapes cannot be inferred, and a run to see them failed: {error.message}")
        return types
    source = "made-up inputs" if sample is None else f"`{sample}`"
    note(f"{len(types.unsized)} sizes could not be inferred; they are those of one run on {source}")
    return found


def make_plan(analysis: Analysis, options: PlanOptions) -> tuple[Analysis, Plan]:
    """Plans as the options ask.

    Returns:
        The analysis, in the order that the plan's positions count in, and the plan. It is
        another order if the cuts, chosen or named, are no prefixes of the one there was.
    """
    from dnnsplit_onnx.planning.choosing import analysis_of, plan
    from dnnsplit_onnx.reporting.progress import progress

    topology, weights = options.topology(), options.weights()
    cuts = None
    if options.at:
        analysis, cuts = _cut_at(analysis, options.cuts, topology)
    with progress("planning"):
        made = plan(
            analysis.graph,
            topology,
            objective=options.objective,
            planner=options.planner,
            cuts=cuts,
            accounting=options.cut_size,
            analysis=analysis,
            weights=weights,
        )
    return analysis_of(made, analysis), made


def _cut_at(
    analysis: Analysis, cuts: tuple[str, ...], topology: Topology
) -> tuple[Analysis, tuple[int, ...]]:
    """The positions that `--at` names, and the analysis in an order that has them.

    Raises:
        CutError: They are not one for each link, or not nested.
    """
    from dnnsplit_onnx.graph.cut_names import resolve_cuts
    from dnnsplit_onnx.work.orders import in_order_of

    if len(cuts) != len(topology.links):
        tiers = f"{len(topology.tiers)} tier{'s' if len(topology.tiers) > 1 else ''}"
        raise CutError(
            f"`--at` gives {len(cuts)} cut{'s' if len(cuts) != 1 else ''} for {tiers}",
            hint=f"give {len(topology.links)}: one for each link, from tier 0 up",
        )
    graph, positions = resolve_cuts(analysis.graph, cuts)
    return in_order_of(analysis, graph), positions
