"""One mutant, one process: the tests that reach the fault run against a module that has it.

A process that has imported the libraries forks for each mutant. In the child, importing the
mutated module gives the module with the fault; no file of the package is touched, and programs
that the tests start run the module as it is. The first trial has no fault: it tells which test
reaches which line, and how long each takes.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.mutation.mutants import Mutant

ROOT = Path(__file__).parents[2]
# A trial may take so many times as long as its tests take without a fault, and so much more: of the
# processor, since others may need it too, and some times that if it waits.
_SLOWER, _SECONDS_MORE, _WAITS = 10.0, 20.0, 5.0
_PYTEST = (
    *("-x", "-q", "--tb=short", "--no-header"),
    *("-p", "no:cacheprovider", "-p", "no:xdist"),
    # hypothesis is imported already, and has no assertions to rewrite
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)
_LIBRARIES = (
    "numpy",
    "onnx",
    "onnx.parser",
    "onnxruntime",
    "networkx",
    "pydantic",
    "rich",
    "typer",
    "hypothesis",
)


@dataclass(frozen=True)
class Reach:
    """What a module's tests reach.

    Attributes:
        tests: The tests, quickest first, and their seconds.
        lines: The tests that run each line.
        always: Lines that run when the module is imported, so that all tests reach them.
    """

    tests: dict[str, float]
    lines: dict[int, frozenset[str]]
    always: frozenset[int]

    def of(self, mutant: Mutant) -> list[str]:
        """The tests that can notice a fault, quickest first."""
        lines = range(mutant.first, mutant.last + 1)
        if mutant.line in self.always:
            return list(self.tests)
        wanted = frozenset().union(*(self.lines.get(line, frozenset()) for line in lines))
        return [test for test in self.tests if test in wanted]


class BrokenTestsError(Exception):
    """The tests fail without any fault, or cannot be run."""


def prepare() -> None:
    """Imports the libraries, so that no trial has to."""
    for name in _LIBRARIES:
        importlib.import_module(name)


def explore(module: str, files: Sequence[str]) -> Reach:
    """Runs the tests of a module without a fault.

    Raises:
        BrokenTestsError: They fail.
    """
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        seen, data = Path(folder, "seen.json"), Path(folder, "coverage")
        os.environ["COVERAGE_FILE"] = str(data)
        watch = (
            "--cov",
            str(path_of(module).parent),
            "--cov-context=test",
            "--cov-report=",
            "--cov-config=/dev/null",
        )
        code = _in_a_child(
            lambda: _run_pytest([*files, *watch], folder, [_Watcher(seen)]), 1e6, Path(folder, "log")
        )
        if code != 0:
            raise BrokenTestsError(
                f"the tests of {module} fail without a fault:\n{Path(folder, 'log').read_text()[-3000:]}"
            )
        seconds = json.loads(seen.read_text())
        contexts = _contexts(data, path_of(module))
    tests = dict(sorted(seconds.items(), key=lambda item: item[1]))
    lines = {
        line: frozenset(name.rpartition("|")[0] for name in names if name) for line, names in contexts.items()
    }
    return Reach(tests, lines, frozenset(line for line, names in contexts.items() if "" in names))


def survives(module: str, mutant: Mutant, reach: Reach) -> bool:
    """Whether no test notices a fault: first those that reach it, then all the others."""
    near = reach.of(mutant)
    rest = [test for test in reach.tests if test not in set(near)]
    tree = mutant.applied_to(path_of(module).read_text())
    return all(_passes(module, tree, tests, reach) for tests in (near, rest) if tests)


def path_of(module: str) -> Path:
    """The file of a module of the package."""
    return ROOT / f"{module.replace('.', '/')}.py"


def _passes(module: str, tree: ast.Module, tests: list[str], reach: Reach) -> bool:
    limit = _SECONDS_MORE + _SLOWER * sum(reach.tests[test] for test in tests)

    def run() -> int:
        sys.meta_path.insert(0, _Faulty(module, tree))
        return _run_pytest(tests, folder, [])

    with tempfile.TemporaryDirectory(prefix="mutation-", ignore_cleanup_errors=True) as folder:
        return _in_a_child(run, limit, Path(folder, "log")) == 0


def _run_pytest(tests: Sequence[str], folder: str, plugins: list[Any]) -> int:
    from hypothesis import Phase, settings

    # The same examples each time, and the first that fails will do.
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutation", database=None, derandomize=True, deadline=None, phases=phases)
    settings.load_profile("mutation")
    options = [*_PYTEST, "--basetemp", str(Path(folder, "tests"))]
    return int(pytest.main([*options, *tests], plugins=plugins))


def _in_a_child(run: Callable[[], int], seconds: float, log: Path) -> int:
    """The exit code of a call in a process of its own; that of a signal if it takes longer."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (ceil(seconds), ceil(seconds)))
            output = os.open(log, os.O_WRONLY | os.O_CREAT)
            for descriptor in (1, 2):
                os.dup2(output, descriptor)
            code = run()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    handle = os.pidfd_open(child)
    try:
        ended, _, _ = select.select([handle], [], [], _WAITS * seconds)
        if not ended:
            os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        os.close(handle)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what it left running


def _contexts(data: Path, source: Path) -> dict[int, list[str]]:
    from coverage import CoverageData

    read = CoverageData(str(data))
    read.read()
    return read.contexts_by_lineno(str(source))


class _Watcher:
    """A plugin of pytest that notes how long each test takes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.skipped:
            self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        self.path.write_text(json.dumps(self.seconds))


class _Faulty(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module, and gives it the code of a tree."""

    def __init__(self, name: str, tree: ast.Module) -> None:
        self.name, self.tree = name, tree

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, path_of(name), loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.tree, str(path_of(self.name)), "exec"), module.__dict__)
