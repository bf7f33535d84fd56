"""The examples run, each in a copy of its folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.web.node import ort_web

EXAMPLES = Path(__file__).parents[1] / "examples"
FOLDERS = ("boards", "camera", "language-model", "phone", "triton")
PRINTS = {
    "boards": "20 of 20 requests answered",
    "camera": "stays at home: input",
    "language-model": "16 tokens after 4",
    "phone": "wrote site",
    "triton": "repository/triton/config.pbtxt",
}


def test_each_has_a_page_and_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert tuple(sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())) == FOLDERS
    for name in FOLDERS:
        assert f"({name}/README.md)" in listed
        page = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
        assert "`./run.sh`" in page
        assert os.access(EXAMPLES / name / "run.sh", os.X_OK)


@pytest.mark.parametrize("name", FOLDERS)
def test_it_runs(name: str, tmp_path: Path) -> None:
    runtime = ort_web()
    if name == "phone" and runtime is None:
        pytest.skip("needs onnxruntime-web")
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        [tmp_path / "examples" / name / "run.sh"],
        env=os.environ | {"PATH": path, "COLUMNS": "100", "ORT_WEB": str(runtime or "")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert PRINTS[name] in done.stdout
