"""The paths of the Open Inference Protocol, and what each answers.

    GET  /v2                          the server
    GET  /v2/health/live              the process answers
    GET  /v2/health/ready             a slice has really run, and there is room for a request
    GET  /v2/models/NAME              what the tier reads and answers with
    GET  /v2/models/NAME/ready
    GET  /v2/models/NAME/config       the same as Triton's model configuration
    GET  /v2/models/NAME/stats        counts and times, as Triton's statistics
    POST /v2/models/NAME/infer        one request
    GET  /v2/chain                    this tier and those above it (an extension)
    POST /v2/link                     measures the link that leads here (an extension)
    POST /v2/sequences                forgets the states of a sequence, here and above (an extension)
    POST /v2/cuts                     opens the slices of some cuts, here and above (an extension)
    POST /v2/systemsharedmemory/region/NAME/register    memory of a client on this machine
    GET  /metrics                     for Prometheus
    GET  /...                         the files of a site, if there is one
    OPTIONS /...                      whether a page of another origin may ask

A model is named after its tier, and may be followed by `/versions/1`.

Parameters of an inference request that are this project's own: `dnnsplit_cuts` (which
slices to run, `12,40`), `dnnsplit_until` (the tiers from this one up are the client's own),
`dnnsplit_manifest` (what the sender's slices were cut from) and `dnnsplit_trace` (asks for
times). `timeout`, in microseconds, is Triton's, and so are `sequence_id`, `sequence_start` and
`sequence_end` of requests that belong together, which `dnnsplit_step` numbers. A tensor with
`dnnsplit_packed` is packed, which the server's metadata offers under the same name.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dnnsplit_onnx._version import __version__
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.serving.tier.cuts import format_cuts, parse_cuts
from dnnsplit_onnx.serving.tier.engine import Engine
from dnnsplit_onnx.serving.tier.inference import Inference
from dnnsplit_onnx.serving.tier.remote import Remote
from dnnsplit_onnx.serving.tier.sequences import Numbering
from dnnsplit_onnx.serving.tier.slots import Admission
from dnnsplit_onnx.serving.tier.triton import model_config, model_statistics
from dnnsplit_onnx.serving.wire.arena import Arena
from dnnsplit_onnx.serving.wire.datatypes import BY_ONNX, fixed_shape
from dnnsplit_onnx.serving.wire.errors import LinkError, ProtocolError
from dnnsplit_onnx.serving.wire.exchange import Body, Response, json_response
from dnnsplit_onnx.serving.wire.handler import Send
from dnnsplit_onnx.serving.wire.http import RequestHead
from dnnsplit_onnx.serving.wire.limits import ServerLimits
from dnnsplit_onnx.serving.wire.metrics import CONTENT_TYPE, Metrics, process_metrics
from dnnsplit_onnx.serving.wire.origins import Origins
from dnnsplit_onnx.serving.wire.packing import METHOD, PARAMETER, can_pack
from dnnsplit_onnx.serving.wire.protocol import read_object
from dnnsplit_onnx.serving.wire.site import Site
from dnnsplit_onnx.serving.wire.stream import Deadline

_VERSION = "1"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics")
#: What the server says of itself.
SERVER = {"name": "dnnsplit-onnx", "version": __version__, "extensions": list(EXTENSIONS)}
_LONGEST_MEASURE = 4 << 20
_LONGEST_ASKED = 4096
# What begins otherwise belongs to a site.
_OWN_PATHS = ("v2", "metrics")


class Service:
    """Answers the requests of one tier.

    Args:
        stage: What runs the tier's slices.
        remote: The next tier; None if this is the last, or stands alone.
        limits: What is too much.
        token: What clients must show; None if none is asked for.
        origins: Which pages of browsers may ask; none by default.
        site: Files for browsers, for which no token is asked; None if there are none.
    """

    methods = "GET, HEAD, POST"

    def __init__(
        self,
        stage: Engine,
        remote: Remote | None = None,
        limits: ServerLimits | None = None,
        token: str | None = None,
        *,
        origins: Origins | None = None,
        site: Site | None = None,
    ) -> None:
        self.stage, self.remote = stage, remote
        self.limits = limits or ServerLimits()
        self.admission = Admission(self.limits.requests, self.limits.bodies_nbytes)
        self.metrics = _declare(Metrics(), stage, self.admission)
        # Where all shapes are fixed, nothing needs a longer body than they do.
        most = stage.routes.most_nbytes(stage.tier)
        self._longest = self.limits.body_nbytes
        if most is not None:
            self._longest = min(self._longest, most + self.limits.json_nbytes)
        self.draining = False
        self._origins, self._site = origins or Origins(), site
        self._drained = Deadline(0.0)
        self._numbering = Numbering()
        self._token = None if token is None else f"Bearer {token}".encode()

    def admit(self, head: RequestHead) -> Mapping[str, str]:
        """Lets a request in, or not: which pages of browsers may ask; see `Origins.admit`."""
        return self._origins.admit(head.fields)

    def answer(self, head: RequestHead, body: Body, arena: Arena, send: Send) -> None:
        """Answers one request.

        Raises:
            OSError: The client went away.
            DnnsplitError: What it is to be told.
        """
        if head.method == "OPTIONS":  # it never shows a token
            send(self._origins.preflight(head.fields))
            return
        parts = head.path.split("/")[1:]
        if head.method in ("GET", "HEAD") and self._site is not None and parts[0] not in _OWN_PATHS:
            send(self._site.get(head.path))
            return
        self._authorize(head, parts)
        if head.method == "POST":
            self._post(parts, body, arena, send)
        elif head.method in ("GET", "HEAD"):
            send(self._get(parts))
        else:
            raise ProtocolError(f"method {head.method} is not supported", status=405)

    def drain(self) -> None:
        """Refuses new requests, and waits for those under way."""
        if not self.draining:
            self.draining, self._drained = True, Deadline(self.limits.drain_s)
        self.admission.wait_idle(max(0.0, self._drained.remaining_s))

    def close(self) -> None:
        """Closes the connections to the next tier, and the engine."""
        self.stage.close()
        if self.remote is not None:
            self.remote.close()

    def _authorize(self, head: RequestHead, parts: list[str]) -> None:
        if parts[:2] != ["v2", "health"]:
            self.check_token(head.fields.get("authorization", "").encode("latin-1"))

    def check_token(self, shown: bytes) -> None:
        """Refuses a client that does not show the token, if one is asked for.

        Args:
            shown: The header field `Authorization`.

        Raises:
            ProtocolError: It is another one (401).
        """
        if self._token is not None and not hmac.compare_digest(shown, self._token):
            raise ProtocolError("the bearer token is missing or wrong", status=401)

    def _get(self, parts: list[str]) -> Response:
        match parts:
            case ["v2"]:
                return json_response(SERVER)
            case ["v2", "health", "live"]:
                return json_response({"live": True})
            case ["v2", "health", "ready"]:
                return self._ready(self.ready and not self.admission.is_full)
            case ["v2", "chain"]:
                return json_response({"tiers": self._chain()})
            case ["metrics"]:
                text = self.metrics.render() + process_metrics()
                return Response(200, {"Content-Type": CONTENT_TYPE}, [text.encode()])
            case ["v2", "models", "stats"]:
                return json_response(model_statistics(self.stage.name, self.metrics))
            case ["v2", "models", *rest]:
                match self._of_model(rest):
                    case []:
                        return json_response(self.metadata())
                    case ["config"]:
                        return json_response(model_config(self.metadata()))
                    case ["stats"]:
                        return json_response(model_statistics(self.stage.name, self.metrics))
                    case ["ready"]:
                        return self._ready(self.ready)
        raise ProtocolError("there is nothing at this path", status=404)

    def _post(self, parts: list[str], body: Body, arena: Arena, send: Send) -> None:
        if parts == ["v2", "link"]:
            send(self._measure_link(body))
            return
        if parts == ["v2", "cuts"]:
            send(self._prepare(body))
            return
        if parts == ["v2", "sequences"]:
            send(self._forget(body))
            return
        if parts[:3] == ["v2", "systemsharedmemory", "region"] and parts[4:] == ["register"]:
            arena.shared.register(parts[3], _read_short(body))
            send(json_response({}))
            return
        if parts[:2] != ["v2", "models"] or self._of_model(parts[2:]) != ["infer"]:
            raise ProtocolError("there is nothing to post to at this path", status=404)
        self._check_lengths(body)
        # The answer is written inside: until it is, the request takes memory.
        with self.inference(body.length) as inference:
            send(inference.run(body, arena))

    @contextmanager
    def inference(self, nbytes: int) -> Iterator[Inference]:
        """Lets a request of so many bytes in, to be run and answered inside.

        Raises:
            ServingError: It is refused without waiting (503).
        """
        if self.draining:
            # To the tier below, that is a link that goes down.
            below = self.stage.tier - 1 if self.stage.tier else None
            raise LinkError("the server is stopping", link=below)
        with self.admission.enter(nbytes) as grow:
            try:
                yield Inference(self.stage, self.remote, self._numbering, self.limits, self.metrics, grow)
            except Exception:  # of any kind: it is counted here, and told by whoever catches it
                self.metrics.add("requests_failed_total")
                raise

    def _measure_link(self, body: Body) -> Response:
        """Receives a body that means nothing, and tells how long that took."""
        if body.length > _LONGEST_MEASURE:
            raise ProtocolError(f"at most {_LONGEST_MEASURE} bytes are measured", status=413)
        start = time.perf_counter()
        body.discard()
        return json_response({"receive_ms": (time.perf_counter() - start) * 1e3})

    def _prepare(self, body: Body) -> Response:
        """Opens the slices of some cuts, so that no request has to wait for that."""
        asked = _read_short(body)
        routes = self.stage.routes
        routes.check_identity(asked.get("dnnsplit_manifest"), self.stage.name)
        route = routes.route(parse_cuts(asked.get("dnnsplit_cuts")))
        leg = route.legs[self.stage.tier]
        self.stage.open(leg)
        if leg.goes_on and self.remote is not None:
            self.remote.prepare(route, Deadline(self.limits.request_s))
        return json_response({"cuts": format_cuts(route.cuts)})

    def _forget(self, body: Body) -> Response:
        """Forgets the states of a sequence that has ended."""
        name = _read_short(body).get("end")
        if not isinstance(name, str):
            raise ProtocolError("`end` is no name of a sequence")
        self.stage.forget(name)
        if self.remote is not None:
            self.remote.forget(name, Deadline(self.limits.request_s))
        return json_response({"end": name})

    def _check_lengths(self, body: Body) -> None:
        if body.length == 0:
            raise ProtocolError("the request has no body, or no `Content-Length`", status=411)
        if body.length > self._longest:
            raise ProtocolError(
                f"the body has {body.length} bytes; at most {self._longest} are taken", status=413
            )
        if body.json_length > self.limits.json_nbytes:
            limit = self.limits.json_nbytes
            raise ProtocolError(
                f"the JSON part has {body.json_length} bytes; at most {limit} are taken: send binary data",
                status=413,
            )

    def _of_model(self, rest: list[str]) -> list[str]:
        """What follows the model's name and version."""
        if rest[1:2] == ["versions"]:
            self.check_model(rest[0], rest[2] if len(rest) > 2 else "")
            return rest[3:]
        self.check_model(rest[0] if rest else "")
        return rest[1:]

    def check_model(self, name: str, version: str = _VERSION) -> None:
        """Refuses what names another model than this tier's.

        Raises:
            ProtocolError: It does (404).
        """
        if name != self.stage.name:
            raise ProtocolError(f"there is one model here, `{self.stage.name}`", status=404)
        if version != _VERSION:
            raise ProtocolError(f"the only version is {_VERSION}", status=404)

    @property
    def ready(self) -> bool:
        """Whether requests are taken, as long as there is room for them."""
        return self.stage.ready and not self.draining

    @staticmethod
    def _ready(ready: bool) -> Response:
        return json_response({"ready": ready}, 200 if ready else 503)

    def _chain(self) -> list[dict[str, Any]]:
        mine = {"tier": self.stage.name, "ready": self.ready}
        return [mine, *(self.remote.probe() if self.remote is not None else ())]

    def metadata(self) -> dict[str, Any]:
        """What the tier reads and answers with, as `GET /v2/models/NAME` says it."""
        routes, leg = self.stage.routes, self.stage.routes.default.legs[self.stage.tier]
        alone = self.remote is None and leg.goes_on
        outputs = leg.own_outputs if alone else leg.answers
        return {
            "name": self.stage.name,
            "versions": [_VERSION],
            "platform": "onnxruntime_onnx",
            "inputs": [_described(port) for port in leg.arrives],
            "outputs": [_described(port) for port in outputs],
            "parameters": {
                "dnnsplit_manifest": routes.identity,
                "dnnsplit_cuts": format_cuts(routes.cuts),
                **({PARAMETER: METHOD} if can_pack() else {}),
            },
        }


