"""Models that hand values from run to run, step by step as the definition has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

from dnnsplit_onnx.graph.graph import Graph, load_graph
from dnnsplit_onnx.graph.states import State
from dnnsplit_onnx.machines.topology import parse_topology
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.slicing.candidates import slice_all_candidates
from dnnsplit_onnx.work.analysing import analyse
from dnnsplit_onnx.work.cuts import parted_states

Arrays = dict[str, np.ndarray]

WIDTH = 4


def random_model(rng: np.random.Generator) -> tuple[onnx.ModelProto, list[str]]:
    """A model of some nodes and up to three states, each renewed in whatever way there is.

    Returns:
        The model, and its states as a user gives them.
    """
    fresh = ["x0", "x1"][: int(rng.integers(1, 3))]
    kept = [f"s{at}" for at in range(int(rng.integers(1, 4)))]
    values, nodes = [*fresh, *kept], []
    for at in range(int(rng.integers(4, 8))):
        op = str(rng.choice(["Add", "Mul", "Sub", "Tanh", "Neg"]))
        reads = rng.choice(values[-5:] if rng.random() < 0.7 else values, 2).tolist()
        nodes.append(h.make_node(op, reads[: 1 if op in ("Tanh", "Neg") else 2], [f"v{at}"], name=f"n{at}"))
        values.append(f"v{at}")
    made = [value for value in values if value.startswith("v")]
    pairs = dict(zip(kept, _renewals(rng, fresh, kept, made), strict=True))
    outputs = list(dict.fromkeys([made[-1], *(out for out in pairs.values() if out)]))
    vector = [h.make_tensor_value_info(name, T.FLOAT, [1, WIDTH]) for name in (*fresh, *kept, *outputs)]
    count = len(fresh) + len(kept)
    weight = nh.from_array(rng.standard_normal((1, WIDTH)).astype(np.float32), "w")
    graph = h.make_graph(nodes, "g", vector[:count], vector[count:], [weight])
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    return model, [f"{name}={out or ''}" for name, out in pairs.items()]


def _renewals(
    rng: np.random.Generator, fresh: Sequence[str], kept: Sequence[str], made: Sequence[str]
) -> Iterator[str | None]:
    left = {"v": [*made[:-1]], "x": [*fresh], "s": [*kept], "w": ["w"]}
    for _ in kept:
        kind = str(rng.choice(["v", "v", "v", "x", "s", "w", ""], p=[0.3, 0.1, 0.1, 0.2, 0.15, 0.05, 0.1]))
        choices = left.get(kind) or ([] if not kind else left["v"])
        yield choices.pop(int(rng.integers(len(choices)))) if choices else None


class Whole:
    """The whole model, stepped with nothing but onnxruntime and the definition of states."""

    def __init__(self, model: onnx.ModelProto, states: Sequence[State]) -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        self._read = {value.name for value in self._session.get_inputs()}
        self._made = [value.name for value in self._session.get_outputs()]
        self._states = states
        self.memory: Arrays = {}

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """One step; the outputs that are no states."""
        feeds = {**self.memory, **inputs}
        made = self._session.run(self._made, {n: feeds[n] for n in self._read})
        results = dict(zip(self._made, made, strict=True))
        for state in self._states:
            self.memory[state.input] = results[state.output] if state.output else feeds[state.input]
        kept = {state.output for state in self._states}
        return {name: array for name, array in results.items() if name not in kept}


def sliced_everywhere(
    graph: Graph,
    folder: Path,
    tiers: int = 3,
    *,
    sizes: Mapping[str, int] | None = None,
    cuts: Sequence[int] | None = None,
) -> list[tuple[int, ...]]:
    """Lays down the slices of all cuts that part no state; returns these cuts.

    Args:
        graph: The model.
        folder: The folder to make.
        tiers: How many tiers there are.
        sizes: Of open dimensions.
        cuts: Those of the plan; some in the middle by default.
    """
    names = ["edge", "near", "cloud"][:tiers]
    topology = parse_topology(
        {
            "tier": [{"name": name, "gflops": 10.0**at} for at, name in enumerate(names)],
            "link": [{"bandwidth_mbps": 10.0}] * (tiers - 1),
        },
        "test",
    )
    positions = np.flatnonzero(~parted_states(graph)).tolist()
    cuts = cuts or [positions[len(positions) // 2]] * (tiers - 1)
    chosen = plan(analyse(graph, sizes or {}, order="file"), topology, cuts=cuts, pareto=False)
    slice_all_candidates(graph, chosen, positions, folder)
    return list(combinations_with_replacement(positions, tiers - 1))


def saved(model: onnx.ModelProto, states: Sequence[str], folder: Path) -> Graph:
    """The model in a file, and as a graph with these states."""
    onnx.save(model, folder / "model.onnx")
    return load_graph(folder / "model.onnx", states or None)
