"""Models whose tiers file says that an input is a picture: the normalisation becomes nodes in front.

The model is then another one, which lies in a temporary file as any model in memory does; slices of
it keep it beside them. The input has the name that it had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx

from dnnsplit_onnx.errors import ModelError, TopologyError
from dnnsplit_onnx.graph.graph import Graph, build_graph
from dnnsplit_onnx.graph.modelfile import is_external, open_proto, tensors
from dnnsplit_onnx.graph.picturing import put_in_front
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.graph.shapes import free_dimensions, value_type
from dnnsplit_onnx.machines.inputs import InputCode
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.work.analysing import Source, analyse, analysis_from
from dnnsplit_onnx.work.analysis import CUSTOM, Analysis


def analysis_for(source: Source, topology: Topology, bindings: Mapping[str, int] | None = None) -> Analysis:
    """The analysis of a model as some machines run it: its pictures are inputs.

    Args:
        source: As `analysis_from` takes it.
        topology: The machines; its `input` says what pictures are.
        bindings: Numbers for symbolic dimensions.

    Raises:
        TopologyError: An input is no picture.
        DnnsplitError: As for `analysis_from`.
    """
    return pictured(analysis_from(source, bindings), topology.input)


def pictured(analysis: Analysis, inputs: Mapping[str, InputCode]) -> Analysis:
    """An analysis with the nodes that normalise pictures; itself if there is nothing to normalise.

    Raises:
        TopologyError: An input is no picture.
        ModelError: The model has weights in files beside it.
    """
    graph = pictured_graph(analysis.graph, inputs)
    if graph is analysis.graph:
        return analysis
    free = free_dimensions(graph, {})
    bindings = {name: size for name, size in analysis.types.bindings.items() if name in free}
    order = "envelope" if analysis.order == CUSTOM else analysis.order
    return analyse(graph, bindings, order=order, trips=analysis.trips)


def pictured_graph(graph: Graph, inputs: Mapping[str, InputCode]) -> Graph:
    """A graph with the nodes that normalise pictures; itself if there is nothing to normalise.

    Raises:
        TopologyError: An input is no picture.
        ModelError: The model has weights in files beside it.
    """
    wanted = {
        name: one for name, one in inputs.items() if name in graph.inputs and not _is_picture(graph, name)
    }
    if not wanted:
        return graph
    for name, one in wanted.items():
        if one.normalisation is None:
            raise TopologyError(
                f"input `{name}` is no picture: that is uint8 of shape [1, height, width, 3]",
                hint=f"if it is normalised pixels, say how in [input.{name}]: mean = ..., scale = ..., "
                "and layout, order and size if needed",
            )
    path = graph.file.path
    proto = onnx.load(str(path), load_external_data=False)
    if any(is_external(tensor) for tensor in tensors(proto)):
        raise ModelError(
            f"`{path}` has weights in files beside it: no picture can be put in front of it in memory",
            hint="write a model that reads one: dnnsplit-onnx image MODEL -o IMAGE_MODEL",
        )
    for name, one in wanted.items():
        put_in_front(proto, name, one.size, one.normalisation, keeps_name=True)
    return replace(build_graph(open_proto(proto, path.name)), states=graph.states)


def _is_picture(graph: Graph, name: str) -> bool:
    kind = value_type(next(value.type for value in graph.proto.graph.input if value.name == name))
    return Port(name=name, dtype=kind.dtype_name, shape=kind.shape, kind=kind.kind).is_picture
