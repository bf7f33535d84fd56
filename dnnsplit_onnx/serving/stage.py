"""The slices of one tier, opened when a request first needs them, and run one at a time.

A tier without work has no slice; its values pass through.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dnnsplit_onnx.errors import DnnsplitError, InputError, ModelError
from dnnsplit_onnx.manifest import SliceRecord, check_files
from dnnsplit_onnx.runtime.inputs import generate
from dnnsplit_onnx.runtime.messages import clear_line
from dnnsplit_onnx.runtime.origin import bindings_of
from dnnsplit_onnx.runtime.provider import runtime
from dnnsplit_onnx.runtime.sessions import Session, SessionOptions, open_slice
from dnnsplit_onnx.runtime.values import to_python, to_value
from dnnsplit_onnx.serving.datatypes import BY_ONNX
from dnnsplit_onnx.serving.errors import ProtocolError
from dnnsplit_onnx.serving.routes import Leg, Routes
from dnnsplit_onnx.serving.slots import Slots
from dnnsplit_onnx.serving.stream import Deadline

# bfloat16 is no type of numpy's, and strings need conversion.
_PLAIN = frozenset(BY_ONNX) - {"bfloat16", "string"}

_log = logging.getLogger(__name__)

#: Values by name; None is an optional that is absent.
Values = Mapping[str, "np.ndarray | None"]


@dataclass(slots=True)
class Times:
    """Where a request's time went on one tier, in seconds."""

    queue_s: float = 0.0
    compute_s: float = 0.0


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
    """

    folder: Path
    routes: Routes
    tier: int
    options: SessionOptions = field(default_factory=SessionOptions)
    workers: int = 1
    most_sessions: int = 16
    ready: bool = False

    def __post_init__(self) -> None:
        self.name = self.routes.tiers[self.tier]
        self.slots = Slots(self.workers)
        self._ort = runtime()  # looks at what is installed: too slow to ask for each request
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._checked: set[str] = set()

    def run(
        self, leg: Leg, values: Values, deadline: Deadline, times: Times | None = None
    ) -> dict[str, np.ndarray | None]:
        """Runs this tier's part of a route.

        Args:
            leg: The part.
            values: What arrived; others are left alone.
            deadline: When to give up waiting for a slot. A run that has begun is finished.
            times: Filled in.

        Returns:
            What the slice makes, by name; nothing for a tier without work.

        Raises:
            DeadlineError: No slot became free in time.
            ProtocolError: The slice refuses the values.
            DnnsplitError: The slice cannot be opened.
        """
        if leg.record is None:
            return {}
        times = times or Times()
        feeds = self._feeds(leg.record, values)
        with self.slots.take(deadline) as times.queue_s:
            session = self._session(leg.record)
            start = time.perf_counter()
            try:
                made = self._run(session, leg.record, feeds)
            except ModelError as error:
                raise ProtocolError(error.message, status=422) from error
            times.compute_s = time.perf_counter() - start
        return made

    def _feeds(self, record: SliceRecord, values: Values) -> dict[str, Any]:
        if self._is_plain(record):
            return {port.name: values[port.name] for port in record.inputs}
        return {port.name: to_value(self._ort, values.get(port.name), port.dtype) for port in record.inputs}

    def _run(
        self, session: Session, record: SliceRecord, feeds: dict[str, Any]
    ) -> dict[str, np.ndarray | None]:
        if not self._is_plain(record):
            return {name: to_python(self._ort, value) for name, value in session.run(feeds).items()}
        try:
            made = session._session.run(session.outputs, feeds)
        except Exception as error:  # as `Session.run` has it
            raise ModelError(f"{session.label} fails to run: {clear_line(error)}") from error
        return dict(zip(session.outputs, made, strict=True))

    def _is_plain(self, record: SliceRecord) -> bool:
        """Whether all values are arrays that onnxruntime takes and gives as they are.

        That way is 40 microseconds shorter than by its own values.
        """
        return self.options.provider == "cpu" and all(
            port.kind == "tensor" and port.dtype in _PLAIN for port in (*record.inputs, *record.outputs)
        )

    def warm_up(self) -> None:
        """Opens the slice of the plan and runs it once on made-up values.

        Raises:
            DnnsplitError: It cannot be opened.
        """
        leg = self.routes.default.legs[self.tier]
        if leg.record is not None:
            self._session(leg.record)
            try:
                inputs = generate(leg.record.inputs, bindings_of(self.routes.manifest))
                self.run(leg, inputs.values, Deadline(3600))
            except (InputError, ProtocolError) as error:
                # Not every slice can run on made-up values (indices, for one). It is
                # loaded, which is all that can be known before the first request.
                _log.warning("tier `%s` is loaded, and could not be tried: %s", self.name, error.message)
        self.ready = True

    def open(self, leg: Leg) -> None:
        """Opens a leg's slice ahead of the first request that needs it."""
        if leg.record is not None:
            self._session(leg.record)

    def _session(self, record: SliceRecord) -> Session:
        assert record.file is not None
        with self._lock:
            session = self._sessions.get(record.file)
            if session is None:
                session = self._open(record)
                self._sessions[record.file] = session
                while len(self._sessions) > self.most_sessions:
                    self._sessions.popitem(last=False)
            self._sessions.move_to_end(record.file)
            return session

    def _open(self, record: SliceRecord) -> Session:
        # Slices of one tier share a file of weights: it is hashed once.
        data = tuple(file for file in record.data if file.file not in self._checked)
        check_files(self.folder, record.model_copy(update={"data": data}))
        self._checked.update(file.file for file in data)
        start = time.perf_counter()
        try:
            session = open_slice(self.folder, record, self.options, check=False)
        except DnnsplitError:
            _log.error("tier `%s` cannot open nodes %d to %d", self.name, record.start, record.stop)
            raise
        seconds = time.perf_counter() - start
        _log.info("tier `%s` opened nodes %d to %d in %.2f s", self.name, record.start, record.stop, seconds)
        return session
