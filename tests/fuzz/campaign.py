"""Runs the fuzz targets for a while, side by side, and says what was executed and found.

Inputs that reach something new are kept in `build/fuzz/TARGET`, so that the next run goes on
from them; finds lie in `build/fuzz/finds`. A target that found something is started again for
the time that is left, so that one fault does not hide the next.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
NAMES = tuple(sorted(folder.name for folder in CORPUS.iterdir() if folder.is_dir()))

_WORK = ROOT / "build" / "fuzz"
_MOST_FINDS = 20
_EXECUTED = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_WRITTEN = re.compile(r"Test unit written to (\S+-(?:crash|timeout|oom|leak)-\S+)")
# One input may take so long, and all of a process so much memory, before that is a find.
_OPTIONS = ("-print_final_stats=1", "-timeout=20", "-rss_limit_mb=3000", "-max_len=8192")


@dataclass
class Outcome:
    """What became of a target.

    Attributes:
        executed: Inputs that were run.
        seconds: For how long.
        finds: Files with inputs that should not do what they did.
    """

    name: str
    executed: int = 0
    seconds: float = 0.0
    finds: list[Path] = field(default_factory=list)


def fuzz(name: str, seconds: float) -> Outcome:
    """Fuzzes one target for so long."""
    outcome, end = Outcome(name), time.monotonic() + seconds
    work, finds = _WORK / name, _WORK / "finds"
    for folder in (work, finds):
        folder.mkdir(parents=True, exist_ok=True)
    while (left := end - time.monotonic()) >= 1 and len(outcome.finds) < _MOST_FINDS:
        options = (*_OPTIONS, f"-max_total_time={int(left)}", f"-artifact_prefix={finds / name}-")
        command = [sys.executable, "-m", "tests.fuzz", name, *options, work, CORPUS / name]
        started = time.monotonic()
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False
        )
        outcome.seconds += time.monotonic() - started
        counts = _EXECUTED.findall(done.stderr)
        outcome.executed += int(counts[-1]) if counts else 0
        outcome.finds += map(Path, _WRITTEN.findall(done.stderr))
        if done.returncode and not _WRITTEN.search(done.stderr):  # it died before it could say on what
            log = finds / f"{name}-died-{len(outcome.finds)}.log"
            log.write_text(f"exit code {done.returncode}\n{done.stderr[-20_000:]}")
            outcome.finds.append(log)
    return outcome


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzzes as the arguments say; 1 if something was found."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Fuzzes what reads untrusted bytes.")
    parser.add_argument("--minutes", type=float, default=8.0, help="in all, per job (default: 8)")
    parser.add_argument("--target", action="append", choices=NAMES, help="only this one; may be repeated")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time (default: 1)")
    given = parser.parse_args(argv)
    names = given.target or NAMES
    seconds = given.minutes * 60 * given.jobs / len(names)
    with ThreadPoolExecutor(given.jobs) as pool:
        outcomes = list(pool.map(lambda name: fuzz(name, seconds), names))
    print(f"{'target':10} {'executions':>12} {'seconds':>8} {'finds':>6}")
    for one in outcomes:
        print(f"{one.name:10} {one.executed:12,} {one.seconds:8.0f} {len(one.finds):6}")
    print(f"{'all':10} {sum(one.executed for one in outcomes):12,}")
    for find in (find for one in outcomes for find in one.finds):
        print(f"find: {find}")
    return int(any(one.finds for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
