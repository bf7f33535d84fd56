"""Requests that belong together: the states of a model between them.

A decoder's caches stay on the tier that owns the layer. Requests of one sequence carry its
name (`sequence_id`), the first says so (`sequence_start`), the last may (`sequence_end`);
these are Triton's parameters, and its clients send them. Ours also number the steps
(`dnnsplit_step`): a request that is sent again, since its answer was lost, is then computed
from the states that it was first computed from, on every tier that it had reached.

What is kept is bounded: a sequence that has been silent for long is forgotten when there are
too many, and while none has, another one is refused at once.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.serving.wire.errors import ProtocolError, ServingError

_LONGEST_NAME = 256


@dataclass(frozen=True, slots=True)
class Sequence:
    """A request's place in a sequence.

    Attributes:
        name: Which sequence.
        start: Whether it is the first request.
        end: Whether it is the last one.
        step: Which request it is, counted from 0; None if nobody counts.
    """

    name: str
    start: bool = False
    end: bool = False
    step: int | None = None

    def parameters(self) -> dict[str, Any]:
        """As a request carries it."""
        numbered = {} if self.step is None else {"dnnsplit_step": self.step}
        return {
            "sequence_id": self.name,
            "sequence_start": self.start,
            "sequence_end": self.end,
            **numbered,
        }


def read_sequence(parameters: Mapping[str, Any]) -> Sequence | None:
    """The sequence that a request's parameters name, if they name one.

    Raises:
        ProtocolError: A parameter is of another type.
    """
    name, step = parameters.get("sequence_id"), parameters.get("dnnsplit_step")
    if name is None or name in (0, ""):  # how Triton's clients say that there is none
        return None
    if not isinstance(name, str | int) or isinstance(name, bool) or len(str(name)) > _LONGEST_NAME:
        raise ProtocolError("`sequence_id` is not a number or a short text")
    flags = [parameters.get(f"sequence_{which}", False) for which in ("start", "end")]
    if not all(isinstance(flag, bool) for flag in flags):
        raise ProtocolError("`sequence_start` and `sequence_end` are true or false")
    if step is not None and (not isinstance(step, int) or isinstance(step, bool) or step < 0):
        raise ProtocolError("`dnnsplit_step` is not a number from 0 up")
    start, end = flags
    return Sequence(str(name), start, end, step)


@dataclass(slots=True)
class _Memory:
    """What is kept of one sequence on one slice: states before its last step, and after it."""

    step: int
    before: Any
    after: Any
    touched: float
    lock: threading.Lock = field(default_factory=threading.Lock)


class Memories:
    """The states of all sequences of a tier; safe to use from several threads.

    Args:
        most: How many sequences are kept.
        idle_s: How long a sequence must have been silent to be forgotten for another one.
    """

    def __init__(self, most: int = 64, idle_s: float = 600.0) -> None:
        if most < 1 or not idle_s > 0:
            raise InputError("a tier keeps at least one sequence, for some time")
        self._most, self._idle_s = most, idle_s
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], _Memory] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @contextmanager
    def step(self, sequence: Sequence, part: str, empty: Callable[[], Any]) -> Iterator[Turn]:
        """One request's turn; others of the same sequence wait for its end.

        Args:
            sequence: Its place.
            part: What runs it: the states of one slice mean nothing to another.
            empty: Makes what a sequence starts from.

        Yields:
            The states to start from; what is set as `after` is kept if nothing is raised.

        Raises:
            ProtocolError: The sequence is not known here, or it is another request's turn (409).
            ServingError: There are too many sequences (503).
        """
        memory = self._find(sequence, part)
        with memory.lock:
            turn = Turn(*self._begin(memory, sequence, empty))
            yield turn
            memory.step, memory.before, memory.after = turn.step, turn.states, turn.after
            memory.touched = time.monotonic()
        if sequence.end:
            self._forget(sequence.name, part)

    def _begin(self, memory: _Memory, sequence: Sequence, empty: Callable[[], Any]) -> tuple[int, Any]:
        if sequence.start:
            return 0, empty()
        step = memory.step + 1 if sequence.step is None else sequence.step
        if step == memory.step + 1:
            return step, memory.after
        if step == memory.step:  # sent again
            return step, memory.before
        raise ProtocolError(
            f"sequence `{sequence.name}` is at step {memory.step}, and this is step {step}", status=409
        )

    def _find(self, sequence: Sequence, part: str) -> _Memory:
        key = sequence.name, part
        with self._lock:
            memory = self._kept.get(key)
            if memory is None:
                if not sequence.start:
                    raise ProtocolError(
                        f"the states of sequence `{sequence.name}` are not here: start it again", status=409
                    )
                self._make_room()
                memory = self._kept[key] = _Memory(-1, None, None, time.monotonic())
            self._kept.move_to_end(key)
            return memory

    def _make_room(self) -> None:
        if len(self._kept) < self._most:
            return
        key, oldest = next(iter(self._kept.items()))
        if time.monotonic() - oldest.touched < self._idle_s or oldest.lock.locked():
            raise ServingError(f"{self._most} sequences are under way, and no more are kept", status=503)
        del self._kept[key]

    def _forget(self, name: str, part: str) -> None:
        with self._lock:
            self._kept.pop((name, part), None)


@dataclass(slots=True)
class Turn:
    """A request's turn in its sequence."""

    step: int
    states: Any
    after: Any = None
