"""Tier 0: runs its slice in this process, sends the rest up, and answers come what may.

Each request gets exactly one answer: the model's outputs, or an error. If a link fails, the
same request is run on the best cuts that remain while there is time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from dnnsplit_onnx.errors import DnnsplitError
from dnnsplit_onnx.running.origin import slices_folder
from dnnsplit_onnx.runtime.options import TIER, SessionOptions
from dnnsplit_onnx.serving.edge.checking import check_request
from dnnsplit_onnx.serving.edge.choosing import Chooser, FixedCuts, Prepare
from dnnsplit_onnx.serving.edge.history import History
from dnnsplit_onnx.serving.tier.cuts import Cuts
from dnnsplit_onnx.serving.tier.engine import Engine, Times
from dnnsplit_onnx.serving.tier.health import Health
from dnnsplit_onnx.serving.tier.legs import Route
from dnnsplit_onnx.serving.tier.remote import Remote
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.tier.sequences import Sequence
from dnnsplit_onnx.serving.tier.stage import Stage
from dnnsplit_onnx.serving.tier.tiles import Machines
from dnnsplit_onnx.serving.wire.errors import BusyError, DeadlineError, LinkError, ServingError
from dnnsplit_onnx.serving.wire.exchange import as_failure
from dnnsplit_onnx.serving.wire.metrics import Metrics
from dnnsplit_onnx.serving.wire.pool import Target
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.serving.wire.trace import Hop, TierTrace
from dnnsplit_onnx.slicing.manifest import load_manifest

_log = logging.getLogger(__name__)

#: Makes what chooses the cuts.
MakeChooser = Callable[[Routes, Remote | None, Prepare], Chooser]

_MOST_ATTEMPTS = 64
# All tiers may take to open the slices of new cuts; requests go on meanwhile.
_PREPARE_S = 60.0
_FORGET_S = 2.0

Arrays = dict[str, "np.ndarray | None"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request got.

    Attributes:
        outputs: The model's outputs, by name, in its order; None is an absent optional.
        cuts: The cuts that were used.
        seconds: From the request to its answer.
        tiers: Its times on each tier that it reached, from tier 0 up.
        attempts: How many ways were tried.
    """

    outputs: Arrays
    cuts: Cuts
    seconds: float
    tiers: tuple[TierTrace, ...]
    attempts: int


#: The route that answered, what the model makes, the times on each tier, and the way over link 0.
_Run = tuple[Route, Arrays, tuple[TierTrace, ...], Hop | None]


