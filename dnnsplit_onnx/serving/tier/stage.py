"""The slices of one tier, opened when a request first needs them, and run one at a time.

A tier without work has no slice; its values pass through.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dnnsplit_onnx.errors import DnnsplitError, InputError
from dnnsplit_onnx.running.caches import caches_nbytes, dropped, grown
from dnnsplit_onnx.running.initial import empty_states, missing_state, next_states, own_value
from dnnsplit_onnx.running.origin import bindings_of
from dnnsplit_onnx.running.slices import open_slice, options_on
from dnnsplit_onnx.runtime.inputs import generate
from dnnsplit_onnx.runtime.pictures import in_pixels, need_pillow
from dnnsplit_onnx.runtime.provider import is_on_host, runtime
from dnnsplit_onnx.runtime.sessions import Session, SessionOptions
from dnnsplit_onnx.runtime.values import to_python, to_value
from dnnsplit_onnx.serving.tier.engine import Times, Values
from dnnsplit_onnx.serving.tier.legs import Leg
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.tier.sequences import Memories, Sequence, Turn
from dnnsplit_onnx.serving.tier.slots import Slots
from dnnsplit_onnx.serving.wire.datatypes import BY_ONNX
from dnnsplit_onnx.serving.wire.errors import ProtocolError
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.slicing.checking import check_files
from dnnsplit_onnx.slicing.coding import NO_CODE, faults
from dnnsplit_onnx.slicing.manifest import SliceRecord

# bfloat16 is no type of numpy's, and strings need conversion.
_PLAIN = frozenset(BY_ONNX) - {"bfloat16", "string"}

# The first searches algorithms, the second captures a CUDA graph, the third is as all others.
_DEVICE_RUNS = 3
_MOST_NAMED = 5

_log = logging.getLogger(__name__)


@dataclass
class Stage:
    """One tier of a manifest, ready to run.

    Attributes:
        folder: The folder of the manifest.
        routes: Of the manifest.
        tier: Which tier, counted from 0.
        options: How to run its slices.
        workers: How many may run at a time. One is best for latency: a slice alone has
            all the cores that its session uses.
        most_sessions: How many slices are kept open; the one unused for longest goes first.
        ready: Whether a slice has really run.
        states_nbytes: Memory that the states of all sequences may take together.
    """

    folder: Path
    routes: Routes
    tier: int
    options: SessionOptions = field(default_factory=SessionOptions)
    workers: int = 1
    most_sessions: int = 16
    ready: bool = False
    states_nbytes: int = 1 << 30

    def __post_init__(self) -> None:
        self.name = self.routes.tiers[self.tier]
        self.slots = Slots(self.workers)
        self._refuse_idle_graph()
        self._ort = runtime()  # looks at what is installed: too slow to ask for each request
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, Future[Session]] = OrderedDict()
        self._memories = Memories(self.states_nbytes, _state_nbytes)
        self._plain: dict[str | None, bool] = {}

    def _refuse_idle_graph(self) -> None:
        """Refuses CUDA graphs on a tier that does not run on CUDA.

        Raises:
            InputError: They are asked for.
        """
        record = self.routes.manifest.slices[self.tier]
        if self.options.cuda_graph and options_on(self.options, record).provider != "cuda":
            raise InputError(
                f"tier `{self.name}` does not run on `cuda`, so there is nothing to make a CUDA graph of",
                hint="pass --provider cuda, or leave out --cuda-graph",
            )

    @property
    def waiting(self) -> int:
        """Requests that wait to compute."""
        return self.slots.waiting

    @property
    def replicas(self) -> int:
        """One, once it is ready."""
        return int(self.ready)

    def run(
        self,
        leg: Leg,
        values: Values,
        deadline: Deadline,
        times: Times | None = None,
        sequence: Sequence | None = None,
    ) -> dict[str, np.ndarray | None]:
        """Runs this tier's part of a route.

        Args:
            leg: The part.
            values: What arrived; others are left alone.
            deadline: When to give up waiting for a slot. A run that has begun is finished.
            times: Filled in.
            sequence: The request's place in a sequence; without one, states start empty
                and are not kept.

        Returns:
            What the slice makes for others, by name; nothing for a tier without work.

        Raises:
            DeadlineError: No slot became free in time.
            ProtocolError: The slice refuses the values.
            DnnsplitError: The slice cannot be opened.
        """
        if leg.record is None:
            return {}
        times = times or Times()
        # Opened before a slot is taken: requests for slices that are open go on meanwhile.
        session = self._session(leg.record)
        if leg.states:
            return self._step(leg, session, values, deadline, times, sequence)
        with self._computing(deadline, times):
            # Pictures are decoded in a slot, so that no more are at a time than there are slots.
            return self._run(session, leg.record, self._feeds(leg.record, values))

    @contextmanager
    def _computing(self, deadline: Deadline, times: Times) -> Iterator[None]:
        """Takes a slot for what is done inside, and times it."""
        with self.slots.take(deadline) as times.queue_s:
            start = time.perf_counter()
            try:
                yield
            except InputError as error:
                raise ProtocolError(error.message, status=422) from error
            times.compute_s = time.perf_counter() - start

    def _step(
        self,
        leg: Leg,
        session: Session,
        values: Values,
        deadline: Deadline,
        times: Times,
        sequence: Sequence | None,
    ) -> dict[str, np.ndarray | None]:
        """Runs a slice that hands states from one request to the next.

        They stay values of onnxruntime, on the device that made them.
        """
        assert leg.record is not None, "a slice has the states"
        brought = {p.name: own_value(values[p.name], p.dtype) for p in leg.keeps if p.name in values}
        part = leg.record.file or ""

        def first() -> dict[str, Any]:
            if sequence is not None and sequence.positions is not None:
                self._refuse_long(leg, sequence.positions)
            return self._first(leg, values)

        def cut(states: dict[str, Any], count: int) -> dict[str, Any]:
            try:
                return dropped(leg.states, states, count)
            except InputError as error:
                raise ProtocolError(error.message, status=422, hint=error.hint) from error

        turns = self._memories.step(sequence, part, first, deadline, cut) if sequence else _once(first)
        with turns as turn, self._computing(deadline, times):
            pixels = in_pixels(values, leg.reads)
            feeds = {p.name: to_value(self._ort, pixels.get(p.name), p.dtype) for p in leg.reads}
            before = turn.states | brought
            made = session.run(feeds | before, on_device=leg.renewed)
            turn.after = next_states(leg.states, before, made, self._arrived(leg, values))
            turn.grown = None if brought else grown(leg.states, before, turn.after)
        results = {port.name: to_python(self._ort, made[port.name]) for port in leg.own_outputs}
        return self._checked(leg.record, results)

    def _refuse_long(self, leg: Leg, positions: int) -> None:
        """Refuses a text whose states are more than may be kept, before it is begun.

        Raises:
            ProtocolError: They are (413).
        """
        nbytes = caches_nbytes(leg.keeps, leg.states, positions)
        if nbytes is not None and nbytes > self.states_nbytes:
            raise ProtocolError(
                f"tier `{self.name}`: the states of {positions} positions take {nbytes} bytes; at most "
                f"{self.states_nbytes} are kept",
                status=413,
                hint="serve with more: --max-states-mb",
            )

    def forget(self, name: str) -> None:
        """Forgets the states of a sequence."""
        self._memories.forget(name)

    def _arrived(self, leg: Leg, values: Values) -> dict[str, Any]:
        """Values from below that states are next."""
        return {p.name: to_value(self._ort, values.get(p.name), p.dtype) for p in leg.handed_on}

    def _first(self, leg: Leg, values: Values) -> dict[str, Any]:
        """What a sequence starts from: what the request brings, the rest empty.

        Raises:
            ProtocolError: It lacks what stays for the whole of the sequence.
        """
        staying = {state.input for state in leg.states if state.output is None}
        for name in sorted(staying - values.keys()):
            raise ProtocolError(missing_state(name).message)
        shapes = {name: np.shape(array) for name, array in values.items() if array is not None}
        empty = [port for port in leg.keeps if port.name not in values]
        inputs = leg.record.inputs if leg.record is not None else ()
        settled = [port for port in inputs if port.name not in {other.name for other in empty}]
        arrays = empty_states(empty, leg.states, settled, shapes)
        return {name: to_value(self._ort, array) for name, array in arrays.items()}

    def _checked(
        self, record: SliceRecord, made: dict[str, np.ndarray | None]
    ) -> dict[str, np.ndarray | None]:
        """What a slice made, unless it holds what its code cannot.

        Raises:
            ProtocolError: It does.
        """
        for fault in faults(record.coded_outputs, made):
            raise ProtocolError(f"tier `{self.name}`: {fault}", status=422, hint=NO_CODE)
        return made

    def _feeds(self, record: SliceRecord, values: Values) -> dict[str, Any]:
        values = in_pixels(values, record.inputs)
        if self._is_plain(record):
            return {port.name: values[port.name] for port in record.inputs}
        return {port.name: to_value(self._ort, values.get(port.name), port.dtype) for port in record.inputs}

    def _run(
        self, session: Session, record: SliceRecord, feeds: dict[str, Any]
    ) -> dict[str, np.ndarray | None]:
        if not self._is_plain(record):
            made = {name: to_python(self._ort, value) for name, value in session.run(feeds).items()}
            return self._checked(record, made)
        return self._checked(record, {**session.run_arrays(feeds)})

    @property
    def sequences(self) -> int:
        """Of how many sequences states are kept."""
        return len(self._memories)

    @property
    def kept_nbytes(self) -> int:
        """Memory that these states take."""
        return self._memories.nbytes

    def is_on_device(self, leg: Leg) -> bool:
        """Whether this process runs the tier's part of a route on a GPU."""
        record = leg.record
        if record is None or self._is_plain(record):
            return False
        return not is_on_host(options_on(self.options, record).provider)

    def _is_plain(self, record: SliceRecord) -> bool:
        """Whether all values are arrays that onnxruntime takes and gives as they are.

        That way is 40 microseconds shorter than by its own values.
        """
        plain = self._plain.get(record.file)
        if plain is None:
            plain = self._plain[record.file] = is_on_host(options_on(self.options, record).provider) and all(
                port.kind == "tensor" and port.dtype in _PLAIN for port in (*record.inputs, *record.outputs)
            )
        return plain

    def warm_up(self) -> None:
        """Opens the slice of the plan and runs it on made-up values.

        Once; on CUDA until algorithms are chosen, memory is laid out and a graph is captured.

        Raises:
            DnnsplitError: It cannot be opened.
        """
        leg = self.routes.default.legs[self.tier]
        if leg.record is not None:
            self._session(leg.record)
            try:
                inputs = generate(leg.record.inputs, bindings_of(self.routes.manifest))
                on_device = not is_on_host(options_on(self.options, leg.record).provider)
                for _ in range(_DEVICE_RUNS if on_device else 1):
                    self.run(leg, inputs.values, Deadline(3600))
            except (InputError, ProtocolError) as error:
                # Not every slice can run on made-up values (indices, for one). It is
                # loaded, which is all that can be known before the first request.
                self._tell_untried(leg, error)
        self.ready = True

    def _tell_untried(self, leg: Leg, error: DnnsplitError) -> None:
        """Says that a slice is loaded and was not run: that is no fault where it reads what others make.

        Of such values, shapes and indices above all, nobody knows here what the slices below make.
        """
        brought = {port.name for port in self.routes.manifest.model.inputs}
        inner = next((port.name for port in leg.arrives if port.name not in brought), None)
        if inner is None:
            _log.info("tier `%s` is loaded, and not tried on made-up values: %s", self.name, error.message)
            return
        _log.info(
            "tier `%s` is loaded; its first request is its first run, since `%s` comes from the tiers below",
            self.name,
            inner,
        )
        _log.debug("tier `%s` on made-up values: %s", self.name, error.message)

    def open(self, leg: Leg) -> None:
        """Opens a leg's slice ahead of the first request that needs it."""
        if leg.record is not None:
            self._session(leg.record)

    def close(self) -> None:
        """Gives up its sessions."""
        with self._lock:
            self._sessions.clear()

    def _session(self, record: SliceRecord) -> Session:
        """A slice's session, opened by the first who asks while the others wait for it."""
        assert record.file is not None
        with self._lock:
            opened = self._sessions.get(record.file)
            is_first = opened is None
            if opened is None:
                opened = self._sessions[record.file] = Future()
            self._sessions.move_to_end(record.file)
        if is_first:
            try:
                opened.set_result(self._open(record))
            except BaseException as error:
                with self._lock:
                    del self._sessions[record.file]
                opened.set_exception(error)
                raise
            self._close_oldest()
        return opened.result()

    def _close_oldest(self) -> None:
        with self._lock:
            ready = [file for file, opened in self._sessions.items() if opened.done()]
            for file in ready[: max(0, len(self._sessions) - self.most_sessions)]:
                del self._sessions[file]

    def _open(self, record: SliceRecord) -> Session:
        check_files(self.folder, record)
        if any(port.is_file for port in record.inputs):
            need_pillow()  # better now than at the first request
        start = time.perf_counter()
        try:
            # Of its own, so that files that are written over change no answer.
            session = open_slice(self.folder, record, self.options, check=False, private=True)
            check_files(self.folder, record)  # they may have changed while they were read
        except DnnsplitError:
            _log.error("tier `%s` cannot open nodes %d to %d", self.name, record.start, record.stop)
            raise
        seconds = time.perf_counter() - start
        _log.info("tier `%s` opened nodes %d to %d in %.2f s", self.name, record.start, record.stop, seconds)
        if session.cpu_nodes:
            _log.warning(
                "tier `%s`: CUDA has no kernel for %d of these, which run on the CPU: %s",
                self.name,
                len(session.cpu_nodes),
                ", ".join(session.cpu_nodes[:_MOST_NAMED]),
            )
        return session


def _state_nbytes(state: Any) -> int:
    """Memory that a state takes."""
    return int(state.tensor_size_in_bytes()) if state is not None and state.is_tensor() else 0


@contextmanager
def _once(empty: Callable[[], Any]) -> Iterator[Turn]:
    """A request of no sequence: its states are forgotten."""
    yield Turn(0, empty())
