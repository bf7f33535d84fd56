"""Requests that belong together: the states of a model between them.

A decoder's caches stay on the tier that owns the layer. Requests of one sequence carry its
name (`sequence_id`), the first says so (`sequence_start`), the last may (`sequence_end`);
these are Triton's parameters, and its clients send them. Ours also number the steps
(`dnnsplit_step`): a request that is sent again, since its answer was lost, is then computed
from the states that it was first computed from, on every tier that it had reached. Caches that
only grow can be cut back first (`dnnsplit_drop`), and a sequence may go on from another's states
(`dnnsplit_origin`).

A client that does not number its steps is numbered by the first tier it reaches
(`Numbering`), so that no request travels on without a number. A request that fails leaves
the number as it was: whatever comes next is computed, on every tier, from the states before
the failure.

What is kept is bounded in bytes (`Memories`): the sequence that has been silent for longest
makes room for another.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from dnnsplit_onnx.serving.wire.errors import DeadlineError, ProtocolError
from dnnsplit_onnx.serving.wire.stream import Deadline

_LONGEST_NAME = 256
# An entry takes some memory even where its states take none.
_LEAST_NBYTES = 1 << 10
_MOST_NUMBERED = 1 << 16
_NUMBERS = ("dnnsplit_step", "dnnsplit_drop", "dnnsplit_positions", "dnnsplit_origin_step")


@dataclass(frozen=True, slots=True)
class Sequence:
    """A request's place in a sequence.

    Attributes:
        name: Which sequence.
        start: Whether it is the first request.
        end: Whether it is the last one.
        step: Which request it is, counted from 0; None if nobody counts.
        drop: How many of the last positions are forgotten before it.
        origin: Another sequence, and its step, from whose states the first request goes on.
        positions: How long the text may become, which the first request says.
    """

    name: str
    start: bool = False
    end: bool = False
    step: int | None = None
    drop: int = 0
    origin: tuple[str, int] | None = None
    positions: int | None = None

    def parameters(self) -> dict[str, Any]:
        """As a request carries it."""
        numbered: dict[str, Any] = {} if self.step is None else {"dnnsplit_step": self.step}
        if self.drop:
            numbered["dnnsplit_drop"] = self.drop
        if self.positions is not None:
            numbered["dnnsplit_positions"] = self.positions
        if self.origin is not None:
            name, step = self.origin
            numbered |= {"dnnsplit_origin": name, "dnnsplit_origin_step": step}
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
    name = parameters.get("sequence_id")
    if name is None or name in (0, ""):  # how Triton's clients say that there is none
        return None
    if not isinstance(name, str | int) or isinstance(name, bool) or len(str(name)) > _LONGEST_NAME:
        raise ProtocolError("`sequence_id` is not a number or a short text")
    start, end = parameters.get("sequence_start", False), parameters.get("sequence_end", False)
    if type(start) is not bool or type(end) is not bool:
        raise ProtocolError("`sequence_start` and `sequence_end` are true or false")
    step, drop, positions, at = map(parameters.get, _NUMBERS)
    for number in (step, drop, positions, at):
        if number is not None and (type(number) is not int or number < 0):
            raise ProtocolError("a `dnnsplit_` parameter of a sequence is not a number from 0 up")
    origin = parameters.get("dnnsplit_origin")
    if origin is not None and (not isinstance(origin, str) or len(origin) > _LONGEST_NAME or at is None):
        raise ProtocolError("`dnnsplit_origin` is no sequence with a step")
    begun = None if origin is None or at is None else (origin, at)
    return Sequence(str(name), start, end, step, drop or 0, begun, positions)


@dataclass(slots=True, eq=False)
class _Memory:
    """What is kept of one sequence on one slice: states before its last step, and after it.

    Where the step only made them longer, they are kept once: `before` is None then, and `grown`
    says how many positions to cut off.
    """

    step: int = -1
    before: Any = None
    after: Any = None
    grown: int | None = None
    nbytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True)
class Turn:
    """A request's turn in its sequence.

    Attributes:
        step: Which it is.
        states: What it starts from.
        after: What comes of it.
        grown: By how many positions that is longer, and otherwise the same; None if it is not so.
    """

    step: int
    states: Any
    after: Any = None
    grown: int | None = None


#: States without their last positions.
Cut = Callable[[Any, int], Any]


class Memories:
    """The states of all sequences of a tier; safe to use from several threads.

    Args:
        nbytes: How much memory all of them may take together.
        size_of: Bytes of one state.
    """

    def __init__(self, nbytes: int = 1 << 30, size_of: Callable[[Any], int] = lambda _: 0) -> None:
        self._most, self._size_of = nbytes, size_of
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], _Memory] = OrderedDict()
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Memory that is taken."""
        return self._nbytes

    @contextmanager
    def step(
        self,
        sequence: Sequence,
        part: str,
        empty: Callable[[], Any],
        deadline: Deadline,
        cut: Cut = lambda states, _: states,
    ) -> Iterator[Turn]:
        """One request's turn; others of the same sequence wait for its end.

        Args:
            sequence: Its place.
            part: What runs it: the states of one slice mean nothing to another.
            empty: Makes what a sequence starts from.
            deadline: When to give up waiting for the turn.
            cut: Cuts states back.

        Yields:
            The states to start from; what is set as `after` is kept if nothing is raised.

        Raises:
            ProtocolError: The sequence is not known here, or it is another request's turn
                (409), or its states alone are more than may be kept (413).
            DeadlineError: Another request of the sequence took too long.
        """
        key = sequence.name, part
        memory = self._find(key, start=sequence.start)
        try:
            with _held(memory.lock, sequence.name, deadline):
                if sequence.start and sequence.origin is not None:
                    states = self._states_of(*sequence.origin, part, deadline, cut)
                    turn = Turn(0, cut(states, sequence.drop))
                else:
                    turn = Turn(*self._begin(memory, sequence, empty, cut))
                yield turn
                memory.step, memory.after, memory.grown = turn.step, turn.after, turn.grown
                memory.before = turn.states if turn.grown is None else None
                self._measure(key, memory)
            if sequence.end:
                self._drop(key, memory)
        except BaseException:
            if memory.step < 0:  # nothing has ever come of it
                self._drop(key, memory)
            raise

    def forget(self, name: str) -> None:
        """Forgets a sequence, whatever it was."""
        with self._lock:
            left = [(key, memory) for key, memory in self._kept.items() if key[0] == name]
        for key, memory in left:
            self._drop(key, memory)

    def _states_of(self, name: str, step: int, part: str, deadline: Deadline, cut: Cut) -> Any:
        """The states of another sequence after one of its last two steps.

        Raises:
            ProtocolError: They are not here (409).
        """
        with self._lock:
            memory = self._kept.get((name, part))
        if memory is None:
            raise _unknown(name)
        with _held(memory.lock, name, deadline):
            if step == memory.step:
                return memory.after
            if step == memory.step - 1:
                return _before(memory, cut)
        raise _unknown(name)

    def _begin(
        self, memory: _Memory, sequence: Sequence, empty: Callable[[], Any], cut: Cut
    ) -> tuple[int, Any]:
        if sequence.start:
            return 0, empty()
        if memory.step < 0:
            raise _unknown(sequence.name)
        step = memory.step + 1 if sequence.step is None else sequence.step
        if step == memory.step + 1:
            return step, cut(memory.after, sequence.drop) if sequence.drop else memory.after
        if step == memory.step:  # sent again, and cut back already
            return step, _before(memory, cut)
        raise ProtocolError(
            f"sequence `{sequence.name}` is at step {memory.step}, and this is step {step}", status=409
        )

    def _find(self, key: tuple[str, str], *, start: bool) -> _Memory:
        with self._lock:
            memory = self._kept.get(key)
            if memory is None:
                if not start:
                    raise _unknown(key[0])
                memory = self._kept[key] = _Memory(nbytes=_LEAST_NBYTES)
                self._nbytes += memory.nbytes
            self._kept.move_to_end(key)
            return memory

    def _measure(self, key: tuple[str, str], memory: _Memory) -> None:
        """Counts the states anew, each once, and makes room for them.

        Raises:
            ProtocolError: There is not so much room.
        """
        # The states before a step are often those after it, where a slice only passes them on.
        states = {id(s): s for kept in (memory.before, memory.after) for s in (kept or {}).values()}
        nbytes = _LEAST_NBYTES + sum(map(self._size_of, states.values()))
        with self._lock:
            if self._kept.get(key) is not memory:
                return  # it was dropped meanwhile
            self._nbytes += nbytes - memory.nbytes
            memory.nbytes = nbytes
            if nbytes <= self._most:
                self._make_room()
                return
        self._drop(key, memory)
        raise ProtocolError(
            f"the states of sequence `{key[0]}` take {nbytes} bytes; at most {self._most} are kept",
            status=413,
            hint="serve with more: --max-states-mb",
        )

    def _make_room(self) -> None:
        """Forgets sequences that nothing computes, the one silent for longest first."""
        for key, memory in list(self._kept.items()):
            if self._nbytes <= self._most:
                return
            if not memory.lock.locked():
                self._nbytes -= memory.nbytes
                del self._kept[key]

    def _drop(self, key: tuple[str, str], memory: _Memory) -> None:
        with self._lock:
            if self._kept.get(key) is memory:
                self._nbytes -= memory.nbytes
                del self._kept[key]


