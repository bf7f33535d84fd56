"""What a server needs of whatever answers its requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dnnsplit_onnx.serving.wire.arena import Arena
from dnnsplit_onnx.serving.wire.exchange import Body, Response
from dnnsplit_onnx.serving.wire.http import RequestHead
from dnnsplit_onnx.serving.wire.limits import ServerLimits
from dnnsplit_onnx.serving.wire.metrics import Metrics

#: Sends the answer; called exactly once for a request.
Send = Callable[[Response], None]


class Handler(Protocol):
    """Answers requests.

    Attributes:
        limits: What is too much.
        metrics: Where the server counts; it declares `connections` there, and adds to
            `responses_total`.
    """

    limits: ServerLimits
    metrics: Metrics

    def answer(self, head: RequestHead, body: Body, arena: Arena, send: Send) -> None:
        """Answers one request; `send` is called exactly once."""
        ...

    def drain(self) -> None:
        """Refuses new requests, and waits for those under way, within bounds."""
        ...

    def close(self) -> None:
        """Gives up what it holds; no request is under way any more."""
        ...
