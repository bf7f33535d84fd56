"""Runs a model step after step, its states kept where they are made.

    steps = Steps.open("split_dir")
    logits = steps({"input_ids": prompt})["logits"]
    logits = steps({"input_ids": token})["logits"]

A decoder's caches are states: each step's are the next step's inputs. They stay in the
memory of the tier that owns the layer, on its device if it has one, and are never turned
into Python objects. Only the inputs and the outputs of a request pass through here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnnsplit_onnx.running.chain import Chain
from dnnsplit_onnx.running.initial import empty_states
from dnnsplit_onnx.running.origin import slices_folder
from dnnsplit_onnx.runtime.inputs import to_values
from dnnsplit_onnx.runtime.provider import runtime
from dnnsplit_onnx.runtime.sessions import SessionOptions, open_session
from dnnsplit_onnx.runtime.values import Value, to_python, to_value
from dnnsplit_onnx.slicing.manifest import Manifest, StateRecord, load_manifest


class Steps:
    """A chain, or a whole model as a chain of one, with a memory.

    Attributes:
        chain: What is run.
        states: What each step hands to the next.
    """

    def __init__(self, chain: Chain, states: Sequence[StateRecord]) -> None:
        self.chain = chain
        self.states = tuple(states)
        kept = {state.input for state in states}
        self._fresh = tuple(port for port in chain.inputs if port.name not in kept)
        self._kept = tuple(port for port in chain.inputs if port.name in kept)
        made = {state.output for state in states}
        self._results = tuple(name for name in chain.outputs if name not in made)
        self._memory: dict[str, Value] | None = None

    @classmethod
    def open(cls, folder: str | Path, options: Callable[[str], SessionOptions] | None = None) -> Steps:
        """Opens the slices of a folder.

        Args:
            folder: The folder of the manifest.
            options: How to run each tier, by its name.

        Raises:
            ManifestError: A file is missing or was changed, or the slices do not fit together.
            ModelError: onnxruntime cannot load a slice.
        """
        place = slices_folder(folder)
        manifest = load_manifest(place)
        made = [state.output for state in manifest.states]
        return cls(Chain.open(place, options, manifest=manifest, states=made), manifest.states)

    @classmethod
    def of_whole(cls, model: str | Path, manifest: Manifest) -> Steps:
        """The whole model that a manifest's slices were cut from, to be run the same way.

        Raises:
            ModelError: onnxruntime cannot load it.
        """
        session = open_session(Path(model), label="the whole model")
        outputs = [port.name for port in manifest.model.outputs]
        return cls(Chain([("whole", session)], manifest.model.inputs, outputs), manifest.states)

    def __call__(
        self, inputs: Mapping[str, Any], states: Mapping[str, Any] | None = None
    ) -> dict[str, np.ndarray]:
        """Runs one step.

        Args:
            inputs: What the request brings, by name.
            states: What the first step starts from, by the names of the model's inputs.
                Without it a state starts empty: its open dimensions are 0, but for those
                that the inputs settle by name, and a first one that is the inputs' own.

        Returns:
            The model's outputs that are no states, by name.

        Raises:
            InputError: An input is missing or unknown.
            ModelError: A slice fails; the memory is what it was.
        """
        ort = runtime()
        values = to_values(self._fresh, inputs)
        if states is not None:
            self._memory = to_values(self._kept, states)
        elif self._memory is None:
            self._memory = self._empty(inputs)
        made = self.chain.run_values(values | self._memory)
        self._memory = {state.input: made[state.output] for state in self.states}
        return {name: to_python(ort, made[name]) for name in self._results}

    def forget(self) -> None:
        """Makes the next step a first one."""
        self._memory = None

    def _empty(self, inputs: Mapping[str, Any]) -> dict[str, Value]:
        ort, shapes = runtime(), {name: np.shape(value) for name, value in inputs.items()}
        made = empty_states(self._kept, self._fresh, shapes)
        return {name: to_value(ort, array) for name, array in made.items()}
