"""A tier served from a program: started by a call, stopped with it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from dnnsplit_onnx.serving.tier.launch import ServeOptions, open_grpc, open_server


class Served:
    """A server of a tier that answers until it is closed; leaving it as a context closes it.

    Attributes:
        url: Where it answers.
        port: Its port.
    """

    def __init__(self, folder: Path, options: ServeOptions) -> None:
        server = open_server(folder, options)
        with ExitStack() as stack:
            stack.enter_context(server)
            grpc = open_grpc(server.service, options)
            if grpc is not None:
                stack.enter_context(grpc)
            server.service.stage.warm_up()
            self._stack = stack.pop_all()
        self.url, self.port = server.url, server.port

    def close(self) -> None:
        """Refuses new requests, finishes those under way, and stops."""
        self._stack.close()

    def __enter__(self) -> Served:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(
    folder: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    next_url: str | None = None,
    options: ServeOptions | None = None,
) -> Served:
    """Serves a tier from this process, on threads of its own.

    Args:
        folder: The tier's folder, `DIR/TIER`.
        host: Where to listen.
        port: The port; 0 is any free one.
        next_url: The next tier; None if this is the last, or stands alone.
        options: What else there is to say: provider, workers, TLS, a token, limits.

    Returns:
        The server, once its slice has run.

    Raises:
        InputError: There is no such tier, it cannot listen there, or it would be open to anyone.
        ManifestError: The folder is not one of slices.
        ModelError: The slice cannot be opened.
    """
    options = replace(options or ServeOptions(), host=host, port=port, next_url=next_url)
    return Served(Path(folder), options)
