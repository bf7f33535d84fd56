"""The next tier, as seen from below.

It may be ours or any other server of the Open Inference Protocol. On every fresh connection
it is asked what it serves: ours must have slices of the same manifest, another one must have
a model that is named after the tier and reads what would be sent. Another one may also lack
the binary tensor extension: tensors then travel as JSON, which is exact too, and slow.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from dnnsplit_onnx.graph.dimensions import is_name
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.runtime.pictures import in_pixels
from dnnsplit_onnx.serving.tier.asking import Asking, Lender, Reply
from dnnsplit_onnx.serving.tier.health import Health
from dnnsplit_onnx.serving.tier.legs import Leg, Route
from dnnsplit_onnx.serving.tier.packing import Packing
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.tier.sequences import Sequence
from dnnsplit_onnx.serving.wire.datatypes import BY_ONNX, datatype_of, misfit
from dnnsplit_onnx.serving.wire.encoding import to_text
from dnnsplit_onnx.serving.wire.errors import (
    BusyError,
    DeadlineError,
    LinkError,
    ProtocolError,
    RefusedError,
    ServingError,
)
from dnnsplit_onnx.serving.wire.exchange import Body, read_error
from dnnsplit_onnx.serving.wire.http import ResponseHead
from dnnsplit_onnx.serving.wire.packing import METHOD, PARAMETER, can_pack
from dnnsplit_onnx.serving.wire.pool import Connection, Pool, Target
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.serving.wire.trace import Hop, TierTrace, read_trace

Arrays = dict[str, "np.ndarray | None"]

_LONGEST_JSON = 64 << 20
_PROBE_S = 1.0
_MOST_TIERS = 64
_LONGEST_NAME = 256
_LONGEST_RETRY_S = 60.0
# What the next tier is told to take at most, of the time that is left.
_SHARE_ABOVE = 0.9
_BINARY = "binary_tensor_data"
_UNKNOWN_CODING = 415


class Remote:
    """The next tier.

    Args:
        target: Where it is.
        routes: Of the manifest that both must have.
        tier: Which tier it is, counted from 0.
        alone: Whether it is asked for itself, and tiers above it do not matter.

    Attributes:
        link: The link that leads to it.
        health: Which links can be used from here up.
    """

    def __init__(self, target: Target, routes: Routes, tier: int, *, alone: bool = False) -> None:
        self.target = target
        self.name = routes.tiers[tier]
        self._routes, self._tier = routes, tier
        self._path = f"/v2/models/{self.name}"
        self._pool = Pool(target, self._greet)
        self._lender = Lender()
        self.link = tier - 1
        self.health = Health(self.probe, self.link, tier if alone else len(routes.tiers) - 1)
        # What it is is found out when a connection is made; until the first, nobody knows.
        self._is_known = False
        self._is_ours = self._is_binary = True
        self._packs = False
        self._packing = Packing()

    def infer(
        self,
        route: Route,
        values: Mapping[str, np.ndarray | None],
        deadline: Deadline,
        sequence: Sequence | None = None,
    ) -> tuple[Arrays, Hop]:
        """Has the rest of a request done.

        Args:
            route: What it passes.
            values: What the next tier reads, or passes on.
            deadline: By when the answer must be here. The next tier is told what is left.
            sequence: The request's place in a sequence, if it has one.

        Returns:
            The model's outputs that are made there or above, and where the time went.

        Raises:
            LinkError: A tier above cannot be reached; `link` says which.
            DeadlineError: The answer did not come in time; `link` says over which.
            BusyError: A tier above has no room for it now; `link` leads there.
            RefusedError: A tier above refuses the request, or answers wrongly.
        """
        leg = route.legs[self._tier]
        self.health.check(max(route.links, self._tier))
        with self._watching(deadline):
            self._meet(deadline)
            present = {name: value for name, value in values.items() if value is not None}
            if not self._is_ours:  # it knows no files
                present = dict(in_pixels(present, leg.arrives))
            try:
                reply, hop = self._ask(route, present, deadline, sequence)
            except RefusedError as error:
                if error.status != _UNKNOWN_CODING or not self._packs:
                    raise
                self._packs = False  # another server answers there now
                reply, hop = self._ask(route, present, deadline, sequence)
            results: Arrays = {}
            for port in leg.answers:
                results[port.name] = _checked(port, reply.arrays.get(port.name), self.target.url)
            if not self._is_ours:
                _check_sizes(leg, {**present, **reply.arrays}, self.target.url)
        hop.tiers = read_trace(reply.trace)
        self._packing.learn((route.cuts, route.tile), hop)
        return results, hop

    def _ask(
        self, route: Route, present: Mapping[str, np.ndarray], deadline: Deadline, sequence: Sequence | None
    ) -> tuple[Reply, Hop]:
        """Sends a request, packed if that is worth it, and receives its answer."""
        if not self._is_binary:
            _check_finite(present)
        asking = Asking(
            route.legs[self._tier],
            present,
            self._said(route, sequence, deadline),
            is_binary=self._is_binary,
            packs=self._packs and self._packing.is_worth_it((route.cuts, route.tile), present),
            lender=self._lender if self._is_ours else None,
            refusal=self._refusal,
            url=self.target.url,
        )
        reply, seconds = self._pool.request(
            "POST",
            f"{self._path}/infer",
            asking.read,
            deadline,
            write=asking.write,
            # Another server does not know a step of a sequence that is sent again.
            repeat=self._is_ours or sequence is None,
        )
        sent, saved = asking.sent_nbytes, asking.saved_nbytes
        return reply, Hop(seconds, sent, reply.nbytes, saved_nbytes=saved, pack_s=asking.pack_s)

    def probe(self) -> list[dict[str, Any]]:
        """The tiers from here up, each with its name and whether it is ready; never raises."""
        # The tier that is asked asks the next one meanwhile: each has half the time of the one below.
        deadline = Deadline(_PROBE_S / 2**self.link)
        try:
            tiers, _ = self._pool.request("GET", "/v2/chain", _read_chain, deadline)
            if tiers is None:  # not ours
                ready, _ = self._pool.request("GET", f"{self._path}/ready", _read_ready, deadline)
                tiers = [{"tier": self.name, "ready": ready}]
        except ServingError as error:
            return [{"tier": self.name, "ready": False, "error": error.message}]
        return tiers

    def prepare(self, route: Route, deadline: Deadline) -> None:
        """Has the tiers from here up open their slices of a route.

        Raises:
            ServingError: A tier cannot be reached, or cannot open its slice.
        """
        text = to_text({"dnnsplit_manifest": self._routes.identity, "dnnsplit_cuts": route.text})
        self.health.check(max(route.links, self._tier))
        with self._watching(deadline):
            self._pool.request("POST", "/v2/cuts", self._read_prepared, deadline, buffers=[text])

    def forget(self, name: str, deadline: Deadline) -> None:
        """Has the tiers from here up forget the states of a sequence.

        Raises:
            ServingError: A tier cannot be reached.
        """
        if not (self._is_known and self._is_ours):
            return  # another server forgets what is silent
        self.health.check(self._tier)
        with self._watching(deadline):
            self._pool.request(
                "POST", "/v2/sequences", self._read_prepared, deadline, buffers=[to_text({"end": name})]
            )

    def measure(self, nbytes: int, deadline: Deadline) -> Hop:
        """Sends bytes that mean nothing, to see how the link is when no request tells.

        Raises:
            ServingError: The tier cannot be reached, or is not ours.
        """
        payload = memoryview(bytes(nbytes))
        seconds_there, seconds = self._pool.request(
            "POST", "/v2/link", _read_seconds, deadline, buffers=[payload]
        )
        told = TierTrace(self.name, 0.0, 0.0, seconds_there, seconds_there, nbytes)
        return Hop(seconds, nbytes, 0, (told,))

    def close(self) -> None:
        """Closes its connections, and stops asking whether it is there."""
        self.health.close()
        self._pool.close()

    @contextmanager
    def _watching(self, deadline: Deadline) -> Iterator[None]:
        """Says of what goes wrong inside which link it was, and notes what that tells of the link."""
        if deadline.remaining_s <= 0:
            raise DeadlineError(f"no time is left for tier `{self.name}`", link=self.link)
        try:
            yield
        except (LinkError, DeadlineError, BusyError) as error:
            error.link = self.link if error.link is None else error.link
            if isinstance(error, LinkError):
                self.health.down(error.link, error.message)
            elif isinstance(error, DeadlineError):
                self.health.doubt()
            raise
        except RefusedError as error:
            if error.status == 502 and error.link is None:
                error.link = self.link
            raise

    def _said(self, route: Route, sequence: Sequence | None, deadline: Deadline) -> dict[str, Any]:
        """What a request says besides its tensors."""
        parameters: dict[str, Any] = {}
        if self._is_ours:
            parameters = {
                "dnnsplit_manifest": self._routes.identity,
                "dnnsplit_cuts": route.text,
                "dnnsplit_trace": True,
                **({} if route.tile is None else {"dnnsplit_tile": route.tile}),
                **({} if route.until is None else {"dnnsplit_until": route.until}),
                # Less than there is left here: what goes wrong above is to be told in time.
                "timeout": _rounded_us(_SHARE_ABOVE * deadline.need("sending on")),
            }
        elif route.tile is not None:
            raise ProtocolError(f"`{self.target.url}` is no `serve` of this folder", status=404)
        elif route.cuts != self._routes.cuts:
            raise ProtocolError(f"`{self.target.url}` knows no other cuts than the plan's", status=404)
        if sequence is not None:
            parameters |= sequence.parameters()
        return {"parameters": parameters} if parameters else {}

    def _read_prepared(self, head: ResponseHead, body: Body) -> None:
        # A server that is not ours has nothing at this path, and but one slice to open.
        if head.status != 200 and self._is_ours:
            raise self._refusal(head, body)

    def _refusal(self, head: ResponseHead, body: Body) -> ServingError:
        text = body.read(min(body.length, 1 << 16))
        told = read_error(text, head.status)
        link = told.link
        if link is not None and not self.link <= link < len(self._routes.tiers) - 1:
            link = self.link  # there is no such link above
        if head.status == 504:
            return DeadlineError(told.message, link=link)
        if head.status in (429, 503) and (told.busy or link is None):
            message = f"tier `{self.name}` refuses: {told.message}"
            return BusyError(message, link=link, retry_s=_retry_s(head.fields.get("retry-after", "")))
        if head.status == 503:
            return LinkError(told.message, link=link)
        status = head.status if head.status >= 400 else 502
        return RefusedError(f"tier `{self.name}` refuses: {told.message}", status=status, link=link)

    def _meet(self, deadline: Deadline) -> None:
        """Makes the first connection, so that a request is written as the server reads it."""
        if not self._is_known:
            self._pool.request("GET", f"{self._path}/ready", _read_ready, deadline)

    def _greet(self, connection: Connection, deadline: Deadline) -> None:
        """Asks a fresh connection what it serves.

        Raises:
            LinkError: It is not what is wanted.
        """
        data, _ = connection.exchange("GET", self._path, {}, (), self._read_metadata, deadline)
        parameters = data.get("parameters")
        theirs = parameters.get("dnnsplit_manifest") if isinstance(parameters, dict) else None
        self._is_known = True
        offered = isinstance(parameters, dict) and parameters.get(PARAMETER) == METHOD
        self._packs = self.target.packs and offered and theirs is not None and can_pack()
        if theirs is None:
            self._is_ours = False
            _check_inputs(data, self._routes.default.legs[self._tier], self.target.url)
            self._is_binary, _ = connection.exchange("GET", "/v2", {}, (), _read_is_binary, deadline)
            return
        self._is_ours = self._is_binary = True
        if theirs != self._routes.identity:
            raise LinkError(
                f"tier `{self.name}` at `{self.target.url}` has slices of another manifest",
                hint="copy the same folder of slices to every tier",
            )

    def _read_metadata(self, head: ResponseHead, body: Body) -> dict[str, Any]:
        if head.status != 200 or body.length > _LONGEST_JSON:
            told = read_error(body.read(min(body.length, 1 << 16)), head.status)
            raise LinkError(f"`{self.target.url}` does not serve tier `{self.name}`: {told.message}")
        data = _read_json(body)
        if not isinstance(data, dict):
            raise LinkError(f"`{self.target.url}` does not describe tier `{self.name}`")
        return data


def _rounded_us(seconds: float) -> int:
    """Microseconds, rounded down to two digits, so that one request's text is the next one's too."""
    microseconds = max(1, int(seconds * 1e6))
    unit: int = 10 ** max(0, len(str(microseconds)) - 2)
    return microseconds // unit * unit


def _retry_s(text: str) -> float:
    """When to try again, from a header field; the protocol has it in whole seconds."""
    return float(min(int(text), _LONGEST_RETRY_S)) if text.isdecimal() and len(text) < 9 else 1.0


def _read_json(body: Body) -> Any:
    try:
        return json.loads(body.read(body.length))
    except (ValueError, RecursionError):
        return None


def _read_chain(head: ResponseHead, body: Body) -> list[dict[str, Any]] | None:
    """What `/v2/chain` says; None if the server has none."""
    if head.status != 200 or body.length > _LONGEST_JSON:
        return None
    data = _read_json(body)
    tiers = data.get("tiers") if isinstance(data, dict) else None
    if not isinstance(tiers, list) or not 0 < len(tiers) <= _MOST_TIERS:
        return None
    if not all(isinstance(tier, dict) and isinstance(tier.get("ready"), bool) for tier in tiers):
        return None
    return [
        {"tier": str(tier.get("tier"))[:_LONGEST_NAME], "ready": tier["ready"]}
        | ({"error": " ".join(str(tier["error"]).split())[:_LONGEST_NAME]} if "error" in tier else {})
        for tier in tiers
    ]


def _read_seconds(head: ResponseHead, body: Body) -> float:
    data = _read_json(body) if head.status == 200 and body.length < _LONGEST_JSON else None
    milliseconds = data.get("receive_ms") if isinstance(data, dict) else None
    if not isinstance(milliseconds, int | float) or not 0 <= milliseconds < 1e9:
        raise RefusedError("the next tier measures no links")
    return milliseconds / 1e3


def _read_is_binary(head: ResponseHead, body: Body) -> bool:
    """Whether a server says that it reads and writes tensors as binary data."""
    data = _read_json(body) if head.status == 200 and body.length < _LONGEST_JSON else None
    extensions = data.get("extensions") if isinstance(data, dict) else None
    return isinstance(extensions, list) and _BINARY in extensions


def _read_ready(head: ResponseHead, body: Body) -> bool:  # noqa: ARG001
    return head.status == 200


def _check_finite(values: Mapping[str, np.ndarray]) -> None:
    """Refuses what strict JSON has no words for; our own server reads it all the same."""
    for name, array in values.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ProtocolError(
                f"value `{name}` has numbers that are not finite, which JSON lacks, and the next tier "
                "reads no binary data",
                status=422,
            )


def _checked(port: Port, array: np.ndarray | None, url: str) -> np.ndarray | None:
    if array is None:
        if port.kind == "optional":
            return None
        raise RefusedError(f"the answer of `{url}` lacks output `{port.name}`")
    wrong = misfit(port, datatype_of(array), array.shape)
    if wrong is not None:
        raise RefusedError(f"the answer of `{url}` is wrong: output `{port.name}` {wrong}")
    return array


def _check_sizes(leg: Leg, values: Mapping[str, np.ndarray], url: str) -> None:
    """Holds answers to the dimensions that have one name and so one size, as `batch` has.

    What the request itself gave unequal sizes has none.
    """
    sizes: dict[str, int] = {}
    unequal: set[str] = set()
    asked = {port.name for port in leg.arrives}
    for port in (*leg.arrives, *leg.answers):
        value = values.get(port.name)
        if value is None or port.shape is None or len(port.shape) != value.ndim:
            continue
        for name, size in zip(port.shape, value.shape, strict=True):
            if not isinstance(name, str) or not is_name(name) or sizes.setdefault(name, size) == size:
                continue
            if port.name in asked:
                unequal.add(name)
            elif name not in unequal:
                raise RefusedError(
                    f"the answer of `{url}` is wrong: dimension `{name}` of `{port.name}` is {size}, "
                    f"and {sizes[name]} elsewhere"
                )


def _check_inputs(data: Mapping[str, Any], leg: Leg, url: str) -> None:
    """Holds the inputs of a server that is not ours against what it would be sent."""
    described = data.get("inputs")
    entries = described if isinstance(described, list) else []
    theirs = {entry.get("name"): entry.get("datatype") for entry in entries if isinstance(entry, dict)}
    ours = {port.name: BY_ONNX[port.dtype or ""].name for port in leg.arrives}
    if theirs != ours:
        raise LinkError(
            f"model `{leg.name}` at `{url}` reads {sorted(map(str, theirs))}, not {sorted(ours)}",
            hint="serve the slice that this manifest lists",
        )
