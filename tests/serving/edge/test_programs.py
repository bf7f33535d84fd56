"""The commands as processes: served, run, killed, restarted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.errors import RequestError
from dnnsplit_onnx.serving.deploy.local import LocalTiers
from dnnsplit_onnx.serving.edge.edge import Edge
from tests.serving.conftest import CUTS, NODES, Network, eventually, inputs, same

PROGRAM = (sys.executable, "-m", "tests.serving.program")
ONE = ("--threads", "1")


def call(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *map(str, words)], capture_output=True, text=True, timeout=60, check=False, **options
    )  # type: ignore[call-overload]


@contextmanager
def served(*words: object) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    process = subprocess.Popen([*PROGRAM, "serve", *map(str, words), *ONE, "--json"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        try:
            yield process, json.loads(process.stdout.readline())["url"]
        finally:
            process.kill()
            process.wait()


def test_all_tiers_as_processes_and_a_run_through_them(slices: Path, tmp_path: Path, whole: Callable):
    np.savez(tmp_path / "x.npz", **inputs())
    with LocalTiers(slices, ONE, command=(*PROGRAM, "serve")) as tiers:
        assert [tier.name for tier in tiers.tiers] == ["near", "cloud"]
        words = (
            "run",
            slices,
            "--input",
            tmp_path / "x.npz",
            "--url",
            tiers.url,
            "-o",
            tmp_path / "y.npz",
            *ONE,
        )
        ended = call(*words, "--runs", 20, "--concurrency", 4, "--json")
        assert ended.returncode == 0, ended.stderr
        report = json.loads(ended.stdout)
        assert (report["requests"], report["failed"], report["cuts"]) == (20, 0, {"2,4": 20})
        assert [tier["tier"] for tier in report["tiers"]] == ["edge", "near", "cloud"]
        with np.load(tmp_path / "y.npz") as made:
            assert same(dict(made), whole(inputs()))
        again = call(*words)
        assert again.returncode == 2
        assert "exists already" in again.stderr
        shown = call(*words, "--force")
        assert "1 of 1 request answered" in shown.stdout
    assert all(tier.process.returncode == 0 for tier in tiers.tiers)


def test_a_killed_tier_costs_no_request_and_is_taken_back(slices: Path, network: Network, whole: Callable):
    with served(slices / "cloud", "--port", 0) as (cloud, url):
        near = network.serve("near", url)
        edge: Edge = network.edge(near.url)
        assert edge.infer(inputs()).cuts == CUTS
        cloud.kill()
        cloud.wait()
        for seed in range(5):
            answer = edge.infer(inputs(seed))
            assert answer.cuts == (CUTS[0], NODES)
            assert same(answer.outputs, whole(inputs(seed)))
        port = url.rpartition(":")[2]
        with served(slices / "cloud", "--port", port):
            assert eventually(lambda: edge.infer(inputs()).cuts == CUTS, 5)


def test_a_server_that_is_told_to_stop_stops(slices: Path):
    for number in (signal.SIGTERM, signal.SIGINT):
        with served(slices / "cloud", "--port", 0) as (process, url):
            assert urllib.request.urlopen(url + "/v2/health/ready").status == 200
            process.send_signal(number)
            assert process.wait(20) == 0


def test_up_leaves_nothing_behind_when_it_is_told_to_stop(slices: Path):
    words = [sys.executable, "-m", "dnnsplit_onnx", "up", str(slices), *ONE, "--json"]
    for number in (signal.SIGTERM, signal.SIGINT):
        process = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout:
            url = json.loads(process.stdout.readline())["url"]
            assert urllib.request.urlopen(url + "/v2/health/ready").status == 200
            process.send_signal(number)
            assert process.wait(30) == 0
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(url + "/v2/health/live")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("serve", "SLICES"), "is no tier"),
        (("serve", "SLICES/other"), "no tier is named `other`"),
        (("serve", "SLICES/cloud", "--next", "http://h:1"), "is the last"),
        (("serve", "SLICES/near", "--next", "nowhere"), "is not the URL"),
        (("serve", "SLICES/cloud", "--host", "0.0.0.0", "--port", "0"), "anyone who can reach it"),
        (("serve", "SLICES/cloud", "--token-file", "/no/such"), "token file"),
        (("serve", "SLICES/cloud", "--replicas", "2"), "are for `--engine ray`"),
        (("serve", "SLICES/cloud", "--engine", "ray", "--workers", "2"), "is for this process"),
        (("run", "SLICES", "--adaptive"), "needs the tiers"),
        (("run", "SLICES", "--keep"), "keeps a dashboard"),
        (("run", "SLICES", "--dashboard", "0.0.0.0:0"), "asks nobody for a token"),
        (("run", "SLICES", "--dashboard", "nowhere"), "is no address"),
        (("run", "SLICES", "--url", "nowhere"), "is not the URL"),
        (("up", "/no/such/folder"), "no such folder"),
        (("compose", "SLICES", "--cuda", "other"), "no tier is named"),
        (("export", "triton", "SLICES", "--tier", "other"), "no tier is named"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(slices: Path, words: tuple[str, ...], match: str, run_main):
    code, err = run_main(*(word.replace("SLICES", str(slices)) for word in words))
    assert code == 2
    assert match in err
    assert "Traceback" not in err


@pytest.fixture
def run_main(capfd: pytest.CaptureFixture[str]):
    """Runs a command in this process, which is quicker."""
    from tests.serving import program

    program.register()

    def run(*words: str) -> tuple[int, str]:
        code = program.main(list(words))
        return code, capfd.readouterr().err

    return run


def test_requests_that_fail_end_a_run_with_exit_code_1(plain_slices: Path, run_main):
    code, err = run_main("run", str(plain_slices), "--url", "http://127.0.0.1:1", *ONE)
    assert code == 1
    assert "1 of 1 requests failed: link 0 is down" in err


def test_a_tier_that_does_not_start_is_an_error(slices: Path):
    with pytest.raises(RequestError, match="tier `cloud` did not start"):
        LocalTiers(slices, command=(sys.executable, "-c", "print('no')"))


def test_a_run_goes_on_with_its_page_until_it_is_told_to_stop(slices: Path, network: Network):
    url = network.chain()
    words = ("run", slices, "--url", url, *ONE, "--runs", 0, "--concurrency", 2, "--dashboard", 0, "--json")
    process = subprocess.Popen(
        [*PROGRAM, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        try:
            page = process.stderr.readline().removeprefix("dashboard at ").strip()

            def answered() -> int:
                with urllib.request.urlopen(page + "state.json", timeout=10) as answer:
                    return int(json.load(answer)["counts"]["answered"])

            assert eventually(lambda: answered() > 20)
            process.send_signal(signal.SIGINT)
            report = json.loads(process.stdout.read())
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
    assert report["requests"] > 20
    assert report["failed"] == 0


def test_a_page_is_kept_after_the_last_request(slices: Path):
    process = subprocess.Popen(
        [*PROGRAM, "run", str(slices), *ONE, "--runs", "3", "--dashboard", "0", "--keep"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        try:
            page = process.stderr.readline().removeprefix("dashboard at ").strip()
            lines = iter(process.stdout.readline, "")
            assert any("3 of 3 requests answered" in line for line in lines)
            with urllib.request.urlopen(page + "state.json", timeout=10) as answer:
                assert json.load(answer)["counts"]["answered"] == 3
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
def test_a_server_that_was_stopped_and_continued_still_ends_when_it_is_told(slices: Path):
    process = subprocess.Popen(
        [*PROGRAM, "serve", slices / "cloud", *ONE, "--json", "--port", "0"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout:
        try:
            assert process.stdout.readline()
            for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGCONT):
                process.send_signal(number)
            assert process.wait(15) == 0
        finally:
            process.kill()
            process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux is asked for it")
def test_a_killed_up_takes_its_servers_along(slices: Path):
    words = [*PROGRAM, "up", str(slices), *ONE, "--json"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        try:
            url = json.loads(process.stdout.readline())["url"]
            assert urllib.request.urlopen(f"{url}/v2/health/live", timeout=10).status == 200
        finally:
            process.kill()
            process.wait()

    def answers() -> bool:
        try:
            urllib.request.urlopen(f"{url}/v2/health/live", timeout=10).close()
        except OSError:
            return False
        return True

    assert eventually(lambda: not answers(), 20)