def _read_short(body: Body) -> dict[str, Any]:
    """The object that a short body is.

    Raises:
        ProtocolError: It is none, or not short.
    """
    if not 0 < body.length <= _LONGEST_ASKED:
        raise ProtocolError(f"the body is not of 1 to {_LONGEST_ASKED} bytes", status=413)
    return read_object(body.read(body.length))


def _described(port: Port) -> dict[str, Any]:
    return {"name": port.name, "datatype": BY_ONNX[port.dtype or ""].name, "shape": fixed_shape(port)}


def _declare(metrics: Metrics, stage: Engine, admission: Admission) -> Metrics:
    started = time.time()
    metrics.counter("responses_total", "Answers, by HTTP status.")
    metrics.counter("requests_failed_total", "Requests that were let in and got an error.")
    metrics.counter("received_bytes_total", "Bytes of bodies received, by peer.")
    metrics.counter("sent_bytes_total", "Bytes of bodies sent, by peer.")
    metrics.histogram("receive_seconds", "Time to receive the body of a request.")
    metrics.counter("packed_total", "Requests that were packed, by peer.")
    metrics.counter("packed_saved_bytes_total", "Bytes that packing took off bodies, by peer.")
    metrics.histogram("pack_seconds", "Time to pack a request for the next tier.")
    metrics.histogram("unpack_seconds", "Time to unpack a request.")
    metrics.histogram("queue_seconds", "Time a request waited to compute.")
    metrics.histogram("compute_seconds", "Time the slice took.")
    metrics.histogram("transfer_seconds", "Time a request spent on the link to the next tier, both ways.")
    metrics.histogram("request_seconds", "Time from the head of a request to its answer.")
    metrics.gauge(
        "requests_in_flight", "Requests between their head and their answer.", lambda: admission.count
    )
    metrics.gauge("requests_queued", "Requests that wait to compute.", lambda: stage.waiting)
    metrics.gauge("replicas", "Copies of the tier that can compute.", lambda: stage.replicas)
    metrics.gauge("ready", "Whether a slice has really run.", lambda: float(stage.ready))
    metrics.gauge("start_time_seconds", "When the server started, in Unix time.", lambda: started)
    return metrics
