"""What can go wrong between machines.

    RequestError                      exit code 1
    └── ServingError
        ├── ProtocolError             what arrived is not what the protocol says
        ├── RefusedError              the other side answered with an error
        ├── BusyError                 the other side has no room for it now
        ├── DeadlineError             the time is up
        └── LinkError                 a tier cannot be reached, or went away

Each holds the HTTP status that a server answers with when it meets it.
"""

from __future__ import annotations

from typing import Any

from dnnsplit_onnx.errors import RequestError


class ServingError(RequestError):
    """A request across machines failed.

    Args:
        message: One line that names the culprit, lower case, no full stop.
        status: The HTTP status to answer with; each class has a default.
        link: The link that failed, counted from tier 0; None if no link is to blame.
        hint: One line with the fix, or None.
    """

    default_status = 500

    def __init__(
        self, message: str, *, status: int | None = None, link: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = self.default_status if status is None else status
        self.link = link


class ProtocolError(ServingError):
    """What arrived breaks the protocol, or asks for what is not there."""

    default_status = 400


class RefusedError(ServingError):
    """The other side answered with an error."""

    default_status = 502


class BusyError(ServingError):
    """A tier has no room for the request now.

    Args:
        retry_s: When to try again, in seconds.
        others: As `ServingError` has them.
    """

    default_status = 503

    def __init__(self, message: str, *, retry_s: float = 1.0, **others: Any) -> None:
        super().__init__(message, **others)
        self.retry_s = retry_s


class DeadlineError(ServingError):
    """The request's time is up."""

    default_status = 504


class LinkError(ServingError):
    """A tier cannot be reached, or went away before it answered."""

    default_status = 503
