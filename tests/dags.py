"""Small random graphs with work and sizes of any kind, and their downward-closed sets."""

from __future__ import annotations

from collections.abc import Collection, Iterator
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
    """The same with a state for some of the inputs.

    Most are made by an output; some are an input of the model, or what another state was, or
    stay for a whole sequence.
    """
    graph = analysis.graph
    outputs = rng.permutation(graph.results).tolist()
    states: list[State] = []
    for name in reversed(graph.inputs[-int(rng.integers(1, 3)) :]):
        kind, others = rng.random(), [other for other in graph.inputs if other != name]
        if kind < 0.15:
            states.append(State(name, None))
        elif kind < 0.4 and others and states[:1] != [State(others[0], name)]:
            states.append(State(name, others[0]))
        elif outputs and kind < 0.9:
            states.append(State(name, outputs.pop()))
    return replace(analysis, graph=replace(graph, states=tuple(states)))


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
    """Whether a state is needed below, in the next run, and made above."""
    nodes = list(enumerate(analysis.graph.nodes))
    needed = _needed(analysis, below)
    made_above = {value for at, node in nodes if at not in below for value in node.outputs}
    return any(s.input in needed and s.output in made_above for s in analysis.graph.states)


def _needed(analysis: Analysis, side: Collection[int]) -> set[str]:
    """The states that nodes read, or that become one of these."""
    graph = analysis.graph
    needed = {name for at in side for name in graph.nodes[at].inputs}
    for _ in graph.states:
        needed |= {s.output for s in graph.states if s.input in needed and s.output}
    return needed & {state.input for state in graph.states}


def live_nbytes(analysis: Analysis, below: frozenset[int]) -> int:
    """D(S): bytes of what is made below and read above, in this run or the next, each value once."""
    graph = analysis.graph
    brought = {state.input for state in graph.states}
    above = [at for at in range(len(graph.nodes)) if at not in below]
    kept = _needed(analysis, above)
    read = {value for at in above for value in graph.nodes[at].inputs}
    read |= {state.output for state in graph.states if state.input in kept and state.output}
    crossing = {
        value for value in read - brought if graph.producer.get(value) in below or value in graph.inputs
    }
    return sum(analysis.types.nbytes(value) or 0 for value in crossing)


def output_nbytes_above(analysis: Analysis, below: frozenset[int]) -> int:
    """Bytes of the outputs that are made above."""
    graph = analysis.graph
    kept = {state.output for state in graph.states}
    made = [v for v in set(graph.outputs) - kept if v in graph.producer and graph.producer[v] not in below]
    return sum(analysis.types.nbytes(value) or 0 for value in made)
