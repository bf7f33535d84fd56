"""What crosses a link once, when a sequence of requests begins: states that stay for all of it.

It adds to the first request alone, and no figure of a request holds it.
"""

from __future__ import annotations

from dataclasses import replace

from dnnsplit_onnx.machines.topology import Link
from dnnsplit_onnx.planning.figures import Figures, Transfer
from dnnsplit_onnx.work.analysis import Analysis, once_nbytes


def with_once(transfer: Transfer, link: Link, analysis: Analysis) -> Transfer:
    """A transfer with what crosses once, in bytes and seconds."""
    nbytes = once_nbytes(analysis, transfer.position)
    seconds = None if nbytes is None else 8 * nbytes / (link.bandwidth_mbps * 1e6)
    return replace(transfer, once_nbytes=nbytes, once_seconds=seconds)


def once_notes(figures: Figures) -> tuple[str, ...]:
    """What crosses once, a sentence for each link where anything does."""
    return tuple(
        f"a sequence begins with {link.once_nbytes:,} bytes over `{link.source}` to `{link.target}`, once: "
        f"{(link.once_seconds or 0.0) * 1e3:.4g} ms, which the figures of a request leave out"
        for link in figures.links
        if link.once_nbytes
    )
