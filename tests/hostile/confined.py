"""Commands in a process that may take so much memory and time, and no more."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

MEMORY_NBYTES = 4 << 30
SECONDS = 60


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Its exit code; negative if a signal ended it.
        err: What it wrote to stderr.
        seconds: Wall time.
    """

    code: int
    err: str
    seconds: float


def confined(*arguments: object, memory_nbytes: int = MEMORY_NBYTES) -> Ended:
    """Runs a command of the tool under limits that the kernel holds it to."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_nbytes, memory_nbytes))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "dnnsplit_onnx", *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=4 * SECONDS,
        preexec_fn=limit,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    return Ended(done.returncode, done.stderr, time.monotonic() - started)


def refused(ended: Ended, *words: str) -> None:
    """Checks that a command said no as the tool does: exit code 2 and one line that says why."""
    assert ended.code == 2, ended
    assert ended.err.startswith("error: "), ended.err
    assert "Traceback" not in ended.err
    assert "internal error" not in ended.err
    for word in words:
        assert word in ended.err, ended.err
