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
from dnnsplit_onnx.graph.identity import in_file_order
from dnnsplit_onnx.graph.states import State
from dnnsplit_onnx.machines.tiers_file import parse_topology
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
    """The whole model, stepped with nothing but onnxruntime and the definition of states.

    Args:
        model: The model.
        states: Its states.
        optimize: Whether it is optimised as slices are by default: equal to them where what is
            fused lies within one slice.
    """

    def __init__(self, model: onnx.ModelProto, states: Sequence[State], *, optimize: bool = True) -> None:
        options = onnxruntime.SessionOptions()
        if not optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
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
    """The model in a file, and as a graph with these states, in the order that plans count in."""
    onnx.save(model, folder / "model.onnx")
    return in_file_order(load_graph(folder / "model.onnx", states or None))


class Decoder:
    """A small decoder that attends to an encoder, as exporters write it.

    Args:
        layers: Of self-attention with a cache that grows, and attention to a cache that stays.
        width: Of everything.
    """

    def __init__(self, layers: int = 2, width: int = 8) -> None:
        self._rng = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._inputs = [h.make_tensor_value_info("input_ids", T.INT64, ["batch", 1])]
        self._outputs: list[onnx.ValueInfoProto] = []
        self.layers, self.width = layers, width

    def model(self) -> onnx.ModelProto:
        """The decoder, whose caches of the encoder have inputs and no outputs."""
        value = self.node("Gather", [self.weight(16, self.width), "input_ids"], "embed")
        for at in range(self.layers):
            value = self._self_attention(at, value)
            value = self._cross_attention(at, value)
        self.node("MatMul", [value, self.weight(self.width, 16)], "logits")
        logits = h.make_tensor_value_info("logits", T.FLOAT, ["batch", 1, 16])
        graph = h.make_graph(self._nodes, "g", self._inputs, [logits, *self._outputs], self._weights)
        return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)

    def cache(self, name: str, length: str, *, output: bool = False) -> str:
        """An input, or output, of so many positions."""
        info = h.make_tensor_value_info(name, T.FLOAT, ["batch", length, self.width])
        (self._outputs if output else self._inputs).append(info)
        return name

    def weight(self, *shape: int) -> str:
        array = (self._rng.standard_normal(shape) * 0.5).astype(np.float32)
        self._weights.append(nh.from_array(array, f"w{len(self._weights)}"))
        return self._weights[-1].name

    def node(self, op: str, inputs: Sequence[str], name: str, **attributes: object) -> str:
        self._nodes.append(h.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def _self_attention(self, at: int, value: str) -> str:
        key = self.node("MatMul", [value, self.weight(self.width, self.width)], f"layer{at}/key")
        past = self.cache(f"past_key_values.{at}.decoder.key", "past_decoder")
        made = self.cache(f"present.{at}.decoder.key", "past_decoder + 1", output=True)
        return self._attend(f"layer{at}/self", value, self.node("Concat", [past, key], made, axis=1))

    def _cross_attention(self, at: int, value: str) -> str:
        cache = self.cache(f"past_key_values.{at}.encoder.key", "encoder")
        return self._attend(f"layer{at}/cross", value, cache)

    def _attend(self, name: str, value: str, cache: str) -> str:
        turned = self.node("Transpose", [cache], f"{name}/turned", perm=[0, 2, 1])
        scores = self.node("MatMul", [value, turned], f"{name}/scores")
        shares = self.node("Softmax", [scores], f"{name}/shares", axis=-1)
        read = self.node("MatMul", [shares, cache], f"{name}/read")
        return self.node("Add", [value, read], f"{name}/out")


def merged_decoder() -> onnx.ModelProto:
    """A decoder that was merged from two: the branch with caches returns an empty one for the encoder's.

    An embedding comes before the branches, and a head after them.
    """
    rng = np.random.default_rng(1)
    shapes = {"words": (16, 4), "keys": (4, 4), "head": (4, 16)}
    weights = [nh.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]

    def info(name: str, length: str | int, width: int = 4) -> onnx.ValueInfoProto:
        return h.make_tensor_value_info(name, T.FLOAT, ["batch", length, width])

    def branch(prefix: str, nodes: list[onnx.NodeProto]) -> onnx.GraphProto:
        outputs = [info(f"{prefix}{name}", f"{prefix}{name}_length") for name in ("value", "self", "cross")]
        return h.make_graph(nodes, prefix, [], outputs)

    def attend(prefix: str, own: str, other: str) -> list[onnx.NodeProto]:
        means = [f"{prefix}mean{at}" for at in range(2)]
        return [
            h.make_node("ReduceMean", [own], means[:1], axes=[1]),
            h.make_node("ReduceMean", [other], means[1:], axes=[1]),
            h.make_node("Sum", ["embedded", *means], [f"{prefix}value"]),
        ]

    empty = h.make_tensor("empty", T.FLOAT, [0, 1, 4], [])
    with_caches = [
        h.make_node("Concat", ["past_key_values.0.decoder.key", "embedded"], ["t_self"], axis=1),
        h.make_node("Constant", [], ["t_cross"], value=empty),
        *attend("t_", "t_self", "past_key_values.0.encoder.key"),
    ]
    without = [
        h.make_node("Identity", ["embedded"], ["f_self"]),
        h.make_node("MatMul", ["encoder_hidden_states", "keys"], ["f_cross"]),
        *attend("f_", "f_self", "f_cross"),
    ]
    made = ["value", "present.0.decoder.key", "present.0.encoder.key"]
    nodes = [
        h.make_node("Gather", ["words", "input_ids"], ["embedded"], name="embed"),
        h.make_node(
            "If",
            ["use_cache_branch"],
            made,
            name="merged",
            then_branch=branch("t_", with_caches),
            else_branch=branch("f_", without),
        ),
        h.make_node("MatMul", ["value", "head"], ["logits"], name="logits"),
    ]
    inputs = [
        h.make_tensor_value_info("input_ids", T.INT64, ["batch", 1]),
        info("encoder_hidden_states", "encoder"),
        info("past_key_values.0.decoder.key", "past"),
        info("past_key_values.0.encoder.key", "past_encoder"),
        h.make_tensor_value_info("use_cache_branch", T.BOOL, [1]),
    ]
    outputs = [info("logits", 1, 16), info(made[1], "now"), info(made[2], "now_encoder")]
    graph = h.make_graph(nodes, "g", inputs, outputs, weights)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
