"""One inference request on one tier: receive, check, run, send on, answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np

from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.serving.tier.cuts import parse_cuts
from dnnsplit_onnx.serving.tier.engine import Engine, Times
from dnnsplit_onnx.serving.tier.legs import Leg, Route
from dnnsplit_onnx.serving.tier.remote import Remote
from dnnsplit_onnx.serving.tier.sequences import Numbering, Sequence, read_sequence
from dnnsplit_onnx.serving.tier.slots import Grow
from dnnsplit_onnx.serving.wire.arena import Arena
from dnnsplit_onnx.serving.wire.datatypes import misfit
from dnnsplit_onnx.serving.wire.encoding import encode, fits, with_tensors
from dnnsplit_onnx.serving.wire.errors import ProtocolError
from dnnsplit_onnx.serving.wire.exchange import Body, Response, tensor_response
from dnnsplit_onnx.serving.wire.limits import ServerLimits
from dnnsplit_onnx.serving.wire.metrics import Metrics
from dnnsplit_onnx.serving.wire.protocol import Message, ReadInto, TensorHead, parse, take, tensor_of
from dnnsplit_onnx.serving.wire.shared import Region
from dnnsplit_onnx.serving.wire.stream import Deadline, Wanted
from dnnsplit_onnx.serving.wire.trace import Hop, TierTrace

Arrays = dict[str, "np.ndarray | None"]


class Inference:
    """Runs one request.

    Args:
        stage: This tier.
        remote: The next, if there is one to send on to.
        numbering: Numbers the steps of clients that do not.
        limits: How long a request may take.
        metrics: Where times and bytes are counted.
        grow: Asks for the memory that packed tensors take besides the body.
    """

    def __init__(
        self,
        stage: Engine,
        remote: Remote | None,
        numbering: Numbering,
        limits: ServerLimits,
        metrics: Metrics,
        grow: Grow = lambda _: None,
    ) -> None:
        self._stage, self._remote, self._numbering = stage, remote, numbering
        self._limits, self._metrics = limits, metrics
        self._times, self._grow = Times(), grow
        self._received_s = self._unpack_s = 0.0
        self._is_gone: Callable[[], bool] = lambda: False
        self._start = time.perf_counter()

    def run(self, body: Body, arena: Arena) -> Response:
        """The answer to a request whose body is still to be read.

        Raises:
            ServingError: The request is wrong, or cannot be met.
        """
        self._is_gone = body.is_gone
        message = parse(body.read(body.json_length), "inputs", body.unread)
        present, trace = self.answer(message, body.read_into, body.length, arena)
        region = arena.shared.region
        response = self._respond(message, present, trace, region)
        shared = [a.nbytes for name, a in present.items() if fits(a, message.places.get(name), region)]
        self.count_sent(response.length + sum(shared))
        return response

    def answer(
        self, message: Message, read_into: ReadInto, length: int, arena: Arena
    ) -> tuple[dict[str, np.ndarray], str | None]:
        """The outputs that a request wants, and its trace if it wants that.

        Args:
            message: The request, whose binary data is still to be read.
            read_into: Reads that data.
            length: Bytes of the request in all, which are counted.
            arena: Where its tensors go.

        Raises:
            ServingError: The request is wrong, or cannot be met.
        """
        route = self._route(message)
        leg = route.legs[self._stage.tier]
        length += sum(tensor.place.nbytes for tensor in message.tensors if tensor.place is not None)
        available = self._available(leg)
        _check_outputs(message, available)
        values = self._receive(message, leg, read_into, arena)
        deadline = self._deadline(message)
        place = read_sequence(message.parameters)
        turn = nullcontext() if place is None else self._numbering.numbered(place, deadline)
        with turn as sequence:
            results, hops = self._compute(route, leg, values, deadline, sequence)
        self._count(length)
        wanted = available if message.outputs is None else message.outputs
        present = {name: array for name in wanted if (array := results[name]) is not None}
        trace = None
        if message.parameters.get("dnnsplit_trace") is True:
            mine = TierTrace(
                leg.name, self._times.queue_s, self._times.compute_s, time.perf_counter() - self._start
            )
            mine.receive_s, mine.received_nbytes = self._received_s, length
            mine.unpack_s = self._unpack_s
            if hops:
                mine.hop = hops[0]
            tiers = [mine, *(hops[0].tiers if hops else ())]
            trace = json.dumps([tier.to_dict() for tier in tiers])
        return present, trace

    def count_sent(self, nbytes: int) -> None:
        """Counts an answer of so many bytes."""
        self._metrics.add("sent_bytes_total", nbytes, label='peer="client"')
        self._metrics.observe("request_seconds", time.perf_counter() - self._start)

    def _route(self, message: Message) -> Route:
        routes = self._stage.routes
        theirs = message.parameters.get("dnnsplit_manifest", routes.identity)
        routes.check_identity(theirs, self._stage.name)
        tile = message.parameters.get("dnnsplit_tile")
        if isinstance(tile, str):
            return routes.tile(self._stage.tier, tile)
        cuts, until = message.parameters.get("dnnsplit_cuts"), message.parameters.get("dnnsplit_until")
        if until is not None and (type(until) is not int or not self._stage.tier < until < len(routes.tiers)):
            raise ProtocolError("`dnnsplit_until` is no tier above this one")
        return routes.route(routes.cuts if cuts is None else parse_cuts(cuts), until)

    def _available(self, leg: Leg) -> list[str]:
        """Names of what this tier can answer with."""
        if leg.goes_on and self._remote is None:
            # It stands alone, as a plain server of its slice.
            return [port.name for port in leg.own_outputs]
        return [port.name for port in leg.answers]

    def _receive(self, message: Message, leg: Leg, read_into: ReadInto, arena: Arena) -> Arrays:
        ports = leg.named
        for tensor in message.tensors:
            _check_input(tensor, ports.get(tensor.name), leg.name)
        self._make_room(message, arena, pinned=self._stage.is_on_device(leg))
        region = arena.shared.region
        taken = [take(tensor, read_into, arena.allocate, region) for tensor in message.tensors]
        self._received_s = time.perf_counter() - self._start
        values: Arrays = {
            tensor.name: tensor_of(tensor, raw, arena.allocate)
            for tensor, raw in zip(message.tensors, taken, strict=True)
        }
        if any(tensor.is_packed for tensor in message.tensors):
            self._unpack_s = time.perf_counter() - self._start - self._received_s
        for port in leg.arrives:
            if port.name not in values and port.kind != "optional":
                raise ProtocolError(f"input `{port.name}` of tier `{leg.name}` is missing")
        return values

    def _make_room(self, message: Message, arena: Arena, *, pinned: bool) -> None:
        """Sets aside the memory of the tensors, which packed ones have no other bound for than this.

        Raises:
            ProtocolError: They would be longer than a body may be (413).
            BusyError: Others have the memory.
        """
        nbytes = packed = 0
        for tensor in message.tensors:
            nbytes += tensor.memory_nbytes
            packed += tensor.memory_nbytes if tensor.is_packed else 0
        if packed:
            if nbytes > self._limits.body_nbytes:
                limit = self._limits.body_nbytes
                raise ProtocolError(f"{nbytes} bytes are packed; at most {limit} are taken", status=413)
            # Once where they are unpacked, and once where their bytes are put in order.
            self._grow(2 * packed)
        arena.reset(nbytes, len(message.tensors), pinned=pinned)

    def _deadline(self, message: Message) -> Deadline:
        seconds = self._limits.request_s
        timeout = message.parameters.get("timeout")
        if isinstance(timeout, int) and not isinstance(timeout, bool) and timeout > 0:
            seconds = min(timeout, int(seconds * 1e6)) / 1e6  # it may be beyond what a float holds
        return Wanted(seconds - (time.perf_counter() - self._start), self._is_gone)

    def _compute(
        self, route: Route, leg: Leg, values: Arrays, deadline: Deadline, sequence: Sequence | None
    ) -> tuple[Arrays, list[Hop]]:
        deadline.need(f"receiving at tier `{leg.name}`")
        made: Arrays = self._stage.run(leg, values, deadline, self._times, sequence)
        if not leg.goes_on or self._remote is None:
            return made, []
        live = {**values, **made}
        results, hop = self._remote.infer(route, route.sent(leg.tier, live), deadline, sequence)
        self._metrics.observe("transfer_seconds", hop.wire_s)
        self._metrics.add("sent_bytes_total", hop.sent_nbytes, label='peer="next"')
        self._metrics.add("received_bytes_total", hop.received_nbytes, label='peer="next"')
        if hop.saved_nbytes:
            self._metrics.add("packed_total", label='peer="next"')
            self._metrics.add("packed_saved_bytes_total", hop.saved_nbytes, label='peer="next"')
            self._metrics.observe("pack_seconds", hop.pack_s)
        return {**made, **results}, [hop]

    def _respond(
        self,
        message: Message,
        present: Mapping[str, np.ndarray],
        trace: str | None,
        region: Region | None,
    ) -> Response:
        tensors, buffers = encode(present, message.is_binary, region=region, places=message.places)
        data: dict[str, Any] = {"model_name": self._stage.name, "model_version": "1"}
        if message.id is not None:
            data["id"] = message.id
        if trace is not None:
            data["parameters"] = {"dnnsplit_trace": trace}
        return tensor_response(with_tensors(data, outputs=tensors), buffers)

    def _count(self, length: int) -> None:
        self._metrics.add("received_bytes_total", length, label='peer="client"')
        self._metrics.observe("receive_seconds", self._received_s)
        if self._unpack_s:
            self._metrics.observe("unpack_seconds", self._unpack_s)
        self._metrics.observe("queue_seconds", self._times.queue_s)
        self._metrics.observe("compute_seconds", self._times.compute_s)


def _check_outputs(message: Message, available: list[str]) -> None:
    for name in message.outputs or ():
        if name not in available:
            raise ProtocolError(f"there is no output `{name}`")


def _check_input(tensor: TensorHead, port: Port | None, tier: str) -> None:
    if port is None:
        raise ProtocolError(f"tier `{tier}` has no input `{tensor.name}`")
    wrong = misfit(port, tensor.datatype, tensor.shape)
    if wrong is not None:
        raise ProtocolError(f"input `{port.name}` {wrong}")
