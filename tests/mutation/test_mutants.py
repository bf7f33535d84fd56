"""The faults that are put in, and that a trial tells which of them the tests notice."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation.explained import equivalents
from tests.mutation.mutants import mutants
from tests.mutation.targets import TARGETS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("a < b", ["a < b -> a <= b", "a < b -> a >= b"]),
        ("a is None", ["a is None -> a is not None"]),
        ("a == b != c", ["a == b != c -> a != b != c", "a == b != c -> a == b == c"]),
        ("a + b", ["a + b -> a - b"]),
        ("a += b", ["a += b -> a -= b"]),
        ("a and b", ["a and b -> a or b"]),
        ("not a", ["not a -> a"]),
        ("-a", ["-a -> a"]),
        ("a[2]", ["2 -> 3"]),
        ("a = True", ["True -> False"]),
        ("a = 'b'", ["'b' -> 'b~'"]),
        ("a(b)", ["a(b) -> pass"]),
        ("c = a(b, d=e, f=g)", ["a() without d=e", "a() without f=g"]),
        ("if a: b", ["if a: -> if not a:"]),
        ("a if b else c", ["a if b else c -> a if not b else c"]),
        ("[a for b in c if d]", [" for b in c if d ->  for b in c"]),
        ("def f():\n    return a", ["return a -> return None"]),
        ("raise A('text')", ["raise A('text') -> pass"]),
        ("for a in b:\n    break", ["break -> continue"]),
    ],
)
def test_each_kind_of_fault(source: str, changes: list[str]) -> None:
    assert [mutant.change for mutant in mutants(source)] == changes


@pytest.mark.parametrize(
    "source",
    [
        '"""Words."""',
        "import a",
        "assert a < 1",
        "f'{1 + a}'",
        "Kind = Literal['a', 'b']",
        "@dataclass(frozen=True)\nclass A(B):\n    'Words.'\n    c: D[1]",
        "zip(a, b, strict=True)[c]",
        "def f() -> E[2]:\n    return None",
    ],
)
def test_what_stays_as_it_is(source: str) -> None:
    assert mutants(source) == []


def test_a_mutant_is_the_module_with_one_change() -> None:
    source = (ROOT / "dnnsplit_onnx/work/cuts.py").read_text()
    plain = ast.unparse(ast.parse(source)).splitlines()
    for mutant in mutants(source):
        tree = mutant.applied_to(source)
        compile(tree, "cuts.py", "exec")
        lines = ast.unparse(tree).splitlines()
        assert sum(a != b for a, b in zip(plain, lines, strict=False)) >= 1, mutant
        assert mutant.first <= mutant.line <= mutant.last


TRIED = """
import json, sys
from pathlib import Path
from tests.mutation import trial
from tests.mutation.mutants import mutants

trial.ROOT = Path.cwd()
reach = trial.explore("small", ["test_small.py"])
tried = mutants(Path("small.py").read_text())
print(json.dumps({one.change: trial.survives("small", one, reach) for one in tried}))
"""
SMALL = """
def larger(a, b):
    if a > b:
        return a
    return b

def endless(n):
    while n > 0:
        n -= 1
    return n
"""
TESTS = """
import small

def test_larger():
    assert small.larger(1, 2) == 2
    assert small.larger(2, 1) == 2

def test_endless():
    assert small.endless(3) == 0
"""


def test_a_trial_tells_what_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(SMALL)
    (tmp_path / "test_small.py").write_text(TESTS)
    command = [sys.executable, "-c", TRIED.replace("reach =", "trial._SECONDS_MORE = 2.0\nreach =")]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    survived = json.loads(done.stdout)
    # Which of two equal numbers is the larger nobody can tell; an endless loop is noticed.
    assert survived["a > b -> a >= b"] is True
    assert survived["a > b -> a <= b"] is False
    assert survived["return a -> return None"] is False
    assert survived["n -= 1 -> n += 1"] is False
    assert survived["n > 0 -> n <= 0"] is False


def test_every_target_and_its_tests_are_there() -> None:
    for module, tests in TARGETS.items():
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
        assert [name for name in tests if not (ROOT / name).is_file()] == []


def test_what_is_explained_is_still_a_fault() -> None:
    for known in equivalents():
        source = (ROOT / f"{known.module.replace('.', '/')}.py").read_text()
        assert any(known.covers(known.module, mutant) for mutant in mutants(source)), known
        assert len(known.why) > 20
