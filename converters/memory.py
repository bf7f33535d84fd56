"""The most memory this process has held."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_nbytes() -> int:
    """Peak resident memory of this process, in bytes.

    On Linux from the kernel's own mark, which starts anew with each program: `getrusage`
    also counts what the parent held when it started this process.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
