"""`run DIR` without `--url`: all slices in one process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.running.chain import Chain
from dnnsplit_onnx.running.steps import Steps
from dnnsplit_onnx.serving.edge.here import Here
from dnnsplit_onnx.serving.wire.errors import DeadlineError, ServingError
from tests.serving import program
from tests.serving.conftest import CUTS, cut_model, inputs, same

STATEFUL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[B, 4] x, float[1, 4] past) => (float[B, 4] y, float[1, 4] present) {
    a = Relu(x)
    present = Add(past, past)
    b = Add(a, past)
    y = Neg(b)
}
"""


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    program.register()

    def run(*words: object) -> tuple[int, str, str]:
        code = program.main([str(word) for word in words])
        return code, *capfd.readouterr()

    return run


def test_the_slices_of_all_tiers_answer(plain_slices: Path, tmp_path: Path, whole: Callable, command):
    np.savez(tmp_path / "x.npz", **inputs())
    made = tmp_path / "y.npz"
    code, out, err = command(
        "run",
        plain_slices,
        "--input",
        tmp_path / "x.npz",
        "-o",
        made,
        "--runs",
        6,
        "--concurrency",
        3,
        "--json",
    )
    assert code == 0, err
    report = json.loads(out)
    assert (report["requests"], report["failed"]) == (6, 0)
    assert report["cuts"] == {",".join(map(str, CUTS)): 6}
    assert [tier["tier"] for tier in report["tiers"]] == ["edge", "near", "cloud"]
    assert all(tier["link_ms"] is None for tier in report["tiers"])
    with np.load(made) as arrays:
        assert same(dict(arrays), whole(inputs()))


def test_inputs_are_made_up_where_none_are_given(plain_slices: Path, command):
    code, out, err = command("run", plain_slices)
    assert code == 0, err
    assert "1 of 1 request answered" in out


def test_a_folder_that_lacks_a_slice_says_what_it_needs(plain_slices: Path, tmp_path: Path, command):
    shutil.copytree(plain_slices, tmp_path / "edge")
    shutil.rmtree(tmp_path / "edge" / "cloud")
    code, _, err = command("run", tmp_path / "edge")
    assert code == 2
    assert "the slice of tier `cloud` is not in" in err
    assert "--url URL" in err


def test_each_request_starts_from_empty_states(tmp_path: Path):
    here = Here(cut_model(STATEFUL, tmp_path, (1,), tiers=("edge", "cloud")))
    assert [state.input for state in here.routes.manifest.states] == ["past"]
    x = {"x": np.ones((2, 4), np.float32)}
    first, second = here.infer(x).outputs, here.infer(x).outputs
    assert list(first) == ["y"]
    assert same(first, second)
    assert same(first, Steps.open(tmp_path / "out")(x))


def test_what_does_not_fit_and_what_fails(plain_slices: Path, monkeypatch: pytest.MonkeyPatch):
    here = Here(plain_slices)
    with pytest.raises(InputError, match="unknown input `q`"):
        here.infer(inputs() | {"q": np.zeros(1)})
    late = Here(plain_slices, deadline_s=0.0)
    with pytest.raises(DeadlineError, match="took over 0 ms on tier `edge`"):
        late.infer(inputs())
    monkeypatch.setattr(Chain, "run_values", _broken)
    answers = list(here.infer_all([inputs(), inputs()], concurrency=2))
    assert [isinstance(answer, ServingError) for answer in answers] == [True, True]


def _broken(*_: object, **__: object) -> None:
    from dnnsplit_onnx.errors import ModelError

    raise ModelError("slice `near` fails to run")
