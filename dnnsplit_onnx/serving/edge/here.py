"""All slices of a chain in this process: what `run` does where no tier is named.

Nothing travels: a request's values pass from slice to slice as onnxruntime holds them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dnnsplit_onnx.errors import ManifestError, ModelError
from dnnsplit_onnx.running.origin import slices_folder
from dnnsplit_onnx.running.steps import Steps
from dnnsplit_onnx.runtime.options import TIER, SessionOptions
from dnnsplit_onnx.serving.edge.checking import check_request
from dnnsplit_onnx.serving.edge.edge import Answer, Arrays, all_of
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.wire.errors import DeadlineError, ServingError
from dnnsplit_onnx.serving.wire.exchange import as_failure
from dnnsplit_onnx.serving.wire.trace import TierTrace
from dnnsplit_onnx.slicing.manifest import load_manifest


class Here:
    """The slices of a folder, each on the provider of its tier; safe to use from several threads.

    Attributes:
        routes: What the folder holds.

    Args:
        folder: The folder of slices.
        options: How to run them.
        deadline_s: A request may take; it is looked at after each slice.

    Raises:
        ManifestError: The folder is not one of slices, or a file is not the one written.
        ModelError: A slice cannot be opened.
        MissingExtraError: This machine lacks the provider of a tier.
    """

    def __init__(
        self, folder: str | Path, options: SessionOptions | None = None, *, deadline_s: float = 30.0
    ) -> None:
        place = slices_folder(folder)
        self.routes = Routes(load_manifest(place))
        slices = self.routes.manifest.slices
        absent = [r.tier for r in slices if r.file is not None and not (place / r.file).exists()]
        if absent:
            raise ManifestError(
                f"the slice of tier `{absent[0]}` is not in `{place}`",
                hint="name the server that has it, --url URL, or copy the whole folder here",
            )
        settings = options or SessionOptions(provider=TIER)
        self._chain = Steps.open(place, lambda _: settings).chain
        self._cuts = tuple(record.stop for record in slices[:-1])
        self._deadline_s = deadline_s

    def infer(self, inputs: Mapping[str, Any], *, states: Mapping[str, Any] | None = None) -> Answer:
        """Runs one request.

        Args:
            inputs: The model's inputs by name, and the states among them that stay for a sequence.
            states: What other states are to begin with; those that are left out are empty.

        Raises:
            InputError: The inputs do not fit the model.
            ServingError: A slice failed, or it took too long.
        """
        start = time.perf_counter()
        values = check_request(self.routes, inputs, states or {}, is_first=True)
        begun = {name: values.pop(name) for name in states or {}}
        tiers: list[TierTrace] = []

        def on_stage(tier: str, seconds: float) -> None:
            tiers.append(TierTrace(tier, 0.0, seconds, seconds))
            if time.perf_counter() - start > self._deadline_s:
                raise DeadlineError(f"the request took over {self._deadline_s * 1e3:g} ms on tier `{tier}`")

        try:
            steps = Steps(self._chain, self.routes.manifest.states)
            outputs: Arrays = dict(steps(values, begun, on_stage=on_stage))
        except ModelError as error:
            raise as_failure(error) from error
        return Answer(outputs, self._cuts, time.perf_counter() - start, tuple(tiers), 1)

    def infer_all(
        self,
        requests: Iterable[Mapping[str, Any]],
        *,
        states: Mapping[str, Any] | None = None,
        concurrency: int = 1,
    ) -> Iterator[Answer | ServingError]:
        """Runs many requests, as `Edge.infer_all` does."""
        return all_of(partial(self.infer, states=states), requests, concurrency)
