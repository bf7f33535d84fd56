"""What crosses the cuts, written in every code: bytes, and seconds to write, read, pack and unpack.

Bytes of packed tensors depend on the data, so the values are those of real inputs where they are
given, and the figures are medians over them. Each code is the very nodes that a slice would have,
in a model of their own:

    v -> encode -> v/uint8/*        v/uint8/* -> decode -> v
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.graph.shapes import ValueType
from dnnsplit_onnx.machines.profiles import CodeTimes
from dnnsplit_onnx.measuring.profiling.segments import segment_cuts
from dnnsplit_onnx.runtime.inputs import input_sets, to_values
from dnnsplit_onnx.runtime.packing import can_pack, pack, unpack
from dnnsplit_onnx.runtime.pictures import Picture, is_of_pictures, load_pictures
from dnnsplit_onnx.runtime.provider import runtime
from dnnsplit_onnx.runtime.samples import sample_sets
from dnnsplit_onnx.runtime.sessions import (
    Session,
    SessionOptions,
    create_session,
    open_session,
    session_settings,
)
from dnnsplit_onnx.runtime.values import Value, to_python
from dnnsplit_onnx.slicing.coding import Coded, Nodes, decode, encode
from dnnsplit_onnx.slicing.extract import port
from dnnsplit_onnx.work.analysis import Analysis
from dnnsplit_onnx.work.codes import LOSSY, RAW, parts
from dnnsplit_onnx.work.cuts import live_values

#: More samples tell little more of medians.
MOST_SAMPLES = 16
# Values are held in memory together for all samples, up to so many bytes.
_GROUP_NBYTES = 256 << 20
_RUNS = 5
_OPSET = 13


def measure_codes(
    analysis: Analysis,
    *,
    options: SessionOptions | None = None,
    inputs: Mapping[str, Any] | str | Path | None = None,
    samples: str | Path | None = None,
) -> tuple[CodeTimes, ...]:
    """Every code of every value that crosses a candidate cut.

    Args:
        analysis: The model, its symbolic dimensions bound.
        options: Provider and threads.
        inputs: Arrays by name, or an `.npz` file; random by default.
        samples: An `.npz` file of several inputs, in place of `inputs`.

    Returns:
        For each value `raw` first; what is of unknown size is left out.

    Raises:
        InputError: The inputs do not fit the model.
        ModelError: onnxruntime cannot load or run the model.
    """
    graph, options = analysis.graph, options or SessionOptions()
    ports = [port(value) for value in graph.proto.graph.input if value.name in set(graph.inputs)]
    sets = _inputs(ports, analysis, inputs, samples)
    cuts = [0, *segment_cuts(analysis)]
    crossing = dict.fromkeys(value for cut in cuts for value in live_values(graph, cut))
    sized = [value for value in crossing if analysis.types.nbytes(value)]
    files = () if samples is None or not is_of_pictures(samples) else _decoded(ports, samples)
    return (*files, *_of_values(analysis, sized, sets, options))


def _of_values(
    analysis: Analysis, sized: Sequence[str], sets: Sequence[Mapping[str, Value]], options: SessionOptions
) -> Iterator[CodeTimes]:
    return (
        times
        for group in _groups(sized, analysis, len(sets))
        for value, arrays in _values(analysis, group, sets, options).items()
        for times in _measured(value, analysis.types[value], arrays, options)
    )


def _decoded(ports: Sequence[Port], samples: str | Path) -> Iterator[CodeTimes]:
    """The files of pictures as a code of their input: how long they are, and seconds to decode one."""
    kinds: dict[tuple[str, str], list[Picture]] = {}
    for values, _ in load_pictures(samples, ports)[:MOST_SAMPLES]:
        for name, picture in values.items():
            kinds.setdefault((name, picture.code), []).append(picture)
    for (name, code), pictures in kinds.items():
        yield CodeTimes(
            value=name,
            code=code,
            nbytes=round(statistics.median(len(one.data) for one in pictures)),
            decode_s=statistics.median(_seconds(one.pixels) for one in pictures),
            error=0.0 if code == "png" else None,
        )


def _inputs(
    ports: Sequence[Port], analysis: Analysis, inputs: Any, samples: str | Path | None
) -> list[dict[str, Value]]:
    bindings = dict(analysis.types.bindings)
    found = (
        input_sets(ports, inputs, bindings, seed=0, runs=1)
        if samples is None
        else sample_sets(ports, samples, bindings)[:MOST_SAMPLES]
    )
    return [to_values(ports, one.values) for one in found]


def _groups(values: Sequence[str], analysis: Analysis, samples: int) -> Iterator[list[str]]:
    """Values that fit into memory together; one alone may be larger."""
    group: list[str] = []
    held = 0
    for value in values:
        nbytes = samples * (analysis.types.nbytes(value) or 0)
        if group and held + nbytes > _GROUP_NBYTES:
            yield group
            group, held = [], 0
        group.append(value)
        held += nbytes
    if group:
        yield group


def _values(
    analysis: Analysis, group: Sequence[str], sets: Sequence[Mapping[str, Value]], options: SessionOptions
) -> dict[str, list[np.ndarray]]:
    """What some values are, for each set of inputs."""
    ort, graph = runtime(), analysis.graph
    inner = [value for value in group if value not in graph.inputs]
    session = open_session(
        graph.file.path,
        options,
        label="the whole model",
        expose=[value for value in inner if value not in graph.outputs],
    )
    found: dict[str, list[np.ndarray]] = {value: [] for value in group}
    for values in sets:
        made = session.run(values) if inner else {}
        for value in group:
            array = to_python(ort, made[value] if value in made else values[value])
            if not isinstance(array, np.ndarray):
                continue
            if array.shape != analysis.types[value].shape:
                raise InputError(
                    f"value `{value}` has the shape {list(array.shape)} for these inputs, and "
                    f"{list(analysis.types[value].shape or ())} in the analysis",
                    hint="bind the sizes that the inputs have: --bind NAME=N",
                )
            found[value].append(array)
    return {value: arrays for value, arrays in found.items() if arrays}


def _measured(
    value: str, kind: ValueType, arrays: Sequence[np.ndarray], options: SessionOptions
) -> Iterator[CodeTimes]:
    """A value in each code that applies to it."""
    for code in (RAW, *LOSSY):
        if not parts(code, kind):
            continue
        tensors, encode_s, decode_s = [[array] for array in arrays], 0.0, 0.0
        error: float | None = 0.0
        if code != RAW:
            tensors, encode_s, decode_s, error = _coded(
                Coded(value, code, kind, f"{value}/{code}"), arrays, options
            )
        packs = can_pack() and all(tensor.dtype.kind != "O" for one in tensors for tensor in one)
        packed, pack_s, unpack_s = _packed(tensors) if packs else ([], 0.0, 0.0)
        middle = statistics.median(packed) if packed else 0
        low, high = np.percentile(packed, (25, 75)) if packed else (0, 0)
        yield CodeTimes(
            value=value,
            code=code,
            nbytes=sum(tensor.nbytes for tensor in tensors[0]),
            packed_nbytes=round(middle) if packed else None,
            spread=float(high - low) / 2 / middle if middle else 0.0,
            encode_s=encode_s,
            decode_s=decode_s,
            pack_s=pack_s,
            unpack_s=unpack_s,
            error=error,
        )


def _coded(
    coded: Coded, arrays: Sequence[np.ndarray], options: SessionOptions
) -> tuple[list[list[np.ndarray]], float, float, float | None]:
    """The tensors that a value becomes, seconds to write and to read it once, and what is lost."""
    ort = runtime()
    writes, reads = _sessions(coded, options)
    ports = [Port(name=coded.value, dtype=coded.type.dtype_name, shape=coded.type.shape)]
    given = [to_values(ports, {coded.value: array}) for array in arrays]
    made = [writes.run(values) for values in given]
    encode_s = _seconds(lambda: [writes.run(one) for one in given]) / len(arrays)
    decode_s = _seconds(lambda: [reads.run(one) for one in made]) / len(arrays)
    lost = [
        _error(array, np.asarray(to_python(ort, reads.run(one)[coded.value])))
        for array, one in zip(arrays, made, strict=True)
    ]
    tensors = [[np.asarray(to_python(ort, one)) for one in each.values()] for each in made]
    return tensors, encode_s, decode_s, None if None in lost else max(one or 0.0 for one in lost)


def _error(value: np.ndarray, read: np.ndarray) -> float | None:
    """The largest error over the largest element, None if that is no number."""
    wide, largest = value.astype(np.float64), float(np.abs(value.astype(np.float64)).max(initial=0.0))
    with np.errstate(invalid="ignore"):  # where the value itself is not finite
        error = float(np.abs(read.astype(np.float64) - wide).max(initial=0.0))
    relative = error / largest if largest else error
    return relative if np.isfinite(relative) else None


def _sessions(coded: Coded, options: SessionOptions) -> tuple[Session, Session]:
    """What writes a value, and what reads it."""
    own = helper.make_tensor_value_info(coded.value, coded.type.dtype, coded.type.shape)
    writes = _session(encode(coded, _OPSET), [own], coded.outputs(), options)
    return writes, _session(decode(coded, _OPSET), coded.outputs(), [own], options)


def _session(
    nodes: Nodes,
    reads: Sequence[onnx.ValueInfoProto],
    makes: Sequence[onnx.ValueInfoProto],
    options: SessionOptions,
) -> Session:
    graph = helper.make_graph(nodes.nodes, "code", reads, makes, nodes.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    settings = session_settings(runtime(), options)
    label = "the nodes of a code"
    made = create_session(model.SerializeToString(), settings, options, label)
    return Session(made, label, options.provider)


def _packed(samples: Sequence[Sequence[np.ndarray]]) -> tuple[list[int], float, float]:
    """Bytes of the packed tensors of each sample, and seconds a sample to pack and to unpack them."""
    flat = [
        [(np.ascontiguousarray(t).reshape(-1).view(np.uint8), t.itemsize) for t in one] for one in samples
    ]
    made = [[pack(raw.data, size) for raw, size in one] for one in flat]
    # What packing makes no smaller is sent as it is.
    nbytes = [
        sum(min(len(done), raw.nbytes) for done, (raw, _) in zip(packed, one, strict=True))
        for packed, one in zip(made, flat, strict=True)
    ]

    def again() -> None:
        for packed, one in zip(made, flat, strict=True):
            for done, (raw, size) in zip(packed, one, strict=True):
                unpack(memoryview(done), size, np.empty(raw.nbytes, np.uint8))

    pack_s = _seconds(lambda: [pack(raw.data, size) for one in flat for raw, size in one])
    return nbytes, pack_s / len(flat), _seconds(again) / len(flat)


def _seconds(once: Callable[[], Any]) -> float:
    """Median seconds of a call."""
    taken = []
    once()
    for _ in range(_RUNS):
        start = time.perf_counter()
        once()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)
