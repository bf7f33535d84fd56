"""The client when things fail: each request gets the right answer, or one error."""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
import time
from pathlib import Path

import pytest

from dnnsplit_onnx.runtime.sessions import SessionOptions
from dnnsplit_onnx.serving.edge.aio import AsyncEdge
from dnnsplit_onnx.serving.edge.edge import Answer, Edge
from dnnsplit_onnx.serving.tier.stage import Stage
from dnnsplit_onnx.serving.wire.errors import DeadlineError, LinkError, ServingError
from dnnsplit_onnx.serving.wire.pool import Pool, Target
from dnnsplit_onnx.serving.wire.stream import Deadline
from tests.serving.conftest import CUTS, NODES, Network, eventually, inputs, same


def test_without_a_url_everything_runs_here(network: Network, whole):
    answer = network.edge(None).infer(inputs())
    assert answer.cuts == (NODES, NODES)
    assert same(answer.outputs, whole(inputs()))


def test_when_the_next_tier_goes_away_requests_run_here_and_return_when_it_is_back(network: Network, whole):
    url = network.chain()
    edge = network.edge(url)
    assert edge.infer(inputs()).cuts == CUTS
    near = network.servers["near"]
    port = near.port
    near.close()
    answer = edge.infer(inputs(1))
    assert answer.cuts == (NODES, NODES)
    assert answer.attempts == 2
    assert same(answer.outputs, whole(inputs(1)))
    assert edge.infer(inputs(2)).attempts == 1  # the circuit is open: nothing is tried in vain
    network.serve("near", network.servers["cloud"].url, port=port)
    start = time.monotonic()
    assert eventually(lambda: edge.infer(inputs(3)).cuts == CUTS)
    assert time.monotonic() - start < 2
    assert edge.metrics.value("switches_total") == 2


def test_when_the_last_tier_goes_away_the_one_before_takes_over(network: Network, whole):
    edge = network.edge(network.chain())
    cloud = network.servers["cloud"]
    assert edge.infer(inputs()).cuts == CUTS
    port = cloud.port
    cloud.close()
    answer = edge.infer(inputs(1))
    assert answer.cuts == (CUTS[0], NODES)
    assert same(answer.outputs, whole(inputs(1)))
    network.serve("cloud", port=port)
    assert eventually(lambda: edge.infer(inputs(2)).cuts == CUTS)


def test_without_slices_for_it_a_failure_is_a_clear_error(network: Network, plain_slices: Path):
    server = network.serve("near", folder=plain_slices)
    edge = network.edge(server.url, folder=plain_slices)
    server.close()
    with pytest.raises(LinkError) as caught:
        edge.infer(inputs())
    assert caught.value.link == 0
    assert "no tier below has slices for the rest" in caught.value.message
    assert caught.value.hint is not None
    assert "--all-candidates" in caught.value.hint


def test_a_tier_that_swallows_requests_is_given_up_within_the_deadline(network: Network, whole):
    with socket.create_server(("127.0.0.1", 0)) as mute:  # connects, and never answers
        edge = network.edge(f"http://127.0.0.1:{mute.getsockname()[1]}", deadline_s=2.0)
        start = time.monotonic()
        answer = edge.infer(inputs())
        assert time.monotonic() - start < 2.0
        assert same(answer.outputs, whole(inputs()))


def test_a_tier_that_never_answers_is_given_up_within_the_deadline(network: Network, monkeypatch, whole):
    edge = network.edge(network.chain(), deadline_s=1.0)
    edge.infer(inputs())
    gate, run = threading.Event(), Stage.run

    def held(stage, leg, values, deadline, times=None, sequence=None):
        if stage.name == "cloud":
            gate.wait(20)
        return run(stage, leg, values, deadline, times)

    monkeypatch.setattr(Stage, "run", held)
    start = time.monotonic()
    answer = edge.infer(inputs(1))
    gate.set()
    assert time.monotonic() - start < 1.0
    assert answer.attempts in (2, 3)  # without the cloud, and here if there is no time for that
    assert same(answer.outputs, whole(inputs(1)))


