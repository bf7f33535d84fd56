"""What is fuzzed: one function for each reader of bytes that may come from anyone.

A target takes any bytes. It may raise the package's own errors, which are caught here;
whatever else it raises is a find. Targets read memory and no files, so that they are fast,
and go as far behind the parser as a command does before it computes for long.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from dnnsplit_onnx.errors import DnnsplitError
from dnnsplit_onnx.graph.graph import Graph, build_graph
from dnnsplit_onnx.graph.modelfile import ModelFile, read_model
from dnnsplit_onnx.graph.protobuf import attach, detach
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.machines.profiles import parse_profile
from dnnsplit_onnx.machines.tiers_file import read_topology
from dnnsplit_onnx.planning.choosing import plan
from dnnsplit_onnx.planning.plans import parse_plan
from dnnsplit_onnx.running.origin import bindings_of
from dnnsplit_onnx.runtime.archive import read_arrays
from dnnsplit_onnx.runtime.pictures import decode
from dnnsplit_onnx.serving.tier.cuts import parse_cuts
from dnnsplit_onnx.serving.tier.grpc_server import as_json
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.tier.sequences import Memories, Numbering, read_sequence
from dnnsplit_onnx.serving.wire.exchange import read_error
from dnnsplit_onnx.serving.wire.grpc_messages import RAW_INPUTS, message_classes, parted
from dnnsplit_onnx.serving.wire.http import parse_request, parse_response
from dnnsplit_onnx.serving.wire.packing import unpack
from dnnsplit_onnx.serving.wire.protocol import Message, message_of, parse, read_object, receive
from dnnsplit_onnx.serving.wire.shared import IS_THERE, Region, key_of, make
from dnnsplit_onnx.serving.wire.shared import attach as attach_region
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.serving.wire.trace import read_trace
from dnnsplit_onnx.slicing.manifest import parse_manifest
from dnnsplit_onnx.slicing.records import check_stages
from dnnsplit_onnx.work.analysis import measure
from dnnsplit_onnx.work.orders import in_order

Target = Callable[[bytes], None]

# A folder that is not there: weights outside the model are looked for and not found.
_NOWHERE = Path("/nonexistent/model.onnx")
_MOST_PROFILED = 10_000
_SOON = Deadline(1e9)


def wire(data: bytes) -> None:
    """The reader of the protobuf wire format, in both directions."""
    skeleton = detach(data, "model.onnx", 8)
    attach(skeleton, "model", lambda _: True)


def model(data: bytes) -> None:
    """A whole model: what `inspect` does with it, short of drawing."""
    graph = build_graph(ModelFile(_NOWHERE, read_model(data, _NOWHERE)))
    analysis = in_order(measure(graph, bind_shapes(graph)), "file")
    _ = analysis.flops_below, analysis.moved_nbytes, analysis.candidates, analysis.memory


def tiers(data: bytes) -> None:
    """A tiers file; a small model is planned over what it describes."""
    topology = read_topology(data, Path("tiers.toml"))
    if len(topology.tiers) <= 4 and not any(tier.profile for tier in topology.tiers):
        figures = plan(_small_graph(), topology).figures
        assert all(np.isfinite((figures.latency_s, figures.cost_usd, figures.throughput_per_s)))


def manifest(data: bytes) -> None:
    """A manifest, as `serve` and `run` take it."""
    found = parse_manifest(data, "manifest.json")
    assert parse_manifest(found.to_json().encode(), "again") == found
    bindings_of(found)
    Routes(found)


def profile(data: bytes) -> None:
    """A measured profile, and the seconds that a plan takes from it."""
    found = parse_profile(data, "profile.json")
    if found.nodes <= _MOST_PROFILED:
        below = found.seconds_below(np.ones(found.nodes, np.int64))
        assert np.all(np.isfinite(below))
        assert np.all(np.diff(below) >= 0)


def plan_file(data: bytes) -> None:
    """A plan file, as `split` takes it."""
    found = parse_plan(data, "plan.json")
    check_stages(_small_graph(), found.figures.stages)
    found.to_dict()


def head(data: bytes) -> None:
    """The head of an HTTP request, and of an answer."""
    for parser in (parse_request, parse_response):
        try:
            parser.__wrapped__(data + b"\r\n\r\n")
        except DnnsplitError:
            continue


def body(data: bytes) -> None:
    """The body of a request and of an answer: the JSON part up to a NUL, then binary data."""
    text, _, binary = data.partition(b"\0")
    for kind in ("inputs", "outputs"):
        try:
            _receive_all(text, binary, kind)
        except DnnsplitError:
            continue
    read_error(text, 500)
    read_trace(text.decode("utf-8", "replace"))


def sequences(data: bytes) -> None:
    """What a request says of its sequence, and steps of a tier that keeps states."""
    memories, numbering = Memories(1 << 16, size_of=lambda _: 1 << 12), Numbering()
    for line in data.split(b"\n")[:64]:
        try:
            place = read_sequence(read_object(line))
            if place is None:
                continue
            assert read_sequence(place.parameters()) == place
            with numbering.numbered(place, _SOON) as numbered:
                assert numbered is not None
                with memories.step(numbered, "slice", lambda: {"sum": 0}, _SOON) as turn:
                    turn.after = {"sum": turn.states["sum"] + 1}
            assert memories.nbytes <= 1 << 16
        except DnnsplitError:
            continue


def grpc(data: bytes) -> None:
    """A request over gRPC, up to the message that a tier works on."""
    head, contents = parted(data, RAW_INPUTS, 1 << 16)
    try:
        request = message_classes()["ModelInferRequest"].FromString(head)
    except DecodeError:
        return
    nbytes = sum(map(len, contents))
    message = message_of(as_json(request, contents, None), "inputs", nbytes)
    parts = iter(contents)

    def read_into(view: memoryview) -> None:
        view[:] = next(parts)

    for tensor in message.tensors:
        receive(tensor, read_into, lambda size: np.empty(size, np.uint8))


def archive(data: bytes) -> None:
    """An archive of inputs."""
    read_arrays(BytesIO(data), "inputs.npz")


def packed(data: bytes) -> None:
    """A packed tensor: the bytes of an element, its elements in two bytes, then what was packed."""
    if len(data) >= 3:
        itemsize = 1 << data[0] % 4
        unpack(memoryview(data)[3:], itemsize, np.empty(itemsize * int.from_bytes(data[1:3]), np.uint8))


def picture(data: bytes) -> None:
    """A file of a picture."""
    decode(data, 8, 8)


def _receive_all(text: bytes, binary: bytes, kind: str) -> None:
    message = parse(text, "inputs" if kind == "inputs" else "outputs", len(binary))
    at = 0

    def read_into(view: memoryview) -> None:
        nonlocal at
        view[:] = binary[at : at + len(view)]
        at += len(view)

    for tensor in message.tensors:
        receive(tensor, read_into, lambda nbytes: np.empty(nbytes, np.uint8), _region(message))
        message.is_binary(tensor.name) if message.outputs is None else None
    if "dnnsplit_cuts" in message.parameters:
        parse_cuts(message.parameters["dnnsplit_cuts"])


def shared(data: bytes) -> None:
    """What a client says of a region that it shares; of a real one where it says nothing."""
    asked = read_object(data)
    region, descriptor = _own_region()
    own = {"name": region.name, "key": key_of(descriptor), **asked}
    attached = attach_region(str(own["name"]), own["key"], own.get("byte_size"))
    assert attached.nbytes <= region.nbytes


def _region(message: Message) -> Region | None:
    """Memory of the name that a message's tensors have for it, where the system has such memory."""
    name = next((tensor.place.region for tensor in message.tensors if tensor.place is not None), None)
    if name is None or not IS_THERE:
        return None
    found = copy(_own_region()[0])
    found.name = name
    return found


