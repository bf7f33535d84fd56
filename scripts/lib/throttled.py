"""An edge in a process of its own, with a quarter of a core, that answers questions one a line.

    {"profile": FILE}                              the profile of a model there, as JSON
    {"folder": DIR, "url": URL, "cut": N, "runs": N}   what requests with this cut take
    {"adapt": TIERS, "folder": DIR, "url": URL, "seconds": S}   requests for so long, cuts free

The quarter is a cgroup quota of 1 ms in 4, and left out without root. A `url` of null runs all on the edge.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from dnnsplit_onnx.measuring.profiling.segments import measure_segments
from dnnsplit_onnx.runtime.inputs import generate
from dnnsplit_onnx.runtime.sessions import SessionOptions
from dnnsplit_onnx.serving.edge.adaptive import adaptive_edge
from dnnsplit_onnx.serving.edge.edge import Answer, Edge
from dnnsplit_onnx.serving.wire.pool import Target
from dnnsplit_onnx.slicing.manifest import load_manifest
from dnnsplit_onnx.work.analysing import analyse

CGROUP = Path("/sys/fs/cgroup/cpu/dnnsplit-bench")
# A period as short as the kernel takes: within one, a stage runs at full speed.
PERIOD_US, QUOTA_US = 4_000, 1_000
OPTIONS = SessionOptions(threads=1, spin=False)


class EdgeProcess:
    """The process, asked from here.

    Attributes:
        throttled: Whether it has but a quarter of a core.
    """

    def __init__(self, *, throttle: bool = True) -> None:
        root = str(Path(__file__).parents[2])
        paths = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )
        self.throttled = throttle and _throttle(self.process.pid)

    def ask(self, **question: object) -> Any:
        """Asks a question and waits for the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def _throttle(pid: int) -> bool:
    try:
        CGROUP.mkdir(exist_ok=True)
        (CGROUP / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (CGROUP / "cpu.cfs_quota_us").write_text(str(QUOTA_US))
        (CGROUP / "cgroup.procs").write_text(str(pid))
    except OSError:
        return False
    return True


def main() -> None:
    """Answers questions until there are no more."""
    edges: dict[tuple[str, str | None], Edge] = {}
    for line in sys.stdin:
        question = json.loads(line)
        if "profile" in question:
            answer: object = profiled(question["profile"])
        elif "adapt" in question:
            answer = adapted(question)
        else:
            key = question["folder"], question["url"]
            if key not in edges:
                edges[key] = opened(*key)
            answer = requested(edges[key], question)
        print(json.dumps(answer), flush=True)
    for edge in edges.values():
        edge.close()


def profiled(model: str) -> str:
    """A model's profile here, as its file has it."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "profile.json"
        measure_segments(analyse(Path(model)), "edge", options=OPTIONS).save(path)
        return path.read_text(encoding="utf-8")


def opened(folder: str, url: str | None) -> Edge:
    """An edge whose requests travel as they are: what packing makes of random weights says nothing."""
    target = None if url is None else Target(url, packs=False)
    return Edge(folder, target, options=OPTIONS, deadline_s=120.0)


def requested(edge: Edge, question: dict[str, Any]) -> dict[str, object]:
    """What the middle one of some requests took."""
    x = generate(edge.routes.manifest.model.inputs, {}).values
    cuts = (question["cut"],)
    if question.get("warm", True):
        edge.infer(x, cuts=cuts)
    answers = [edge.infer(x, cuts=cuts) for _ in range(question["runs"])]
    middle = sorted(answers, key=lambda answer: answer.seconds)[len(answers) // 2]
    report: dict[str, object] = {
        "seconds": middle.seconds,
        "tiers": {tier.tier: tier.compute_s for tier in middle.tiers},
    }
    if middle.tiers[0].hop is not None:
        report["nbytes"] = middle.tiers[0].hop.sent_nbytes + middle.tiers[0].hop.received_nbytes
    return report


def adapted(question: dict[str, Any]) -> dict[str, object]:
    """Two requests at a time for so long; every change of the cuts and when it was."""
    folder = Path(question["folder"])
    x = generate(load_manifest(folder).model.inputs, {}).values
    results: list[object] = []
    cuts: list[tuple[float, object]] = []
    stop = threading.Event()

    def requests() -> Any:
        while not stop.is_set():
            yield x

    with adaptive_edge(folder, Target(question["url"]), question["adapt"], options=OPTIONS) as edge:
        edge.open()
        load = threading.Thread(target=lambda: results.extend(edge.infer_all(requests(), concurrency=2)))
        load.start()
        end = time.time() + question["seconds"]
        while time.time() < end:
            now = edge.chooser.choose(1)
            if not cuts or cuts[-1][1] != now:
                cuts.append((time.time(), now))
            time.sleep(0.02)
        stop.set()
        load.join()
    failed = sum(not isinstance(result, Answer) for result in results)
    return {"cuts": cuts, "requests": len(results), "failed": failed}


if __name__ == "__main__":
    main()
