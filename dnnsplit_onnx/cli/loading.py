"""From what a person named to a graph, an analysis and a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dnnsplit_onnx.cli.conditions import ConditionOptions, PlanOptions
from dnnsplit_onnx.cli.options import ModelOptions
from dnnsplit_onnx.errors import DnnsplitError

if TYPE_CHECKING:
    from dnnsplit_onnx.machines.inputs import InputCode
    from dnnsplit_onnx.machines.tiers import Tier
    from dnnsplit_onnx.planning.plans import Plan
    from dnnsplit_onnx.work.analysis import Analysis

ZOO = "zoo:"


def model_file(model: str) -> Path:
    """The file of a model that is named by its path, a folder's, or as `zoo:NAME`."""
    if not model.startswith(ZOO):
        from dnnsplit_onnx.graph.folders import model_in

        return model_in(Path(model))
    from dnnsplit_onnx.models import ENTRIES, model_path

    name = model.removeprefix(ZOO)
    if name in ENTRIES:
        return model_path(name)
    from dnnsplit_onnx.converters.zoo import zoo_path  # a model of a framework, or a mistake

    return zoo_path(name)


def register_libraries(tiers: Iterable[Tier]) -> None:
    """Registers the libraries of operators that tiers name, for runs of the whole model.

    One that is not here, or that nobody allowed, is told: a plan may need no run.
    """
    from dnnsplit_onnx.cli.output import note
    from dnnsplit_onnx.runtime.custom_ops import custom_ops, needed

    for tier in tiers:
        for library in tier.custom_ops:
            try:
                custom_ops(*needed((library,), tier.name))
            except DnnsplitError as error:
                note(f"{error.message}: {error.hint}")


def load_analysis(
    model: str, options: ModelOptions, inputs: Mapping[str, InputCode] | None = None
) -> Analysis:
    """Analyses a model as the options ask, and tells what there is to know of it.

    Args:
        model: As a person names it.
        options: Of the command.
        inputs: What of its inputs is a picture; as the tiers file says by default.
    """
    from dnnsplit_onnx.cli.output import note
    from dnnsplit_onnx.reporting.progress import progress
    from dnnsplit_onnx.work.analysing import analyse

    if isinstance(options, ConditionOptions) and options.tiers is not None and not options.device_words:
        from dnnsplit_onnx.machines.tiers_file import load_topology

        machines = load_topology(options.tiers)
        register_libraries(machines.tiers)
        inputs = machines.input
    with progress("reading the model"):
        analysis = analyse(
            model_file(model),
            options.bindings,
            order=options.order,
            states=options.state,
            trips=options.trip_counts,
            sample_input=options.sample_input,
        )
        if inputs:
            from dnnsplit_onnx.work.pictured import pictured

            analysis = pictured(analysis, inputs)
    for said in analysis.notes:
        note(said)
    return analysis


def make_plan(analysis: Analysis, options: PlanOptions) -> Plan:
    """Plans as the options ask."""
    from dnnsplit_onnx.planning.choosing import plan
    from dnnsplit_onnx.reporting.progress import progress

    with progress("planning"):
        return plan(
            analysis,
            options.topology(),
            objective=options.objective,
            planner=options.planner,
            cuts=options.cuts or None,
            accounting=options.cut_size,
            weights=options.weights(),
            pareto=options.pareto,
            accept=options.judge(analysis),
        )
