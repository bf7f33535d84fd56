"""The slices of a manifest, run one after another in this process.

Values pass from slice to slice as onnxruntime holds them, uncopied, and are dropped after
their last reader, so that the chain needs no more memory than the live values of its cuts.

What one slice on CUDA makes for others there stays in the device's memory. What comes from
elsewhere and is read by several slices on CUDA is copied there once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from dnnsplit_onnx.errors import ManifestError, ModelError
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.running.origin import slices_folder
from dnnsplit_onnx.running.slices import open_slice
from dnnsplit_onnx.runtime.inputs import to_values
from dnnsplit_onnx.runtime.placement import Crossings
from dnnsplit_onnx.runtime.provider import DEVICES, is_on_host, runtime
from dnnsplit_onnx.runtime.sessions import Session, SessionOptions
from dnnsplit_onnx.runtime.values import Value, on_device, to_python
from dnnsplit_onnx.slicing.coding import NO_CODE, faults
from dnnsplit_onnx.slicing.manifest import Manifest, load_manifest

#: Called after each stage with its tier and the seconds it took.
OnStage = Callable[[str, float], None]


class Chain:
    """Opened slices, from tier 0 up.

    Attributes:
        stages: Tier and session of each tier that has work.
        inputs: What the whole model reads.
        outputs: Names of what the whole model makes, in its order.
        states: Those that only the next run reads; they stay on the device that made them.

    What a slice writes in a code is looked at before it goes on: NaN and infinity are refused.
    """

    def __init__(
        self,
        stages: Sequence[tuple[str, Session]],
        inputs: Sequence[Port],
        outputs: Sequence[str],
        states: Collection[str] = (),
        coded: Mapping[str, Sequence[Port]] | None = None,
    ) -> None:
        self.stages = tuple(stages)
        self._coded = {tier: tuple(ports) for tier, ports in (coded or {}).items() if ports}
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.states = frozenset(states)
        self._check_flow()
        self._dead = self._last_uses()
        self._on_device = tuple(self._device_outputs(at) for at in range(len(self.stages)))
        self._shared = self._shared_inputs()
        self._uploads = 0

    @classmethod
    def open(
        cls,
        folder: str | Path,
        options: Callable[[str], SessionOptions] | None = None,
        *,
        manifest: Manifest | None = None,
        check: bool = True,
        states: Collection[str] = (),
    ) -> Chain:
        """Opens all slices of a folder.

        Args:
            folder: The folder of slices that `slice_model` or `split` made.
            options: How to run each tier, by its name.
            manifest: What the folder holds, if it is known already.
            check: Whether to hold the slices' files against their hashes.
            states: Outputs that only the next run reads.

        Raises:
            ManifestError: A file is missing or was changed, or the slices do not fit together.
            ModelError: onnxruntime cannot load a slice.
        """
        if manifest is None:
            folder = slices_folder(folder)
            manifest = load_manifest(folder)
        stages = [
            (record.tier, open_slice(Path(folder), record, options and options(record.tier), check=check))
            for record in manifest.slices
            if record.file is not None
        ]
        outputs = [port.name for port in manifest.model.outputs]
        coded = {record.tier: record.coded_outputs for record in manifest.slices}
        return cls(stages, manifest.model.inputs, outputs, states, coded)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Runs the chain on Python objects: arrays, and lists of arrays for sequences.

        Returns:
            The model's outputs, by name, in its order.

        Raises:
            InputError: An input is missing or unknown, or has a type that onnxruntime lacks.
            ModelError: A slice fails.
        """
        ort = runtime()
        values = self.run_values(to_values(self.inputs, inputs))
        return {name: to_python(ort, value) for name, value in values.items()}

    def run_values(
        self,
        values: Mapping[str, Value],
        *,
        keep: Collection[str] = (),
        on_stage: OnStage | None = None,
    ) -> dict[str, Value]:
        """Runs the chain on values of onnxruntime.

        Args:
            values: The model's inputs.
            keep: Inner values to return as well, after the outputs.
            on_stage: Called after each stage.

        Raises:
            ModelError: A slice fails.
        """
        live = dict(values)
        kept: dict[str, Value] = {}
        copies: dict[str, Value] = {}  # of live values, on the device
        uploads = 0
        results: dict[str, Value] = {}
        for at, (tier, session) in enumerate(self.stages):
            start = time.perf_counter()
            feeds = live
            if session.provider != "cpu" and self._shared:
                fresh = self._copied(session, live, copies)
                uploads += sum(value is not live[name] for name, value in fresh.items())
                copies |= fresh
                feeds = {**live, **copies}
            made = session.run(feeds, on_device=self._on_device[at].difference(keep))
            if on_stage is not None:
                on_stage(tier, time.perf_counter() - start)
            self._check_codes(tier, made)
            # A model output that crosses in a code is made again above, and is no more what it was.
            results = {name: value for name, value in made.items() if name in self.outputs} | results
            live.update(made)
            kept.update((name, made[name]) for name in made if name in keep)
            for name in self._dead[at]:
                live.pop(name, None)
                copies.pop(name, None)
        self._uploads = uploads
        return {name: results[name] if name in results else live[name] for name in self.outputs} | kept

    def _check_codes(self, tier: str, made: Mapping[str, Value]) -> None:
        """Refuses what a code cannot hold.

        Raises:
            ModelError: There is such a value.
        """
        ports = self._coded.get(tier)
        if ports is None:
            return
        ort = runtime()
        for fault in faults(ports, {port.name: to_python(ort, made[port.name]) for port in ports}):
            raise ModelError(f"slice `{tier}`: {fault}", hint=NO_CODE)

    @property
    def crossings(self) -> Crossings:
        """What the last run moved between host and device."""
        return sum((session.crossings for _, session in self.stages), Crossings(self._uploads))

    def _copied(
        self, session: Session, live: Mapping[str, Value], copies: Mapping[str, Value]
    ) -> dict[str, Value]:
        """Copies on the session's device of what it reads and shares with a later one."""
        device = DEVICES[session.provider]
        wanted = self._shared.intersection(session.inputs).difference(copies)
        return {name: on_device(runtime(), live[name], device) for name in wanted}

    def _shared_inputs(self) -> frozenset[str]:
        """Values that several slices on a device read, and none of them makes.

        Slices that run as CUDA graphs have buffers of their own to copy to.
        """
        readers = [
            name
            for _, session in self.stages
            if session.provider != "cpu" and not session.captured
            for name in session.inputs
        ]
        stay = frozenset[str]().union(*self._on_device)
        return frozenset(name for name in readers if readers.count(name) > 1 and name not in stay)

    def _check_flow(self) -> None:
        """Every value is there when it is read, and made once."""
        available = {port.name for port in self.inputs}
        for tier, session in self.stages:
            for name in session.inputs:
                if name not in available:
                    raise ManifestError(
                        f"tier `{tier}` reads value `{name}`, which no lower tier makes",
                        hint="run `split` again",
                    )
            available.update(session.outputs)
        for name in self.outputs:
            if name not in available:
                raise ManifestError(f"no tier makes model output `{name}`", hint="run `split` again")

    def _last_uses(self) -> tuple[tuple[str, ...], ...]:
        """For each stage, the values that nothing reads after it."""
        last: dict[str, int] = {}
        for at, (_, session) in enumerate(self.stages):
            last.update(dict.fromkeys(session.outputs, at))
            last.update(dict.fromkeys(session.inputs, at))
        for name in self.outputs:
            last.pop(name, None)
        return tuple(
            tuple(name for name, when in last.items() if when == at) for at in range(len(self.stages))
        )

    def _device_outputs(self, at: int) -> frozenset[str]:
        """Outputs of a stage that all their readers want on the provider it runs on.

        One reader elsewhere is enough for the copy to be made once, here.
        """
        _, session = self.stages[at]
        later = [other for _, other in self.stages[at + 1 :]]

        def stays(name: str) -> bool:
            readers = [other.provider for other in later if name in other.inputs]
            if name in self.states:
                return set(readers) <= {session.provider}
            return name not in self.outputs and bool(readers) and set(readers) == {session.provider}

        return frozenset() if is_on_host(session.provider) else frozenset(filter(stays, session.outputs))
