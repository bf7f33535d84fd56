"""What a server needs of whatever answers its requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from dnnsplit_onnx.serving.wire.arena import Arena
from dnnsplit_onnx.serving.wire.exchange import Body, Response
from dnnsplit_onnx.serving.wire.http import RequestHead
from dnnsplit_onnx.serving.wire.limits import ServerLimits
from dnnsplit_onnx.serving.wire.metrics import Metrics

#: Sends the answer; called once for a request.
Send = Callable[[Response], None]


class Handler(Protocol):
    """Answers requests.

    Attributes:
        limits: What is too much.
        methods: What may be asked for, as the header field `Allow` has it.
        metrics: Where the server counts; it declares `connections` there, and adds to
            `responses_total`.
    """

    limits: ServerLimits
    methods: str
    metrics: Metrics

    def admit(self, head: RequestHead) -> Mapping[str, str]:
        """Lets a request in; returns header fields that its answer is to have, whatever that is.

        Raises:
            ProtocolError: It may not come in.
        """

    def answer(self, head: RequestHead, body: Body, arena: Arena, send: Send) -> None:
        """Answers one request: calls `send` once, or raises, which the server answers for it."""

    def drain(self) -> None:
        """Refuses new requests, and waits for those under way, within bounds."""

    def close(self) -> None:
        """Gives up what it holds; no request is under way any more."""
