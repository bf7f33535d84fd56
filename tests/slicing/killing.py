"""Runs that are killed, and runs that meet, in processes of their own.

`python -m tests.slicing.killing steps|moments|meeting|forcing SOURCE OUT`. The process forks a
child for each run, so that a hundred of them take seconds. After each, the output must be a whole
folder: the one that was there or the one that was written, never a part or a mix.

- steps: a run is killed at its first step that touches the file system, then another one at
  its second, and so on until a run ends. Python's audit events are the steps.
- moments: runs are killed after random times.
- meeting: four runs at once, without `force`.
- forcing: four runs at once, each allowed to replace the others' output.

Prints what it did as one JSON object; raises if anything is lost.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dnnsplit_onnx.errors import OutputError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.slicing import slice_model
from tests.slicing.chain import plan_at

_STEPS = frozenset({"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir"})
_RUNS = 4
_ROUNDS = 8
_MOMENTS = 24
OLD, NEW = 2, 5


def run(source: Path, out: Path, cut: int, *, force: bool = True) -> None:
    """One run of the slicer."""
    graph = load_graph(source)
    slice_model(graph, plan_at(graph, (cut,)), out, force=force)


def forked(work: Callable[[], None]) -> int:
    """Starts a child; it exits with 0, or 2 for an error of ours."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except OutputError:
        os._exit(2)
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(70)
    os._exit(0)


def ended(child: int) -> int:
    """Waits for a child; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def tree(folder: Path) -> dict[str, bytes] | None:
    """A folder's files, None if it is not there."""
    if not folder.exists():
        return None
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class Trial:
    """The two outputs that may be found, and how a run is killed."""

    def __init__(self, source: Path, out: Path) -> None:
        self.source, self.out = source, out
        self.whole = {}
        for cut in (OLD, NEW):
            assert ended(forked(lambda cut=cut: run(source, out, cut))) == 0
            self.whole[cut] = tree(out)
        assert self.whole[OLD] != self.whole[NEW]

    def reset(self) -> None:
        """Puts the old output in place."""
        assert ended(forked(lambda: run(self.source, self.out, OLD))) == 0
        assert tree(self.out) == self.whole[OLD]
        assert not self.leftovers()

    def leftovers(self) -> list[Path]:
        """Temporary folders beside the output."""
        return list(self.out.parent.glob(f".{self.out.name}.tmp-*"))

    def check(self) -> str:
        """Looks at what a killed run left, and has another run clear it away."""
        found = tree(self.out)
        if found is None:  # between the two renames: the old output waits in the temporary folder
            assert [tree(left / "old") for left in self.leftovers()] == [self.whole[OLD]]
            assert ended(forked(lambda: run(self.source, self.out, NEW, force=False))) == 2
            found = tree(self.out)
            assert found == self.whole[OLD], "the next run did not put the old output back"
            state = "restored"
        else:
            assert found in self.whole.values(), "a part, or a mix"
            state = "old" if found == self.whole[OLD] else "new"
        assert ended(forked(lambda: run(self.source, self.out, NEW))) == 0
        assert tree(self.out) == self.whole[NEW]
        assert not self.leftovers()
        return state


def steps(trial: Trial) -> dict[str, int]:
    """Kills a run at each of its steps."""
    states: dict[str, int] = {}
    for step in range(1000):
        trial.reset()

        def work(step: int = step) -> None:
            left = step

            def hook(event: str, _: object) -> None:
                nonlocal left
                if event in _STEPS:
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left -= 1

            sys.addaudithook(hook)
            run(trial.source, trial.out, NEW)

        code = ended(forked(work))
        state = trial.check()
        states[state] = states.get(state, 0) + 1
        if code == 0:
            assert state == "new"
            return states
        assert code == -signal.SIGKILL
    raise AssertionError("the run never ended")


def moments(trial: Trial) -> dict[str, int]:
    """Kills runs after random times."""
    rng = random.Random(0)
    trial.reset()
    started = time.monotonic()
    assert ended(forked(lambda: run(trial.source, trial.out, NEW))) == 0
    seconds = time.monotonic() - started
    states: dict[str, int] = {}
    for _ in range(_MOMENTS):
        trial.reset()
        child = forked(lambda: run(trial.source, trial.out, NEW))
        time.sleep(rng.uniform(0, seconds))  # the moment at which it is killed
        os.kill(child, signal.SIGKILL)
        ended(child)
        state = trial.check()
        states[state] = states.get(state, 0) + 1
    return states


def meet(trial: Trial, *, force: bool) -> dict[str, int]:
    """Runs several at once on one output."""
    codes: dict[str, int] = {}
    for _ in range(_ROUNDS):
        shutil.rmtree(trial.out)
        children = [
            forked(lambda at=at: run(trial.source, trial.out, (OLD, NEW)[at % 2], force=force))
            for at in range(_RUNS)
        ]
        ends = [ended(child) for child in children]
        assert tree(trial.out) in trial.whole.values(), "a part, or a mix"
        assert not trial.leftovers()
        # Runs that may replace one another all end well; of the others, the first one does.
        assert sorted(ends) == ([0] * _RUNS if force else [0] + [2] * (_RUNS - 1)), ends
        for code in ends:
            codes[str(code)] = codes.get(str(code), 0) + 1
    return codes


def main() -> None:
    what, source, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    trial = Trial(source, out)
    if what in ("meeting", "forcing"):
        print(json.dumps(meet(trial, force=what == "forcing")))
    else:
        print(json.dumps({"steps": steps, "moments": moments}[what](trial)))


if __name__ == "__main__":
    main()
