"""One fuzzing process: `python -m tests.fuzz TARGET [libFuzzer options] [corpus folders]`.

`scripts/fuzz` starts it. It needs atheris, which watches the branches that inputs take; the
replay of the corpus (`test_corpus`) does not.
"""

from __future__ import annotations

import sys

import atheris

# Coverage is measured in modules that are imported from here on: the package, and the two
# parsers of the standard library that are written in Python.
with atheris.instrument_imports(include=["dnnsplit_onnx", "tomllib"]):
    from tests.fuzz.targets import run

name = sys.argv.pop(1)
atheris.Setup(sys.argv, lambda data: run(name, data))
atheris.Fuzz()
