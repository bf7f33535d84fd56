"""From a model and nothing else: devices by name, `init`, and what is printed to run next."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dnnsplit_onnx.machines.tiers_file import load_topology
from tests.cli.conftest import Run

NAMED = ("--edge", "raspberry-pi-4", "--cloud", "l4", "--link", "4g")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_plan_without_any_file_is_that_of_the_file_that_tiers_new_writes(run: Run, tiny: Path) -> None:
    named = run("plan", tiny, *NAMED, "--json")
    assert run("tiers", "new", *NAMED).code == 0
    filed = run("plan", tiny, "--tiers", "tiers.toml", "--json")
    assert named.code == filed.code == 0
    assert named.json["latency_s"] == filed.json["latency_s"]
    assert named.json["cost_usd"] == filed.json["cost_usd"]
    assert [stage["tier"] for stage in named.json["stages"]] == ["edge", "cloud"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "missing option `--tiers`"),
        ((*NAMED, "--tiers", "t.toml"), "`--tiers` and `--edge` exclude each other"),
        (("--cloud", "l4"), "missing option `--edge`"),
        (("--edge", "raspbery-pi-4", "--cloud", "l4"), "no device is named `raspbery-pi-4`"),
    ],
)
def test_machines_that_are_not_told_are_refused(
    run: Run, tiny: Path, words: tuple[str, ...], message: str
) -> None:
    ended = run("plan", tiny, *words)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert "hint: " in ended.err


def test_init_writes_a_tiers_file_and_plans(run: Run, tiny: Path) -> None:
    ended = run("init", tiny, *NAMED)
    assert ended.code == 0
    assert load_topology("tiers.toml").names == ("edge", "cloud")
    assert Path("tiers.schema.json").exists()
    assert "all on edge" in ended.out
    written = Path("tiers.toml").read_text()
    again = run("init", tiny, "--edge", "l4")
    assert again.code == 2
    assert "tiers.toml" in again.err
    assert Path("tiers.toml").read_text() == written


def test_init_leaves_nothing_behind_that_it_could_not_use(run: Run, tiny: Path) -> None:
    assert run("init", "gone.onnx", *NAMED).code == 2
    assert run("init", tiny, "--edge", "no-such").code == 2
    assert not Path("tiers.toml").exists()


def test_init_asks_a_person_and_no_pipe(run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert "missing option `--edge`" in run("init", tiny).err
    answers = io.StringIO("raspberry-pi-5\n\nwifi\n")
    monkeypatch.setattr(answers, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", answers)
    ended = run("init", tiny)
    assert ended.code == 0, ended.err
    text = Path("tiers.toml").read_text()
    assert "Raspberry Pi 5" in text
    assert "NVIDIA L4" in text
    assert "Wi-Fi" in text


def pasted(line: str) -> str:
    """The output of what a line says to run next, pasted into a shell."""
    assert line.startswith("next: "), line
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        line.removeprefix("next: "),
        shell=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_what_is_printed_to_run_next_runs(run: Run, tiny: Path) -> None:
    inspected = run("inspect", tiny, "--bind", "batch=2").out.splitlines()[-1]
    assert inspected.endswith("--bind batch=2")
    planned = pasted(inspected).splitlines()
    paying = "Splitting pays" in "\n".join(planned)
    assert (" split " in planned[-1]) is paying
    assert "--bind batch=2" in planned[-1]
    pasted(planned[-1])


def test_after_a_split_that_pays_comes_split_then_bench(run: Run, tiny: Path, tiers: Path) -> None:
    tier = '[[tier]]\nname = "{}"\ngflops = 1\n'
    tiers.write_text(f"{tier.format('edge')}{tier.format('top')}[[link]]\nbandwidth_mbps = 1000\n")
    planned = run("plan", tiny, "--tiers", tiers, "--objective", "throughput", "--bind", "batch=2")
    assert "Splitting pays" in planned.out
    line = planned.out.splitlines()[-1]
    assert line.startswith(f"next: dnnsplit-onnx split {tiny} --tiers {tiers} --objective throughput")
    split = pasted(line)
    assert Path("slices/manifest.json").exists()
    assert split.splitlines()[-1] == "next: dnnsplit-onnx bench slices"


def test_no_split_is_advised_where_none_pays(run: Run, tiny: Path) -> None:
    ended = run("plan", tiny, "--edge", "l4", "--cloud", "raspberry-pi-3", "--link", "4g")
    assert "Splitting pays" not in ended.out
    assert ended.out.splitlines()[-1].startswith("next: dnnsplit-onnx sweep ")
