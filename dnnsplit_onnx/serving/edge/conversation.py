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
from typing import Any

from dnnsplit_onnx.serving.edge.edge import Answer, Edge
from dnnsplit_onnx.serving.tier.routes import Cuts
from dnnsplit_onnx.serving.tier.sequences import Sequence


class Conversation:
    """Requests of one sequence, one after another; not safe to use from several threads.

    The first chooses the cuts, and the others keep to them: the states lie where they were
    made. A request that failed may be sent again, and goes on from where it was.

    Args:
        edge: The client of the chain.
    """

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._name = uuid.uuid4().hex
        self._step = 0
        self._cuts: Cuts | None = None

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
            self._step, self._cuts = 0, None
        place = Sequence(self._name, start=self._step == 0, end=last, step=self._step)
        answer = self._edge.infer(
            inputs, states=states, deadline_s=deadline_s, sequence=place, cuts=self._cuts
        )
        self._cuts = answer.cuts
        self._step += 1
        return answer
