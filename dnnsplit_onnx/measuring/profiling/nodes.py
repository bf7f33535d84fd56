"""A model timed node by node, mapped back through onnxruntime's fusions.

onnxruntime records how long each node of its *optimised* graph runs. Most of these are no
longer nodes of the model: a Conv has swallowed its BatchNormalization and Relu, layouts are
reordered in between. A node of the optimised graph is traced back by, in this order,

1. its name, where it is still a node of the model (they are renamed `#0`, `#1`, ... first,
   since models repeat and omit names);
2. the values it makes, where one of them is the model's;
3. the value that its name is made from (`r5_nchwc` computes `r5` in another layout).

A node of the model that none of these finds was fused into its first reader that is found,
and shares that one's time by work. What maps to nothing (a reordering of layouts) is counted
with the next node that does. Nodes inside the bodies of If, Loop and Scan are left out: their
time is their outer node's already.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from dnnsplit_onnx.graph.graph import Graph
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.graph.shapes import value_type
from dnnsplit_onnx.measuring.profiling.timing import clock_of, timed
from dnnsplit_onnx.measuring.profiling.tracing import TracedSession, open_traced
from dnnsplit_onnx.runtime.inputs import input_sets, to_values
from dnnsplit_onnx.runtime.sessions import SessionOptions, open_session
from dnnsplit_onnx.work.analysis import Analysis

_SUFFIX = "_kernel_time"
_LAYOUTS = ("_nchwc", "_nhwc")


@dataclass(frozen=True, slots=True)
class Traced:
    """What a model was seen to take.

    Attributes:
        seconds: Of each node, in the analysis's order.
        whole: Of each run of the whole model without a record, if these were asked for.
    """

    seconds: tuple[float, ...]
    whole: tuple[float, ...] = ()


def trace_nodes(
    analysis: Analysis,
    *,
    options: SessionOptions | None = None,
    inputs: Mapping[str, Any] | str | Path | None = None,
    runs: int = 30,
    warmup: int = 3,
    pick: Callable[[list[float]], float] | None = None,
    beside: bool = False,
) -> Traced:
    """What each node takes, and beside each run one of the whole model, if asked for.

    Args:
        analysis: The model, its symbolic dimensions bound.
        options: Provider and threads.
        inputs: Arrays by name, or an `.npz` file; random by default.
        runs: Measured runs.
        warmup: Runs before these, not counted.
        pick: What stands for the times of a node in many runs [default: the interquartile mean].
        beside: Whether to run the whole in turns.

    Raises:
        ModelError: onnxruntime cannot load or run the model.
        MissingExtraError: onnxruntime is not installed, or lacks the provider.
    """
    graph, options = analysis.graph, options or SessionOptions()
    ports = [_port(value) for value in graph.proto.graph.input if value.name in set(graph.inputs)]
    given = input_sets(ports, inputs, dict(analysis.types.bindings), seed=0, runs=1)[0]
    with tempfile.TemporaryDirectory(prefix="dnnsplit-trace-") as scratch:
        session = open_traced(
            _numbered(graph.proto),
            graph.file.folder,
            options,
            Path(scratch),
            label="the model",
        )
        values = to_values(ports, given.values)
        plain = open_session(graph.file.path, options, label="the model") if beside else None
        whole = []
        for _ in range(warmup + runs):
            session.run(values)
            if plain is not None:
                whole.append(timed(plain, values, clock_of(options.threads)))
        seconds = _seconds_by_name(session, warmup, pick or _middle_mean)
    return Traced(share(analysis, session.optimized, seconds), tuple(whole[warmup:]))


def share(analysis: Analysis, optimized: onnx.GraphProto, seconds: Mapping[str, float]) -> tuple[float, ...]:
    """The times of an optimised graph's nodes, shared out among the model's own.

    Args:
        analysis: The model.
        optimized: The graph that ran, made from the model with its nodes named `#INDEX`.
        seconds: Time of each of its nodes, by name.

    Returns:
        Seconds of each node, in the analysis's order; their sum is that of `seconds`.
    """
    graph = analysis.graph
    place = {node.index: at for at, node in enumerate(graph.nodes)}
    times = [0.0] * len(graph.nodes)
    found: set[int] = set()
    pending = 0.0
    last: int | None = None
    for node in optimized.node:
        pending += seconds.get(node.name, 0.0)
        at = _trace_back(node, graph, place)
        if at is None:
            continue
        times[at] += pending
        pending, last = 0.0, at
        found.add(at)
    if last is not None:
        times[last] += pending
    return tuple(_spread_over_fused(analysis, times, found))


def _trace_back(node: onnx.NodeProto, graph: Graph, place: Mapping[int, int]) -> int | None:
    """The position that a node of the optimised graph computes, None if it is none of the model's."""
    if node.name.startswith("#") and node.name[1:].isdecimal() and int(node.name[1:]) in place:
        return place[int(node.name[1:])]
    names = [*node.output]
    names += [node.name.removesuffix(suffix) for suffix in _LAYOUTS if node.name.endswith(suffix)]
    return next((graph.producer[name] for name in names if name in graph.producer), None)


def _spread_over_fused(analysis: Analysis, times: list[float], found: set[int]) -> list[float]:
    """Gives each node that was fused away its share of its host's time, by work."""
    graph = analysis.graph
    host = list(range(len(times)))
    first_reader: dict[int, int] = {}
    for at, node in enumerate(graph.nodes):
        for value in node.inputs:
            if value in graph.producer:
                first_reader.setdefault(graph.producer[value], at)
    for at in reversed(range(len(times))):
        if at not in found and at in first_reader:
            host[at] = host[first_reader[at]]
    hosts = np.array(host, dtype=np.intp)
    if not len(hosts):
        return []
    flops = analysis.flops.astype(np.float64)
    totals = np.bincount(hosts, weights=flops, minlength=len(hosts))
    counts = np.bincount(hosts, minlength=len(hosts))
    shares = np.where(totals[hosts] > 0, flops / np.maximum(totals[hosts], 1.0), 1.0 / counts[hosts])
    spread: list[float] = (shares * np.array(times)[hosts]).tolist()
    return spread


def _seconds_by_name(
    session: TracedSession, warmup: int, pick: Callable[[list[float]], float]
) -> dict[str, float]:
    """Time of each node of the optimised graph."""
    outer = {node.name for node in session.optimized.node}
    taken: dict[str, list[float]] = {}
    for event in session.finish():
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_SUFFIX) and name.removesuffix(_SUFFIX) in outer:
            taken.setdefault(name.removesuffix(_SUFFIX), []).append(event["dur"] / 1e6)
    return {name: pick(times[warmup:]) for name, times in taken.items()}


def _middle_mean(times: list[float]) -> float:
    """The interquartile mean: onnxruntime counts whole microseconds, so a median is coarse."""
    ordered = sorted(times)
    cut = len(ordered) // 4
    middle = ordered[cut : len(ordered) - cut]
    return sum(middle) / len(middle) if middle else 0.0


def _numbered(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its nodes named by their index in the file."""
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    for index, node in enumerate(model.graph.node):
        node.name = f"#{index}"
    return model


def _port(value: onnx.ValueInfoProto) -> Port:
    known = value_type(value.type)
    return Port(name=value.name, dtype=known.dtype_name, shape=known.shape, kind=known.kind)
