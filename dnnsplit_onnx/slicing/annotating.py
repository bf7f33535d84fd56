"""A plan written into the model: ONNX's own way to say on which device a node runs, and when.

From IR version 11 on a model can hold configurations of devices, and a node the pipeline stage
and the devices of its tensors in each. A plan becomes one such configuration: its devices are
the tiers, a node's stage is the place of its tier. Runtimes that know nothing of it run the model
unchanged. Weights, and nodes that compute from weights alone, are on no device: whoever needs
them has them.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import onnx

from dnnsplit_onnx.errors import CutError
from dnnsplit_onnx.files import written_whole
from dnnsplit_onnx.graph.graph import Graph, Node
from dnnsplit_onnx.planning.fitting import analysis_of
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.slicing.records import source_files
from dnnsplit_onnx.work.analysing import Source, analysis_from

#: The name of the configuration that is written, and the first that is looked for.
CONFIGURATION = "dnnsplit-onnx"
_IR_VERSION = 11


def annotate(model: Source, plan: Plan, output: str | Path, *, force: bool = False) -> None:
    """Writes a model with a plan as a configuration of devices in it.

    Files of weights are copied beside it where it stands in another folder than the model.

    Args:
        model: The plan's model: an analysis, or what `analyse` takes.
        plan: The plan.
        output: The file to write.
        force: Whether to replace what is there.

    Raises:
        PlanError: The plan is of another model.
        OutputError: The file exists, or cannot be written.
    """
    analysis, output = analysis_from(model, plan.bindings), Path(output)
    graph = analysis_of(plan, analysis).graph
    proto = _whole(graph)
    proto.ir_version = max(proto.ir_version, _IR_VERSION)
    tiers = [stage.tier for stage in plan.figures.stages]
    _configure(proto, tiers)
    for t, stage in enumerate(plan.figures.stages):
        for node in graph.nodes[stage.start : stage.stop]:
            _place(proto.graph.node[node.index], t)
    with written_whole(output, force=force) as file:
        file.write(proto.SerializeToString())
    for path in source_files(graph.file)[1:]:
        target = output.parent / path.relative_to(graph.file.folder)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _whole(graph: Graph) -> onnx.ModelProto:
    """The model as its file has it; a graph's own leaves large weights behind."""
    if graph.file.path.is_file():
        return onnx.load(graph.file.path, load_external_data=False)
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.proto)
    return proto


def _configure(proto: onnx.ModelProto, tiers: Sequence[str]) -> None:
    """Gives the model one configuration of the tiers, in place of one of that name."""
    others = [one for one in proto.configuration if one.name != CONFIGURATION]
    del proto.configuration[:]
    proto.configuration.extend(others)
    proto.configuration.add(name=CONFIGURATION, num_devices=len(tiers), device=tiers)


def _place(node: onnx.NodeProto, tier: int) -> None:
    """Puts a node on a tier: its stage, and the device of what it makes."""
    others = [one for one in node.device_configurations if one.configuration_id != CONFIGURATION]
    del node.device_configurations[:]
    node.device_configurations.extend(others)
    placed = node.device_configurations.add(configuration_id=CONFIGURATION, pipeline_stage=tier)
    for name in node.output:
        if name:
            placed.sharding_spec.add(tensor_name=name, device=[tier])


def annotated_cuts(graph: Graph, annotated: Graph, links: int) -> tuple[Graph, tuple[int, ...]]:
    """The cuts that a configuration of devices in a model stands for.

    Args:
        graph: The model to cut, in whatever order.
        annotated: The same model, with the configuration; the same object will do.
        links: How many links there are.

    Returns:
        The graph, reordered if its nodes do not stand by stages, and a position for each link.

    Raises:
        CutError: A node has no stage, or one beyond the tiers; or a node would run before one
            that it depends on.
    """
    stage_of = {node.index: _stage(node.proto, node.name, links) for node in annotated.nodes}
    if [(node.index, node.op_type) for node in sorted(graph.nodes, key=_index)] != [
        (node.index, node.op_type) for node in sorted(annotated.nodes, key=_index)
    ]:
        raise CutError(f"`{annotated.file.path.name}` is another model than `{graph.file.path.name}`")
    stages = [stage_of[node.index] for node in graph.nodes]
    for at, node in enumerate(graph.nodes):
        for value in node.inputs:
            made = graph.producer.get(value)
            if made is not None and stages[made] > stages[at]:
                raise CutError(
                    f"node `{node.name}` is in stage {stages[at]} and reads `{value}`, which is made in "
                    f"stage {stages[made]}",
                    hint="stages go up along the data: tier 0 is where the input is born",
                )
    order = sorted(range(len(stages)), key=lambda at: (stages[at], at))
    cuts = tuple(sum(stage <= link for stage in stages) for link in range(links))
    return (graph if order == list(range(len(order))) else graph.reordered(order)), cuts


def _index(node: Node) -> int:
    return node.index


def _stage(proto: onnx.NodeProto, name: str, most: int) -> int:
    """A node's stage, in our configuration or else in the first that it has."""
    found = sorted(proto.device_configurations, key=lambda one: one.configuration_id != CONFIGURATION)
    if not found or not found[0].HasField("pipeline_stage"):
        raise CutError(
            f"node `{name}` has no pipeline stage, so the model is no plan",
            hint="write one with `plan MODEL --tiers T.toml --annotate OUT.onnx`",
        )
    stage = int(found[0].pipeline_stage)
    if not 0 <= stage <= most:
        raise CutError(
            f"node `{name}` is in pipeline stage {stage}, and the tiers are {most + 1}",
            hint="give a tiers file with a tier for each stage",
        )
    return stage
