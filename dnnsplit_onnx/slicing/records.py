"""What the manifest says of slices that were just written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import onnx

from dnnsplit_onnx._version import __version__
from dnnsplit_onnx.errors import PlanError
from dnnsplit_onnx.files import read_bounded
from dnnsplit_onnx.graph.digests import Digests
from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.growth import growing_axis
from dnnsplit_onnx.graph.modelfile import ModelFile, data_range, is_external, tensors
from dnnsplit_onnx.graph.ports import FILES, Port
from dnnsplit_onnx.graph.unrenewed import is_left_as_it_was
from dnnsplit_onnx.planning.figures import Stage
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.slicing.extract import Extract, port
from dnnsplit_onnx.slicing.manifest import (
    FILE_NAME,
    SCHEMA_VERSION,
    DataFile,
    Manifest,
    ModelRecord,
    SliceRecord,
    StateRecord,
)
from dnnsplit_onnx.work.cuts import check_states

#: A model that was in memory, beside its slices.
WHOLE_NAME = "whole.onnx"


def check_stages(graph: Graph, stages: Sequence[Stage]) -> None:
    """Holds the stages of a plan against the graph.

    Raises:
        PlanError: They are not the graph's nodes from first to last, or a tier's name is
            no name for a folder.
        CutError: They part a state.
    """
    ends = [0, *(stage.stop for stage in stages)]
    starts = [*(stage.start for stage in stages), len(graph.nodes)]
    if ends != starts or any(stage.stop < stage.start for stage in stages):
        raise PlanError(
            f"the plan does not fit `{graph.file.path.name}`: its stages do not cover its nodes",
            hint="the plan was made for another model, or another order of its nodes: plan again",
        )
    check_states(graph, (stage.stop for stage in stages))
    folders = [FILE_NAME, WHOLE_NAME, *(stage.tier.lower() for stage in stages)]
    for stage in stages:
        name = stage.tier
        if (
            not name
            or name != PurePosixPath(name).name
            or name in (".", "..")
            or "\0" in name
            or "\\" in name
        ):
            raise PlanError(f"tier name `{name}` is no name for a folder")
        if folders.count(name.lower()) > 1:
            raise PlanError(f"tier name `{name}` stands for two things in the output")


def slice_record(
    tier: str, part: Extract, file: str, digests: Digests, nbytes: int, data: DataFile | None
) -> SliceRecord:
    """The record of a slice that has a file."""
    return SliceRecord(
        tier=tier,
        file=file,
        digests=digests,
        nbytes=nbytes,
        start=part.start,
        stop=part.stop,
        inputs=part.inputs,
        outputs=part.outputs,
        forward=part.forward,
        data=() if data is None else (data,),
    )


def empty_record(tier: str, part: Extract) -> SliceRecord:
    """The record of a tier without work."""
    return SliceRecord(tier=tier, file=None, start=part.start, stop=part.stop, forward=part.forward)


def manifest(
    graph: Graph,
    plan: Plan,
    slices: Sequence[SliceRecord],
    candidates: Sequence[SliceRecord] = (),
    *,
    model_path: str,
    digests: Digests,
) -> Manifest:
    """The manifest of a folder of slices."""
    files = _files(plan)
    inputs = {value.name: value for value in graph.proto.graph.input}
    outputs = {value.name: value for value in graph.proto.graph.output}
    return Manifest(
        schema_version=SCHEMA_VERSION,
        producer=f"dnnsplit-onnx {__version__}",
        model=ModelRecord(
            path=model_path,
            digests=digests,
            inputs=_as_files((port(inputs[name]) for name in graph.inputs), files),
            outputs=tuple(port(outputs[name]) for name in dict.fromkeys(graph.outputs)),
        ),
        plan=_plan(plan),
        slices=_with_files(_on_machines(slices, plan), files),
        candidates=_with_files(_on_machines(candidates, plan), files),
        random=tuple(node.name for node in graph.nodes if node.random),
        states=state_records(graph, plan.bindings),
        node_order=plan.node_order,
    )


def state_records(graph: Graph, bindings: Mapping[str, int]) -> tuple[StateRecord, ...]:
    """What is said of a model's states.

    Args:
        graph: The model.
        bindings: Sizes of its open dimensions.
    """
    inputs = {value.name: value for value in graph.proto.graph.input}
    outputs = {value.name: value for value in graph.proto.graph.output}
    return tuple(
        StateRecord(
            input=state.input,
            output=state.output,
            kept_if_empty=is_left_as_it_was(graph.proto.graph, state),
            fixed=_fixed(inputs[state.input], outputs.get(state.output or ""), bindings),
            grows=growing_axis(graph.proto.graph, state),
        )
        for state in graph.states
    )


def _fixed(
    before: onnx.ValueInfoProto, after: onnx.ValueInfoProto | None, bindings: Mapping[str, int]
) -> dict[str, int]:
    """The sizes of dimensions that a state has under one name before and after each step.

    The first is left out: it is a batch, and each sequence has its own.
    """
    if after is None:
        return {}
    pairs = zip(port(before).shape or (), port(after).shape or (), strict=False)
    kept = [old for axis, (old, new) in enumerate(pairs) if axis and old == new]
    return {name: bindings[name] for name in kept if isinstance(name, str) and name in bindings}


def _plan(plan: Plan) -> dict[str, Any]:
    """The plan, but for where the model lay: the manifest says where it lies."""
    data = plan.to_dict()
    if data["model"] is not None:
        data["model"] = data["model"] | {"path": None}
    return data


def _files(plan: Plan) -> dict[str, str]:
    """The inputs that travel as files of pictures, and the kind of file."""
    said = (plan.topology or {}).get("input", {})
    return {name: one["code"] for name, one in said.items() if one["code"] in FILES}


def _as_files(ports: Iterable[Port], files: Mapping[str, str]) -> tuple[Port, ...]:
    return tuple(
        one.model_copy(update={"code": files[one.name]}) if one.name in files else one for one in ports
    )


def _with_files(records: Sequence[SliceRecord], files: Mapping[str, str]) -> tuple[SliceRecord, ...]:
    """The records, which say of what they read that it arrives as a file."""
    if not files:
        return tuple(records)
    return tuple(record.model_copy(update={"inputs": _as_files(record.inputs, files)}) for record in records)


def _on_machines(records: Sequence[SliceRecord], plan: Plan) -> tuple[SliceRecord, ...]:
    """The records with what each tier runs on; unchanged where the plan does not say."""
    tiers = {tier["name"]: tier for tier in (plan.topology or {}).get("tier", ())}
    return tuple(_on_machine(record, tiers.get(record.tier)) for record in records)


def _on_machine(record: SliceRecord, tier: Mapping[str, Any] | None) -> SliceRecord:
    if tier is None:
        return record
    memory_gb = tier.get("memory_gb")
    memory = None if memory_gb is None else max(1, int(memory_gb * 1e9))
    # Plans leave out what is as it is by default.
    machine = {
        "provider": tier.get("provider", "cpu"),
        "provider_options": dict(tier.get("provider_options", {})),
        "memory_nbytes": memory,
        "custom_ops": tuple(tier.get("custom_ops", ())),
    }
    return record.model_copy(update=machine)


def model_place(file: ModelFile, given: Path | None, folder: Path, output: Path) -> str:
    """Where the manifest says the model lies; one that is in memory is kept beside its slices.

    Args:
        file: The model.
        given: Where the caller says it is.
        folder: The folder of slices, while it is made.
        output: What that will be.
    """
    if given is None and file.owner is not None:
        shutil.copyfile(file.path, folder / WHOLE_NAME)
        return WHOLE_NAME
    return recorded_path(given or file.path, output)


def recorded_path(model: Path, output: Path) -> str:
    """The model's path, relative to the output where the two have a folder in common."""
    model, output = model.absolute(), output.resolve()
    if len(Path(os.path.commonpath([model, output])).parts) < 2:  # the root alone
        return model.as_posix()
    return Path(os.path.relpath(model, output)).as_posix()


def is_output(folder: Path) -> bool:
    """Whether a folder is one that this tool wrote."""
    try:
        data = json.loads(read_bounded(folder / FILE_NAME).decode())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and {"schema_version", "slices", "plan"} <= data.keys()


def source_files(source: ModelFile) -> list[Path]:
    """The model's file and all files of its weights."""
    locations = {source.path.name: None} | dict.fromkeys(
        data_range(tensor).location for tensor in tensors(source.proto) if is_external(tensor)
    )
    return [source.folder / location for location in locations]


def recorded_plan(manifest: Manifest) -> Plan:
    """The plan that slices were made for.

    Raises:
        PlanError: What the manifest holds is no plan.
    """
    plan = Plan.from_dict(manifest.plan)
    if plan.node_order is None and manifest.node_order is not None:  # as earlier releases wrote it
        return replace(plan, node_order=manifest.node_order)
    return plan
