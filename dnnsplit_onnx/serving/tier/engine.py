"""What runs a tier's slices: in this process (`stage`), or on replicas (`replicas`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dnnsplit_onnx.serving.tier.legs import Leg
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.tier.sequences import Sequence
from dnnsplit_onnx.serving.wire.stream import Deadline

#: Values by name; None is an optional that is absent.
Values = Mapping[str, "np.ndarray | None"]
Arrays = dict[str, "np.ndarray | None"]


@dataclass(slots=True)
class Times:
    """Where a request's time went on one tier, in seconds."""

    queue_s: float = 0.0
    compute_s: float = 0.0


class Engine(Protocol):
    """Runs the slices of one tier; safe to use from several threads."""

    @property
    def routes(self) -> Routes:
        """Of the manifest."""

    @property
    def tier(self) -> int:
        """Which tier, counted from 0."""

    @property
    def name(self) -> str:
        """The tier's name."""

    @property
    def ready(self) -> bool:
        """Whether a slice has really run, and requests can be taken."""

    @property
    def waiting(self) -> int:
        """Requests that wait to compute."""

    @property
    def replicas(self) -> int:
        """How many copies of the tier can compute now."""

    def is_on_device(self, leg: Leg) -> bool:
        """Whether this process runs the tier's part of a route on a GPU."""

    def run(
        self,
        leg: Leg,
        values: Values,
        deadline: Deadline,
        times: Times | None = None,
        sequence: Sequence | None = None,
    ) -> Arrays:
        """Runs this tier's part of a route.

        Args:
            leg: The part.
            values: What arrived; others are left alone.
            deadline: When to give up waiting. A run that has begun is finished.
            times: Filled in.
            sequence: The request's place in a sequence; without one, states start empty
                and are not kept.

        Returns:
            What the slice makes, by name; nothing for a tier without work.

        Raises:
            DeadlineError: It could not run in time.
            ProtocolError: The slice refuses the values.
            DnnsplitError: The slice cannot be opened.
        """

    def open(self, leg: Leg) -> None:
        """Opens a leg's slice ahead of the first request that needs it."""

    def forget(self, name: str) -> None:
        """Forgets the states of a sequence, if it keeps any."""

    def warm_up(self) -> None:
        """Opens the slice of the plan and runs it once on made-up values.

        Raises:
            DnnsplitError: It cannot be opened.
        """

    def close(self) -> None:
        """Gives up what it holds; no request is under way any more."""