def test_a_connection_that_was_closed_while_idle_is_replaced(network: Network):
    edge = network.edge(network.chain(idle_s=0.1))
    edge.infer(inputs())
    near = network.servers["near"]
    assert eventually(lambda: not near._connections)
    answer = edge.infer(inputs())
    assert answer.cuts == CUTS
    assert answer.attempts == 1


class Fickle:
    """A server that answers the first request on each connection, and hangs up on the second."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.seen = 0
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with sock:
                for left in (True, False):
                    if sock.recv(65536):
                        self.seen += 1
                        if left:
                            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def test_a_request_that_fails_on_a_used_connection_is_tried_once_more():
    server = Fickle()
    pool = Pool(Target(server.url))
    for _ in range(3):
        status, _ = pool.request("GET", "/", lambda head, _: head.status, Deadline(5))
        assert status == 200
    assert server.seen == 5  # two of the three were sent twice
    pool.close()
    server.listener.close()


def test_a_failure_on_a_fresh_connection_is_final():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        seen = []

        def hang_up() -> None:
            sock, _ = listener.accept()
            seen.append(sock.recv(65536))
            sock.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        pool = Pool(Target(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        with pytest.raises(LinkError, match="went away"):
            pool.request("GET", "/", lambda head, _: head.status, Deadline(5))
        thread.join()
        assert len(seen) == 1
        pool.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 500 x\r\nContent-Length: 9\r\n\r\nnot json!",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
        b"x" * 40_000,
    ],
)
def test_servers_that_talk_nonsense_are_an_error_and_the_answer_still_right(
    network: Network, answer: bytes, whole
):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock:
                    sock.recv(65536)
                    sock.sendall(answer)

        threading.Thread(target=talk, daemon=True).start()
        edge = network.edge(f"http://127.0.0.1:{listener.getsockname()[1]}", deadline_s=5)
        try:
            assert same(edge.infer(inputs()).outputs, whole(inputs()))
        except ServingError as error:
            assert error.message  # noqa: PT017  # either will do, and nothing else
        edge.close()
        listener.shutdown(socket.SHUT_RDWR)


def test_deadlines_are_carried_up_the_chain(network: Network, monkeypatch):
    seen: dict[str, float] = {}
    run = Stage.run

    def watch(stage, leg, values, deadline, times=None, sequence=None):
        seen[stage.name] = deadline.remaining_s
        return run(stage, leg, values, deadline, times)

    edge = network.edge(network.chain())
    edge.infer(inputs())
    monkeypatch.setattr(Stage, "run", watch)
    edge.infer(inputs(), deadline_s=7.0)
    assert 7.0 >= seen["edge"] > seen["near"] > seen["cloud"] > 0


def test_a_deadline_that_has_passed_is_an_error(network: Network):
    edge = network.edge(None)
    with edge.stage.slots.take(Deadline(5)), pytest.raises(DeadlineError):
        edge.infer(inputs(), deadline_s=0.05)


def test_awaited_requests(network: Network, whole):
    async def several() -> list[Answer]:
        options = SessionOptions(threads=1)
        async with AsyncEdge(network.folder, network.chain(), options=options, concurrency=3) as edge:
            await edge.open()
            assert edge.cuts == CUTS
            answers = await asyncio.gather(*(edge.infer(inputs(seed)) for seed in range(9)))
            return answers + [answer async for answer in edge.infer_all(map(inputs, range(9, 12)))]

    for seed, answer in enumerate(asyncio.run(several())):
        assert same(answer.outputs, whole(inputs(seed)))


def test_the_awaited_client_has_every_method_and_argument_of_the_other():
    for name, method in vars(Edge).items():
        if not inspect.isfunction(method) or (name.startswith("_") and name != "__init__"):
            continue
        theirs = inspect.signature(getattr(AsyncEdge, name)).parameters
        for argument in inspect.signature(method).parameters.values():
            mine = theirs[argument.name]
            assert (mine.kind, mine.annotation) == (argument.kind, argument.annotation)
            assert mine.default == argument.default
        awaited = inspect.iscoroutinefunction(getattr(AsyncEdge, name))
        assert awaited or name in ("__init__", "infer_all")
        more = set(theirs) - set(inspect.signature(method).parameters)
        assert more == ({"concurrency"} if name == "__init__" else set())
