"""Floods of bad requests and of faults, and what of them is written."""

from __future__ import annotations

import io
import json
import logging
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dnnsplit_onnx.serving.wire.logs import INTERVAL_S, MOST_LINES, BoundedHandler


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def handler(clock: Clock) -> BoundedHandler:
    return BoundedHandler(io.StringIO(), clock)


@pytest.fixture
def log(handler: BoundedHandler) -> logging.Logger:
    logger = logging.Logger("test")
    logger.addHandler(handler)
    return logger


def lines(handler: BoundedHandler) -> list[str]:
    text: str = handler.stream.getvalue()  # type: ignore[attr-defined]
    return text.splitlines()


def test_a_flood_becomes_a_few_lines_and_a_sum(log: logging.Logger, handler: BoundedHandler, clock: Clock):
    for at in range(10_000):
        log.info("%s: %d", "POST /", at)
    assert lines(handler) == [f"POST /: {at}" for at in range(MOST_LINES)]
    clock.now += INTERVAL_S - 0.01
    log.info("%s: %d", "POST /", 10_000)
    assert len(lines(handler)) == MOST_LINES
    clock.now += 0.02
    log.info("%s: %d", "POST /", 10_001)
    assert lines(handler)[MOST_LINES:] == [
        f"{10_001 - MOST_LINES} more within 10 s like: POST /: 10000",
        "POST /: 10001",
    ]


def test_a_kind_does_not_hide_another(log: logging.Logger, handler: BoundedHandler):
    for at in range(100):
        log.info("refused %d", at)
    log.info("link %d is down", 0)
    log.warning("refused %d", 7)  # the same words at another level
    assert lines(handler)[MOST_LINES:] == ["link 0 is down", "refused 7"]


def test_what_was_only_counted_is_said_in_the_end(log: logging.Logger, handler: BoundedHandler, clock: Clock):
    for at in range(MOST_LINES + 3):
        log.info("refused %d", at)
    clock.now += 2
    handler.close()
    assert lines(handler)[MOST_LINES:] == [f"3 more within 2 s like: refused {MOST_LINES + 2}"]


def test_seldom_lines_are_all_written(log: logging.Logger, handler: BoundedHandler, clock: Clock):
    for at in range(100):
        log.info("refused %d", at)
        clock.now += INTERVAL_S / MOST_LINES
    assert lines(handler) == [f"refused {at}" for at in range(100)]


def test_traces_are_bounded_too(log: logging.Logger, handler: BoundedHandler):
    for _ in range(500):
        try:
            raise RuntimeError("x" * 1000)
        except RuntimeError:
            log.exception("a fault of this program")
    assert len(lines(handler)) < 10 * MOST_LINES


def test_messages_that_are_no_templates_take_no_memory(log: logging.Logger, handler: BoundedHandler):
    for at in range(5000):
        log.info(f"a line of its own, {at}")
    assert len(lines(handler)) == 5000
    assert len(handler._kinds) <= 256


def test_a_server_that_is_flooded_writes_little(slices: Path):
    words = ["serve", str(slices / "cloud"), "--threads", "1", "--port", "0", "--json"]
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.serving.program", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    url = json.loads(server.stdout.readline())["url"]
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=20) as sock:
        answers = sock.makefile("rb")
        for _ in range(2000):
            sock.sendall(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answers.readline().startswith(b"HTTP/1.1 404")
            length = 0
            while (line := answers.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length"):
                    length = int(line.split(b":")[1])
            answers.read(length)
        answers.close()
    server.terminate()
    _, told = server.communicate(timeout=30)
    refusals = [line for line in told.splitlines() if "GET /nothing: 404" in line]
    assert 0 < sum("more within" not in line for line in refusals) < 2000
    counted = sum(int(line.split(" INFO ")[1].split()[0]) for line in refusals if "more within" in line)
    written = sum("more within" not in line for line in refusals)
    assert written + counted == 2000  # each is told of, one way or the other
    assert len(told) < 100_000
