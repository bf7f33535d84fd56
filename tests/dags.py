"""Small random graphs with work and sizes of any kind, and their downward-closed sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from dnnsplit_onnx.graph.graph import build_graph
from dnnsplit_onnx.graph.modelfile import ModelFile
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.graph.states import State
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.flops import Work


def random_workload(rng: np.random.Generator, size: int, *, most_bytes: int = 12) -> Analysis:
    """`size` nodes of an operator nobody knows, each reading some earlier values."""
    made = ["in0", *(["in1"] if rng.random() < 0.3 else [])]
    sizes = {name: int(rng.integers(1, most_bytes + 1)) for name in made}
    inputs, nodes = list(made), []
    for at in range(size):
        reads = list(dict.fromkeys(rng.choice(made[-4:], int(rng.integers(1, 4))).tolist()))
        outputs = [f"v{at}", *([f"w{at}"] if rng.random() < 0.15 else [])]
        nodes.append(helper.make_node("Mystery", reads, outputs, name=f"node{at}", domain="tests"))
        made += outputs
        sizes |= {name: int(rng.integers(0, most_bytes + 1)) for name in outputs}
    outputs = [name for name in made[len(inputs) :] if rng.random() < 0.15] or made[-1:]
    infos = {name: helper.make_tensor_value_info(name, TensorProto.UINT8, [n]) for name, n in sizes.items()}
    graph = helper.make_graph(
        nodes,
        "random",
        [infos[name] for name in inputs],
        [infos[name] for name in outputs],
        value_info=[info for name, info in infos.items() if name not in inputs and name not in outputs],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("tests", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return analysis_of(model, [int(rng.integers(0, 7)) for _ in nodes])


def with_states(rng: np.random.Generator, analysis: Analysis) -> Analysis:
    """The same with a state for some of the inputs, each made by one of the outputs."""
    graph = analysis.graph
    outputs = rng.permutation(graph.results).tolist()
    states = tuple(State(name, made) for name, made in zip(reversed(graph.inputs), outputs, strict=False))
    return replace(analysis, graph=replace(graph, states=states[: int(rng.integers(0, 3))]))


def analysis_of(model: onnx.ModelProto, flops: list[int]) -> Analysis:
    """An analysis whose nodes have the work given, whatever they are."""
    built = build_graph(ModelFile(Path("random.onnx"), model))
    return Analysis(built, bind_shapes(built), tuple(Work(elementwise=count) for count in flops))


def closed_sets(analysis: Analysis) -> Iterator[frozenset[int]]:
    """Every downward-closed set of positions."""
    graph = analysis.graph
    maker = graph.producer
    needs = [{maker[value] for value in node.inputs if value in maker} for node in graph.nodes]
    for bits in range(2 ** len(graph.nodes)):
        chosen = frozenset(at for at in range(len(graph.nodes)) if bits >> at & 1)
        if all(needs[at] <= chosen for at in chosen) and not parts_a_state(analysis, chosen):
            yield chosen


def parts_a_state(analysis: Analysis, below: frozenset[int]) -> bool:
    """Whether a node that has to do with a state is below, and another one above."""
    nodes = list(enumerate(analysis.graph.nodes))
    for state in analysis.graph.states:
        sides = {
            at in below for at, node in nodes if state.input in node.inputs or state.output in node.outputs
        }
        if len(sides) == 2:
            return True
    return False


def live_nbytes(analysis: Analysis, below: frozenset[int]) -> int:
    """D(S): bytes of what is made below and read above, each value once."""
    graph = analysis.graph
    brought = {state.input for state in graph.states}
    crossing = {
        value
        for at, node in enumerate(graph.nodes)
        if at not in below
        for value in node.inputs
        if graph.producer.get(value) in below or value in graph.inputs
        if value not in brought
    }
    return sum(analysis.types.nbytes(value) or 0 for value in crossing)


def output_nbytes_above(analysis: Analysis, below: frozenset[int]) -> int:
    """Bytes of the outputs that are made above."""
    graph = analysis.graph
    kept = {state.output for state in graph.states}
    made = [v for v in set(graph.outputs) - kept if v in graph.producer and graph.producer[v] not in below]
    return sum(analysis.types.nbytes(value) or 0 for value in made)
