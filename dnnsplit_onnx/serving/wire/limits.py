"""How much a server takes before it says no."""

from __future__ import annotations

from dataclasses import dataclass

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.serving.wire.stream import Pace

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Bounds of a server.

    Attributes:
        connections: Open at a time, each with a thread of its own.
        requests: Inference requests between their head and their answer.
        body_nbytes: Of one request.
        bodies_nbytes: Of all requests together.
        json_nbytes: Of the JSON part of a request.
        states_nbytes: Of the states of all sequences together.
        head_s: From the first byte of a head to its last.
        idle_s: A connection may be silent between requests.
        slack_s: So long nothing may come of a body, or go of an answer.
        slowest_bytes_per_s: A client that is slower than this for long is dropped.
        silence_s: So long a client's machine may give no sign of life.
        request_s: A request without a deadline of its own may take.
        drain_s: Requests under way may take after the server was told to stop.
    """

    connections: int = 64
    requests: int = 16
    body_nbytes: int = 256 * MIB
    bodies_nbytes: int = 1024 * MIB
    json_nbytes: int = 4 * MIB
    states_nbytes: int = 1024 * MIB
    head_s: float = 10.0
    idle_s: float = 300.0
    slack_s: float = 10.0
    slowest_bytes_per_s: float = 32 * 1024
    silence_s: float = 20.0
    request_s: float = 60.0
    drain_s: float = 10.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise InputError(f"limit `{name}` is not above 0")

    def pace(self) -> Pace:
        """How fast a body must come, or an answer go, from now on."""
        return Pace(self.slack_s, self.slowest_bytes_per_s)