@cache
def _own_region() -> tuple[Region, int]:
    return make(1 << 12)


def _small_graph(cache: list[Graph] = []) -> Graph:  # noqa: B006 - made once
    if not cache:
        text = """<ir_version: 8, opset_import: ["" : 17]>
            g (float[1, 64] x) => (float[1, 2] y) <float[64, 8] w, float[8, 2] v> {
                a = MatMul(x, w)
                b = Relu(a)
                c = MatMul(b, v)
                y = Sigmoid(c)
            }"""
        parsed = onnx.parser.parse_model(text)
        for name, shape in (("w", (64, 8)), ("v", (8, 2))):
            parsed.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
        cache.append(build_graph(ModelFile(_NOWHERE, parsed)))
    return cache[0]


TARGETS: dict[str, Target] = {
    "wire": wire,
    "model": model,
    "tiers": tiers,
    "manifest": manifest,
    "profile": profile,
    "plan": plan_file,
    "head": head,
    "body": body,
    "sequences": sequences,
    "grpc": grpc,
    "archive": archive,
    "packed": packed,
    "shared": shared,
    "picture": picture,
}


def run(name: str, data: bytes) -> None:
    """Runs a target on some bytes; what it raises is a find."""
    try:
        TARGETS[name](data)
    except DnnsplitError:
        return
