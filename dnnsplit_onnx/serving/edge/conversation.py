"""A client of a model with states: one text, one game, one stream, request by request.

with Edge("split_dir", "http://10.0.0.2:8000") as edge:
talk = Conversation(edge)
answer = talk.infer({"input_ids": prompt})
while ...:
answer = talk.infer({"input_ids": token})
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from dnnsplit_onnx.serving.edge.edge import Answer, Edge
from dnnsplit_onnx.serving.tier.cuts import Cuts
from dnnsplit_onnx.serving.tier.sequences import Sequence


class Conversation:
    """Requests of one sequence, one after another; not safe to use from several threads.

    The first chooses the cuts, and the others keep to them: the states lie where they were
    made. A request that failed may be sent again, and goes on from where it was.

    Args:
        edge: The client of the chain.
        positions: How long the text may become: a tier that cannot keep so much refuses the first
            request, with the figure.

    Attributes:
        steps: How many requests were answered.
    """

    def __init__(self, edge: Edge, *, positions: int | None = None) -> None:
        self._edge = edge
        self._name = uuid.uuid4().hex
        self.steps = 0
        self._cuts: Cuts | None = None
        self._positions, self._drop = positions, 0
        self._origin: tuple[str, int] | None = None

    def infer(
        self,
        inputs: Mapping[str, Any],
        states: Mapping[str, Any] | None = None,
        *,
        deadline_s: float | None = None,
        last: bool = False,
    ) -> Answer:
        """Runs the next request.

        Args:
            inputs: The model's inputs by name, but for states. Those of them that stay for a
                whole sequence, such as what a decoder attends to, are among the inputs of the
                first request.
            states: What states are to begin with, by the names of the model's inputs; others
                are empty. The request is then a first one.
            deadline_s: How long it may take.
            last: Whether the states may be forgotten after it.

        Raises:
            InputError: The inputs do not fit the model.
            ServingError: The request failed. If a tier has lost the states (status 409), the
                conversation must be started again.
        """
        if states is not None:
            self.steps, self._cuts, self._drop, self._origin = 0, None, 0, None
        place = Sequence(
            self._name,
            start=self.steps == 0,
            end=last,
            step=self.steps,
            drop=self._drop,
            origin=self._origin,
            positions=None if self.steps else self._positions,
        )
        answer = self._edge.infer(
            inputs, states=states, deadline_s=deadline_s, sequence=place, cuts=self._cuts
        )
        self._cuts = answer.cuts
        self.steps += 1
        self._drop, self._origin = 0, None
        return answer

    def drop(self, count: int) -> None:
        """Forgets the last positions of the text, with the next request.

        That request fails (status 422) where a model does more to its caches than append.
        """
        self._drop += count

    def fork(self) -> Conversation:
        """Another conversation that goes on from here.

        Its first request has to come before this one has had two more.
        """
        other = Conversation(self._edge, positions=self._positions)
        other._drop = self._drop
        if self.steps:
            other._cuts, other._origin = self._cuts, (self._name, self.steps - 1)
        else:
            other._origin = self._origin
        return other

    def close(self) -> None:
        """Has the tiers forget the states, which they otherwise do when they need the room."""
        if self.steps:
            self._edge.forget(self._name)
            self.steps, self._cuts, self._drop = 0, None, 0

    def __enter__(self) -> Conversation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
