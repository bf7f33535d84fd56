"""Runs a model step after step, its states kept where they are made.

    steps = Steps.open("split_dir")
    logits = steps({"input_ids": prompt})["logits"]
    logits = steps({"input_ids": token})["logits"]

A decoder's caches are states: each step's are the next step's inputs. They stay in the
memory of the tier that owns the layer, on its device if it has one, and are never turned
into Python objects. Only the inputs and the outputs of a request pass through here, and what
states are to begin with, where it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.running.caches import dropped
from dnnsplit_onnx.running.chain import Chain, OnStage
from dnnsplit_onnx.running.initial import empty_states, missing_state, next_states, own_value
from dnnsplit_onnx.running.origin import slices_folder
from dnnsplit_onnx.running.slices import with_libraries
from dnnsplit_onnx.runtime.inputs import listed_names, to_values
from dnnsplit_onnx.runtime.provider import runtime
from dnnsplit_onnx.runtime.sessions import SessionOptions, open_session
from dnnsplit_onnx.runtime.values import Value, to_python, to_value
from dnnsplit_onnx.slicing.heads import append_head
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
        self._staying = {state.input for state in states if state.output is None}
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
        made = [state.output for state in manifest.states if state.output is not None]
        return cls(Chain.open(place, options, manifest=manifest, states=made), manifest.states)

    @classmethod
    def of_whole(cls, model: str | Path, manifest: Manifest) -> Steps:
        """The whole model that a manifest's slices were cut from, to be run the same way.

        Raises:
            ModelError: onnxruntime cannot load it.
        """
        options = SessionOptions(custom_ops=with_libraries(SessionOptions(), manifest.slices))
        rewrite = None if manifest.head is None else partial(append_head, head=manifest.head)
        session = open_session(Path(model), options, label="the whole model", rewrite=rewrite)
        outputs = [port.name for port in manifest.model.outputs]
        return cls(Chain([("whole", session)], manifest.model.inputs, outputs), manifest.states)

    def __call__(
        self,
        inputs: Mapping[str, Any],
        states: Mapping[str, Any] | None = None,
        *,
        on_stage: OnStage | None = None,
    ) -> dict[str, np.ndarray]:
        """Runs one step.

        Args:
            inputs: What the request brings, by name. States that stay for a whole sequence are
                among them in the first step, and in any that is to change them.
            states: What states are to begin with, by the names of the model's inputs; the step
                is then a first one. Those that are left out start empty: their open dimensions
                are 0, but for those that the inputs settle by name or no step changes, and a first
                one that is the inputs' own.
            on_stage: Called after each slice with its tier and the seconds it took.

        Returns:
            The model's outputs that are no states, by name.

        Raises:
            InputError: An input is missing or unknown.
            ModelError: A slice fails; the memory is what it was.
        """
        ort = runtime()
        fresh = {name: value for name, value in inputs.items() if name not in self._staying}
        brought = {**(states or {}), **{name: inputs[name] for name in inputs if name in self._staying}}
        values = to_values(self._fresh, fresh)
        given = self._given(brought)
        if states is not None or self._memory is None:
            before = self._empty(fresh, brought) | given
        else:
            before = self._memory | given
        made = self.chain.run_values(values | before, on_stage=on_stage)
        # Outputs that are inputs are the caller's own arrays.
        own = {name: value for name, value in made.items() if name not in values and name not in before}
        self._memory = next_states(self.states, before, own, values)
        return {name: to_python(ort, made[name]) for name in self._results}

    def forget(self) -> None:
        """Makes the next step a first one."""
        self._memory = None

    def fork(self) -> Steps:
        """Another memory that goes on from what this one holds; the sessions are shared."""
        other = Steps(self.chain, self.states)
        other._memory = self._memory  # replaced by each step, and never changed
        return other

    def drop(self, count: int) -> None:
        """Forgets the last positions of the text.

        Args:
            count: How many positions each cache loses.

        Raises:
            InputError: A state holds fewer, or is not one that only grows.
        """
        if count and self._memory is not None:
            self._memory = dropped(self.states, self._memory, count)

    def _given(self, states: Mapping[str, Any]) -> dict[str, Value]:
        """States that the caller gives.

        Raises:
            InputError: One is no state.
        """
        ports = {port.name: port for port in self._kept}
        for name in states:
            if name not in ports:
                raise InputError(f"unknown state `{name}`", hint=f"the states are {listed_names(ports)}")
        return {name: own_value(data, ports[name].dtype) for name, data in states.items()}

    def _empty(self, inputs: Mapping[str, Any], brought: Mapping[str, Any]) -> dict[str, Value]:
        """States that hold nothing yet, but for those that are brought.

        Raises:
            InputError: One that stays for a whole sequence is read, and not brought.
        """
        read = {name for _, session in self.chain.stages for name in session.inputs}
        for name in sorted(self._staying & read - brought.keys()):
            raise missing_state(name)
        ort = runtime()
        shapes = {name: np.shape(value) for name, value in {**inputs, **brought}.items()}
        left = [port for port in self._kept if port.name not in brought and port.name not in self._staying]
        settled = [*self._fresh, *(port for port in self._kept if port.name in self._staying)]
        made = empty_states(left, self.states, settled, shapes)
        return {name: to_value(ort, array) for name, array in made.items()}
