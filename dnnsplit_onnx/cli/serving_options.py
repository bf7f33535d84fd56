"""Options that the commands across machines share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dnnsplit_onnx.cli.options import CudaGraph, CustomOps, Reporting, TierProvider

if TYPE_CHECKING:
    from dnnsplit_onnx.runtime.options import SessionOptions
    from dnnsplit_onnx.serving.wire.security import TlsFiles


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(Reporting):
    """How a tier runs, and how it is protected."""

    provider: TierProvider = None
    custom_ops: CustomOps = None
    cuda_graph: CudaGraph = False
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            metavar="N",
            min=1,
            help="Threads within an operator. [default: all cores]",
            show_default=False,
        ),
    ] = None
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="Holds the bearer token.", show_default=False),
    ] = None
    tls_cert: Annotated[
        Path | None,
        typer.Option("--tls-cert", metavar="PEM", help="The certificate to show.", show_default=False),
    ] = None
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="PEM", help="Its key.", show_default=False)
    ] = None
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            "--tls-ca",
            metavar="PEM",
            help="Who signs the other side's certificate. A server then asks every client for one.",
            show_default=False,
        ),
    ] = None

    @property
    def tls(self) -> TlsFiles:
        """The TLS files."""
        from dnnsplit_onnx.serving.wire.security import TlsFiles

        return TlsFiles(self.tls_cert, self.tls_key, self.tls_ca)

    @property
    def session(self) -> SessionOptions:
        """How to run slices."""
        from dnnsplit_onnx.runtime.custom_ops import registered
        from dnnsplit_onnx.runtime.options import TIER, SessionOptions

        return SessionOptions(
            provider=self.provider or TIER,
            threads=self.threads,
            cuda_graph=self.cuda_graph,
            custom_ops=registered(),  # a slice may run in a process of its own
        )


def log_to_stderr() -> None:
    """Shows what servers and clients log: changes of state and refusals, a few lines of each kind."""
    import logging

    from dnnsplit_onnx.serving.wire.logs import BoundedHandler

    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=[BoundedHandler()],
    )
