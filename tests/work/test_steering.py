"""Made-up numbers that set sizes are told; those that set none are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx import analyse
from dnnsplit_onnx.cli import main
from dnnsplit_onnx.work import steering as steers

Write = Callable[..., Path]

# As a speech model does: a length that is computed from a number, and work in proportion to it.
SPEECH = """
g ({dtype}{shape} speed, float[8] gain, float[1, 8] x) => (float[t, 8] y) {{
    ten = Constant<value_float = 10.0>()
    one = Constant<value = int64[1] {{1}}>()
    eight = Constant<value = int64[1] {{8}}>()
    f = Cast<to = 1>(speed)
    s = Abs(f)
    m = Mul(s, ten)
    c = Ceil(m)
    i = Cast<to = 7>(c)
    n = Reshape(i, one)
    shape = Concat<axis = 0>(n, eight)
    e = Expand(x, shape)
    y = Mul(e, gain)
}}
"""


@pytest.mark.parametrize(("dtype", "shape"), [("float", "[1]"), ("int64", "[1]"), ("double", "[1]")])
def test_a_number_that_sets_a_length_is_told(dtype: str, shape: str, model_text: Write) -> None:
    notes = analyse(model_text(SPEECH.format(dtype=dtype, shape=shape))).notes
    (said,) = [note for note in notes if "steers" in note]
    assert said.startswith("made-up input `speed` steers sizes and work: at twice the number it is ")
    assert said.endswith(" times as much; give real ones: --sample-input X.npz")
    assert 1.5 < float(said.partition("it is ")[2].partition(" times")[0]) < 2.5


def test_given_numbers_are_not_doubted(model_text: Write) -> None:
    given = {
        "speed": np.ones(1, np.float32),
        "gain": np.ones(8, np.float32),
        "x": np.ones((1, 8), np.float32),
    }
    notes = analyse(model_text(SPEECH.format(dtype="float", shape="[1]")), sample_input=given).notes
    assert not any("steer" in note for note in notes)


def test_a_number_that_sets_nothing_is_not_told(model_text: Write) -> None:
    # The length depends on data, the scale does not change it.
    body = """
    g (float[6] x, float[1] scale) => (float[t] y) {
        b = NonZero(x)
        flat = Flatten<axis = 0>(b)
        r = Shape(flat)
        two = Constant<value = int64[1] {1}>()
        n = Gather(r, two)
        z = Expand(scale, n)
        y = Mul(z, scale)
    }
    """
    found = analyse(model_text(body))
    assert any("could not be inferred" in note for note in found.notes)
    assert not any("steer" in note for note in found.notes)


def test_chance_is_not_taken_for_steering(model_text: Write) -> None:
    # A coin decides the length, and `scale` does not: two runs differ as much without it.
    body = """
    g (float[4096] x, float[1] scale) => (float[t] y) {
        r = RandomUniformLike(x)
        c = Round(r)
        b = NonZero(c)
        flat = Flatten<axis = 0>(b)
        s = Shape(flat)
        two = Constant<value = int64[1] {1}>()
        n = Gather(s, two)
        z = Expand(scale, n)
        y = Mul(z, scale)
    }
    """
    assert not any("steer" in note for note in analyse(model_text(body)).notes)


def test_twice_a_number_is_of_its_type_and_never_the_same() -> None:
    for dtype in (np.float32, np.float16, np.int64, np.int32):
        numbers = np.array([0, 1, 3], dtype)
        other = steers._twice(numbers)
        assert other.dtype == dtype
        assert (other == np.array([1, 2, 6], dtype)).all()


@pytest.mark.parametrize("command", ["inspect", "plan"])
def test_commands_say_it_in_one_line(
    command: str, model_text: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(model_text(SPEECH.format(dtype="float", shape="[1]")))
    (tmp_path / "t.toml").write_text('[[tier]]\nname = "edge"\ngflops = 1\n')
    words = [] if command == "inspect" else ["--tiers", str(tmp_path / "t.toml")]
    assert main([command, model, *words]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "steers" in line]
    assert len(lines) == 1
