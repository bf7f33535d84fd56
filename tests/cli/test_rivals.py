"""`compare --rivals` on the screen, as data, and refused."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Run

MODEL, SMALL = "zoo:light_squeezenet", "zoo:tiny_residual"
SINGLES = ["all on edge", "all on cloud"]


def test_the_screen(run: Run, tiers: Path) -> None:
    ended = run("compare", MODEL, "--tiers", tiers, "--rivals", "--small", SMALL, "--escalation", 0.2)
    assert ended.code == 0
    head, *lines = ended.out.splitlines()
    assert head.split() == ["rival", "latency", "gap", "cost", "throughput", "answers"]
    assert lines[0].startswith("all on edge")
    assert "best" in ended.out
    assert "Splitting does not pay: JPEG input, all on cloud is" in ended.out
    assert "a JPEG of `data_0` takes 2 bits a pixel, 12,544 bytes" in " ".join(ended.out.split())
    assert "20.0% go to cloud" in " ".join(ended.out.split())


def test_where_the_small_model_is_best_the_others_are_compared_too(run: Run, tiers: Path) -> None:
    tiers.write_text(tiers.read_text().replace("mbps = 100", "mbps = 0.5"))
    ended = run("compare", MODEL, "--tiers", tiers, "--rivals", "--small", SMALL)
    assert "Splitting does not pay: tiny_residual on edge is" in ended.out
    assert "Of what answers as the model does: Splitting does not pay: JPEG input" in " ".join(
        ended.out.split()
    )


def test_as_data(run: Run, tiers: Path) -> None:
    words = ("compare", MODEL, "--tiers", tiers, "--rivals", "--bits-per-pixel", 4)
    found = run(*words, "--json").json
    assert [row["name"] for row in found["rivals"]][:2] == SINGLES
    jpeg = found["rivals"][3]
    assert (jpeg["name"], jpeg["kind"], jpeg["answers"]) == ("JPEG input, all on cloud", "input", "close")
    assert "25,088 bytes" in jpeg["assumes"][0]
    rows = list(csv.DictReader(io.StringIO(run(*words, "--format", "csv").out)))
    assert [row["name"] for row in rows] == [row["name"] for row in found["rivals"]]
    assert run(*words, "--format", "markdown").out.startswith("| name | kind |")


def test_a_cascade_measured_on_samples(run: Run, tiers: Path, tiny: Path, tmp_path: Path) -> None:
    samples = tmp_path / "samples.npz"
    shape = (5, 1, 3, 64, 64)
    np.savez(samples, input=np.random.default_rng(0).random(shape, dtype=np.float32))
    words = ("compare", tiny, "--tiers", tiers, "--rivals", "--small", tiny, "--samples", samples, "--json")
    rows = {row["kind"]: row for row in run(*words, "--threshold", 1.0).json["rivals"]}
    # The same model twice: never sure, always of one mind.
    assert rows["cascade"]["assumes"][0] == "measured on 5 samples, sure from 1 on: 100.0% go to cloud"
    assert (rows["small"]["agreement"], rows["cascade"]["agreement"]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--small", SMALL), "`--small` is for `--rivals`"),
        (("--rivals", "--escalation", 0.5), "`--escalation` is about a smaller model"),
        (("--rivals", "--small", SMALL, "--threshold", 0.5), "`--threshold` needs samples"),
        (("--rivals", "--accuracy", "large"), "cannot read `--accuracy large`"),
        (("--rivals", "--accuracy", "large=2"), "cannot read `--accuracy large=2`"),
        (("--rivals", "--planners", "exact"), "`--planners` is about planners"),
        (("--rivals", "--bits-per-pixel", 0), "a JPEG of 0 bits a pixel is none"),
    ],
)
def test_wrong_usage(run: Run, tiers: Path, words: tuple[object, ...], message: str) -> None:
    ended = run("compare", MODEL, "--tiers", tiers, *words)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {message}")
    assert "\nhint: " in ended.err


def test_no_rival_keeps_the_limits(run: Run, tiers: Path) -> None:
    ended = run("compare", MODEL, "--tiers", tiers, "--rivals", "--deadline-ms", 0.01)
    assert ended.code == 1
    assert ended.err.startswith("error: no rival keeps to the limits")
    assert "breaks a limit" in ended.out