class Edge:
    """The client of a chain; safe to use from several threads.

    Args:
        folder: The folder of slices, of which tier 0's are run here.
        target: Tier 1; None if everything is to run here.
        options: How to run the slices of tier 0.
        deadline_s: A request may take, unless it says otherwise.
        peers: The other machines of tier 0, which share its rows, by name.
        chooser: Makes what chooses the cuts, from the routes, the next tier, and a way to have
            slices opened (`prepare`); those of the plan by default.

    Attributes:
        history: What the requests did lately.

    Raises:
        ManifestError: The folder is not one of slices.
    """

    def __init__(
        self,
        folder: str | Path,
        target: Target | str | None = None,
        *,
        options: SessionOptions | None = None,
        deadline_s: float = 30.0,
        peers: Mapping[str, Target | str] | None = None,
        chooser: MakeChooser | None = None,
    ) -> None:
        place = slices_folder(folder)
        self.routes = Routes(load_manifest(place))
        stage = Stage(place, self.routes, 0, options or SessionOptions(provider=TIER))
        targets = {n: Target(peer) if isinstance(peer, str) else peer for n, peer in (peers or {}).items()}
        self.stage: Engine = Machines(stage, targets) if targets else stage
        self.deadline_s = deadline_s
        links = len(self.routes.tiers) - 1
        self.remote: Remote | None = None
        if target is not None and links:
            target = Target(target) if isinstance(target, str) else target
            self.remote = Remote(target, self.routes, 1)
        self.chooser: Chooser = FixedCuts(self.routes)
        if chooser is not None:
            self.chooser = chooser(self.routes, self.remote, self.prepare)
        self.metrics = _declare(Metrics("dnnsplit_edge_"))
        self.history = History()
        self.health = Health(None, 0, links) if self.remote is None else self.remote.health
        self.health.on_change = self._link_changed
        self._local_s: float | None = None
        self._lock = threading.Lock()
        self._cuts: Cuts | None = None

    @property
    def cuts(self) -> Cuts | None:
        """The cuts that requests use now; None if there are none for what can be reached."""
        return self.chooser.choose(self.health.reach)

    def open(self) -> None:
        """Opens the slices that may be needed, and runs them once.

        That takes time and memory ahead of the first request, or of the first failure.

        Raises:
            ServingError: The next tier serves something else.
        """
        self.stage.warm_up()
        alone = self.chooser.choose(0)
        if alone is not None:
            self.stage.open(self.routes.route(alone).legs[0])
        if self.remote is not None:
            first = self.remote.probe()[0]
            if not first["ready"]:
                self.health.down(0, first.get("error", "the next tier is not ready"))

    def prepare(self, cuts: Cuts) -> None:
        """Has every tier open its slice for some cuts, ahead of the first request that uses them.

        Raises:
            ServingError: A tier cannot be reached, or has no such slice.
            DnnsplitError: A slice cannot be opened here.
        """
        route = self.routes.route(cuts)
        self.stage.open(route.legs[0])
        if self.remote is not None and route.legs[0].goes_on:
            self.remote.prepare(route, Deadline(_PREPARE_S))

    def infer(
        self,
        inputs: Mapping[str, Any],
        *,
        states: Mapping[str, Any] | None = None,
        deadline_s: float | None = None,
        sequence: Sequence | None = None,
        cuts: Cuts | None = None,
    ) -> Answer:
        """Runs one request.

        Args:
            inputs: The model's inputs by name, but for states. Those of them that stay for a
                whole sequence are among the inputs of its first request.
            states: What states are to begin with; others are empty.
            deadline_s: How long it may take.
            sequence: Its place in a sequence; see `Conversation`.
            cuts: Run it with these, and no others: where the states of its sequence are.

        Raises:
            InputError: The inputs do not fit the model.
            ServingError: The request failed; no other answer will come.
        """
        start = time.perf_counter()
        deadline = Deadline(self.deadline_s if deadline_s is None else deadline_s)
        self.history.began()
        try:
            is_first = sequence is None or sequence.start
            values: Arrays = check_request(self.routes, inputs, states or {}, is_first=is_first)
            (route, outputs, tiers, hop), attempts = self._try(values, deadline, sequence, cuts)
        except DnnsplitError as error:
            self._failed(type(error).__name__, error.message)
            raise
        except Exception as error:
            fault = as_failure(error)
            self._failed(type(fault).__name__, fault.message)
            raise fault from error
        except BaseException as error:
            self._failed(type(error).__name__, "it was stopped")
            raise
        seconds = time.perf_counter() - start
        self._learn(route.cuts, tiers, hop)
        self.metrics.add("requests_total", label='result="answered"')
        self.metrics.observe("request_seconds", seconds)
        self.history.answered(seconds, tiers, attempts=attempts, cuts=route.words)
        return Answer(outputs, route.cuts, seconds, tiers, attempts)

    def infer_all(
        self,
        requests: Iterable[Mapping[str, Any]],
        *,
        states: Mapping[str, Any] | None = None,
        concurrency: int = 2,
    ) -> Iterator[Answer | ServingError]:
        """Runs many requests, several at a time: while a tier works on one, others work on the next.

        Args:
            requests: The inputs of each; they are taken as they are needed.
            states: What states are to begin with, in each; others are empty.
            concurrency: How many are under way at a time.

        Returns:
            The answer or the error of each, in the order of the requests.
        """
        return all_of(partial(self.infer, states=states), requests, concurrency)

    def forget(self, name: str) -> None:
        """Has every tier forget the states of a sequence; one that cannot be reached forgets in time."""
        self.stage.forget(name)
        if self.remote is not None:
            with suppress(ServingError):
                self.remote.forget(name, Deadline(_FORGET_S))

    def close(self) -> None:
        """Closes connections, and stops probing."""
        self.chooser.close()
        self.stage.close()
        if self.remote is not None:
            self.remote.close()

    def __enter__(self) -> Edge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _try(
        self, values: Arrays, deadline: Deadline, sequence: Sequence | None, cuts: Cuts | None
    ) -> tuple[_Run, int]:
        """Runs a request, on other cuts if those before failed; and how many ways were tried."""
        limit = len(self.routes.tiers) - 1  # how far up this request may still go
        for attempts in count(1):
            route = self._choose(limit) if cuts is None else self.routes.route(cuts)
            try:
                return self._run(route, values, deadline, sequence), attempts
            except (LinkError, DeadlineError, BusyError) as error:
                if error.link is None or deadline.remaining_s <= 0 or attempts > _MOST_ATTEMPTS:
                    raise
                below = None if cuts is not None else self.chooser.choose(min(error.link, self.health.reach))
                if below is not None or (isinstance(error, LinkError) and cuts is None):
                    limit = error.link
                elif not isinstance(error, BusyError) or deadline.remaining_s <= error.retry_s:
                    raise
                else:
                    time.sleep(error.retry_s)
        raise AssertionError("it returns or raises")

    def _choose(self, limit: int) -> Route:
        """The route to take, by no link from `limit` up."""
        reach = min(self.health.reach, limit)
        cuts = self.chooser.choose(reach)
        if cuts is None:
            raise LinkError(
                f"link {reach} is down ({self.health.reason}), and no tier below has slices for the rest",
                link=reach,
                hint="lay down the slices of all candidate cuts: split --all-candidates",
            )
        if reach < self.health.reach:
            return self.routes.route(cuts)  # for this request alone
        with self._lock:
            before, self._cuts = self._cuts, cuts
        if before is not None and before != cuts:
            self.metrics.add("switches_total")
            why = self.health.reason or self.chooser.reason
            was, now = self.routes.describe(before), self.routes.describe(cuts)
            self.history.switched(was, now, why)
            _log.warning("cuts changed from %s to %s: %s", was, now, why)
        return self.routes.route(cuts)

    def _run(self, route: Route, values: Arrays, deadline: Deadline, sequence: Sequence | None) -> _Run:
        start, times = time.perf_counter(), Times()
        leg = route.legs[0]
        made = self.stage.run(leg, values, deadline, times, sequence)
        live, hop = {**values, **made}, None
        if leg.goes_on:
            hop = self._send_on(route, live, deadline, sequence)
        else:
            self._local_s = time.perf_counter() - start
        mine = TierTrace(leg.name, times.queue_s, times.compute_s, time.perf_counter() - start, hop=hop)
        outputs = {port.name: live.get(port.name) for port in self.routes.results}
        return route, outputs, (mine, *(hop.tiers if hop else ())), hop

    def _send_on(self, route: Route, live: Arrays, deadline: Deadline, sequence: Sequence | None) -> Hop:
        """Has the tiers above do the rest, and adds what they make to the live values."""
        assert self.remote is not None  # the reach is 0 otherwise, and no route goes on
        sent = route.sent(0, live)
        nbytes = sum(value.nbytes for value in sent.values() if value is not None)
        hop_deadline = Deadline(deadline.remaining_s - self._reserve_s(deadline))
        with self.chooser.under_way(nbytes):
            results, hop = self.remote.infer(route, sent, hop_deadline, sequence)
        live.update(results)
        self.metrics.observe("transfer_seconds", hop.wire_s)
        self.metrics.add("sent_bytes_total", hop.sent_nbytes)
        self.metrics.add("received_bytes_total", hop.received_nbytes)
        if hop.saved_nbytes:
            self.metrics.add("packed_total")
            self.metrics.add("packed_saved_bytes_total", hop.saved_nbytes)
            self.metrics.observe("pack_seconds", hop.pack_s)
        return hop

    def _failed(self, kind: str, message: str) -> None:
        self.metrics.add("requests_total", label=f'result="{kind}"')
        self.history.failed(message)

    def _learn(self, cuts: Cuts, tiers: tuple[TierTrace, ...], hop: Hop | None) -> None:
        try:
            self.chooser.observe(cuts, tiers, hop)
        except Exception:
            # A chooser may be the caller's own and raise anything, and the answer is right all the
            # same: it is returned, and the log has the traceback.
            _log.exception("nothing is learnt from a request")

    def _reserve_s(self, deadline: Deadline) -> float:
        """What must be left of a request's time to run it here, should the link fail."""
        if self.chooser.choose(0) is None:
            return 0.0
        half = deadline.remaining_s / 2
        return half if self._local_s is None else min(half, 2 * self._local_s)

    def _link_changed(self, link: int, is_up: bool, reason: str) -> None:
        self.metrics.add("link_changes_total")
        below, above = self.routes.tiers[link : link + 2]
        state = "is back" if is_up else "is down"
        self.history.link_changed(f"{below} \N{RIGHTWARDS ARROW} {above} {state}", reason)