def _before(memory: _Memory, cut: Cut) -> Any:
    """States before the last step of a sequence."""
    return memory.before if memory.grown is None else cut(memory.after, memory.grown)


@dataclass(slots=True, eq=False)
class _Count:
    step: int = -1
    lock: threading.Lock = field(default_factory=threading.Lock)


class Numbering:
    """Numbers the steps of clients that do not; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: OrderedDict[str, _Count] = OrderedDict()

    @contextmanager
    def numbered(self, sequence: Sequence | None, deadline: Deadline) -> Iterator[Sequence | None]:
        """A request's place, with its number; the number is used up if nothing is raised.

        Raises:
            ProtocolError: The sequence was not started here (409).
            DeadlineError: Another request of the sequence took too long.
        """
        if sequence is None or sequence.step is not None:
            yield sequence
            return
        count = self._find(sequence)
        try:
            with _held(count.lock, sequence.name, deadline):
                # A start that fails half-way leaves tiers that began anew, and others that did not.
                step = count.step = -1 if sequence.start else count.step
                yield replace(sequence, step=step + 1)
                count.step = -1 if sequence.end else step + 1
        finally:
            if count.step < 0:
                with self._lock:
                    if self._counts.get(sequence.name) is count:
                        del self._counts[sequence.name]

    def _find(self, sequence: Sequence) -> _Count:
        with self._lock:
            count = self._counts.get(sequence.name)
            if count is None:
                if not sequence.start:
                    raise _unknown(sequence.name)
                if len(self._counts) >= _MOST_NUMBERED:
                    self._counts.popitem(last=False)
                count = self._counts[sequence.name] = _Count()
            self._counts.move_to_end(sequence.name)
            return count


@contextmanager
def _held(lock: threading.Lock, name: str, deadline: Deadline) -> Iterator[None]:
    if not lock.acquire(timeout=max(0.0, deadline.remaining_s)):
        raise DeadlineError(f"another request of sequence `{name}` took too long")
    try:
        yield
    finally:
        lock.release()


def _unknown(name: str) -> ProtocolError:
    return ProtocolError(f"the states of sequence `{name}` are not here: start it again", status=409)
