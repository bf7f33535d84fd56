"""A chain of slices run one after the other, as simply as can be, beside the whole model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnxruntime as ort

from dnnsplit_onnx.graph.graph import Graph, load_graph
from dnnsplit_onnx.planning.figures import Figures, Stage, Transfer
from dnnsplit_onnx.planning.plans import Plan
from dnnsplit_onnx.slicing import slice_model
from dnnsplit_onnx.slicing.checking import check_files
from dnnsplit_onnx.slicing.manifest import Manifest


def plan_at(graph: Graph, cuts: tuple[int, ...], names: tuple[str, ...] | None = None) -> Plan:
    """A plan that cuts at these positions, its figures all zero."""
    ends = [0, *cuts, len(graph.nodes)]
    names = names or tuple(f"t{i}" for i in range(len(cuts) + 1))
    stages = tuple(
        Stage(name, start, stop, 0, 0.0, 0.0, None)
        for name, (start, stop) in zip(names, pairwise(ends), strict=True)
    )
    links = tuple(
        Transfer(below, above, cut, None, 0, 0.0, 0.0, None)
        for (below, above), cut in zip(pairwise(names), cuts, strict=True)
    )
    figures = Figures(stages, links, 0.0, 0.0, 0.0, None)
    return Plan("latency", "at", "none", True, (), figures, ())


def session(path: Path, level: str = "ORT_DISABLE_ALL", **config: str) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    for key, value in config.items():
        options.add_session_config_entry(key, value)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def reference(path: Path) -> Any:
    return onnx.reference.ReferenceEvaluator(str(path))


Loader = Callable[[Path], Any]


def run_whole(path: Path, feeds: Mapping[str, Any], load: Loader = session) -> dict[str, Any]:
    names = [output.name for output in onnx.load(path, load_external_data=False).graph.output]
    return dict(zip(names, load(path).run(names, dict(feeds)), strict=True))


def run_chain(
    folder: Path, manifest: Manifest, feeds: Mapping[str, Any], load: Loader = session
) -> dict[str, Any]:
    """Runs all slices; a tier gets its states, what the one below sends, and nothing else."""
    sent = dict(feeds)
    states = {state.input: feeds[state.input] for state in manifest.states if state.input in feeds}
    results = {port.name: feeds[port.name] for port in manifest.model.outputs if port.name in feeds}
    wanted = {port.name for port in manifest.model.outputs}
    for record in manifest.slices:
        made: dict[str, Any] = {}
        if record.file is not None:
            check_files(folder, record)
            part = load(folder / record.file)
            names = [port.name for port in record.outputs]
            data = {port.name for port in record.inputs}
            inputs = {name: states[name] if name in states else sent[name] for name in data}
            made = dict(zip(names, _run(part, names, inputs, _has_numpy_types(manifest)), strict=True))
        results.update((name, value) for name, value in made.items() if name in wanted)
        sent = {name: sent[name] for name in record.forward} | made
    return results


def _has_numpy_types(manifest: Manifest) -> bool:
    """Whether numpy can hold everything that is sent; else onnxruntime's own values must."""
    dtypes = {port.dtype or "" for record in manifest.slices for port in record.outputs}
    return not any(dtype.startswith(("bfloat16", "float8", "float4", "int4", "uint4")) for dtype in dtypes)


def _run(part: Any, names: list[str], inputs: dict[str, Any], as_numpy: bool) -> list[Any]:
    if as_numpy:
        return list(part.run(names, inputs))
    values = {
        k: v if isinstance(v, ort.OrtValue) else ort.OrtValue.ortvalue_from_numpy(v)
        for k, v in inputs.items()
    }
    return list(part.run_with_ort_values(names, values))


def same(a: Any, b: Any) -> bool:
    """Whether two results are the same, bit for bit."""
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if a is None or b is None:
        return a is b
    a, b = (v.numpy() if isinstance(v, ort.OrtValue) else np.asarray(v) for v in (a, b))
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bool((a == b).all()) if a.dtype == object else a.tobytes() == b.tobytes()


def check_cut(
    path: Path,
    cuts: tuple[int, ...],
    feeds: Mapping[str, Any],
    output: Path,
    *,
    graph: Graph | None = None,
    load: Loader = session,
    expected: Mapping[str, Any] | None = None,
) -> Manifest:
    """Slices a model and holds the chain against the whole, bit for bit."""
    graph = graph or load_graph(path)
    manifest = slice_model(graph, plan_at(graph, cuts), output, force=True)
    expected = run_whole(path, feeds, load) if expected is None else expected
    actual = run_chain(output, manifest, feeds, load)
    assert actual.keys() == expected.keys()
    for name in expected:
        assert same(expected[name], actual[name]), f"`{name}` differs, cut at {cuts}"
    return manifest