def all_of(
    infer: Callable[[Mapping[str, Any]], Answer], requests: Iterable[Mapping[str, Any]], concurrency: int
) -> Iterator[Answer | ServingError]:
    """Has many requests answered, several at a time.

    Args:
        infer: Answers one.
        requests: The inputs of each; they are taken as they are needed.
        concurrency: How many are under way at a time.

    Yields:
        The answer or the error of each, in the order of the requests.
    """
    waiting: list[Future[Answer]] = []
    with ThreadPoolExecutor(concurrency, thread_name_prefix="request") as threads:
        for inputs in requests:
            waiting.append(threads.submit(infer, inputs))
            if len(waiting) >= concurrency:
                yield _result(waiting.pop(0))
        while waiting:
            yield _result(waiting.pop(0))


def _result(future: Future[Answer]) -> Answer | ServingError:
    try:
        return future.result()
    except ServingError as error:
        return error


def _declare(metrics: Metrics) -> Metrics:
    metrics.counter("requests_total", "Requests, by what they got.")
    metrics.counter("switches_total", "Changes of the cuts.")
    metrics.counter("link_changes_total", "Times that a link went down or came back.")
    metrics.counter("sent_bytes_total", "Bytes of bodies sent to the next tier.")
    metrics.counter("received_bytes_total", "Bytes of bodies received from the next tier.")
    metrics.counter("replays_total", "Texts that were fed again since a tier had lost them.")
    metrics.counter("replayed_tokens_total", "Tokens of these texts.")
    metrics.counter("packed_total", "Requests that were packed for the next tier.")
    metrics.counter("packed_saved_bytes_total", "Bytes that packing took off bodies.")
    metrics.histogram("pack_seconds", "Time to pack a request.")
    metrics.histogram("transfer_seconds", "Time a request spent on link 0, both ways.")
    metrics.histogram("request_seconds", "Time from a request to its answer.")
    return metrics
