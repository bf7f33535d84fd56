"""Every tier of a folder as a process of this machine, for trying things out."""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from dnnsplit_onnx.errors import RequestError
from dnnsplit_onnx.running.origin import slices_folder
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.slicing.manifest import load_manifest

#: How a process of a tier is started; the tier and its options follow.
COMMAND = (sys.executable, "-m", "dnnsplit_onnx", "serve")

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1
_START_S = 120.0
_STOP_S = 15.0
_LONGEST_LINE = 1 << 16


@dataclass(frozen=True, slots=True)
class LocalTier:
    """A tier that runs as a process."""

    name: str
    url: str
    process: subprocess.Popen[bytes]


class LocalTiers:
    """All tiers above tier 0, each served by a process, the top one first.

    A context manager: leaving it stops them.

    Args:
        folder: The folder of slices.
        options: Further options of `serve`, the same for all.
        command: How to start one.

    Raises:
        RequestError: A tier does not start.
    """

    def __init__(
        self, folder: str | Path, options: Sequence[str] = (), *, command: Sequence[str] = COMMAND
    ) -> None:
        place = slices_folder(folder)
        self.tiers: list[LocalTier] = []
        try:
            for record in reversed(load_manifest(place).slices[1:]):
                link = ("--next", self.tiers[0].url) if self.tiers else ()
                words = [*command, str(place / record.tier), "--port", "0", "--json", *link, *options]
                self.tiers.insert(0, _start(record.tier, words))
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str | None:
        """The URL of tier 1; None if there is but one tier."""
        return self.tiers[0].url if self.tiers else None

    def wait(self, stop: threading.Event) -> LocalTier | None:
        """Waits until a process ends by itself, and returns its tier; None once `stop` is set."""
        while not stop.is_set():
            for tier in self.tiers:
                try:
                    tier.process.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue
                # All of them are told to stop where a terminal or a supervisor tells one.
                return None if stop.is_set() else tier
        return None

    def stop(self) -> None:
        """Stops all processes, the lowest first, so that none loses its next tier."""
        for tier in self.tiers:
            tier.process.terminate()
        for tier in self.tiers:
            try:
                tier.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                tier.process.kill()
                tier.process.wait()
            if tier.process.stdout is not None:
                tier.process.stdout.close()

    def __enter__(self) -> LocalTiers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _start(name: str, words: Sequence[str]) -> LocalTier:
    parent = os.getpid()
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        preexec_fn=None if _LIBC is None else lambda: _die_with(parent),  # noqa: PLW1509  # calls the kernel alone
    )
    line = _first_line(process, Deadline(_START_S))
    try:
        url = json.loads(line)["url"]
    except (ValueError, KeyError, TypeError):
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        raise RequestError(
            f"tier `{name}` did not start", hint="its errors are above", context=" ".join(words)
        ) from None
    return LocalTier(name, url, process)


def _die_with(parent: int) -> None:
    """Has the kernel end this process when its parent is gone, even by `kill -9`."""
    assert _LIBC is not None
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it was faster
        os._exit(1)


def _first_line(process: subprocess.Popen[bytes], deadline: Deadline) -> bytes:
    """What a process prints once it is ready; nothing if it ends before, or takes too long."""
    assert process.stdout is not None
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
            if not selector.select(max(0.0, deadline.remaining_s)):
                return b""
            part = os.read(process.stdout.fileno(), 4096)
            if not part:
                return line
            line += part
    return line
