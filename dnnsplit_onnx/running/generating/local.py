"""A decoder in this process: a whole model, or a folder of slices, one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.running.chain import Chain
from dnnsplit_onnx.running.generating.checks import check_memory
from dnnsplit_onnx.running.generating.decoder import Signature
from dnnsplit_onnx.running.origin import slices_folder
from dnnsplit_onnx.running.steps import Steps
from dnnsplit_onnx.runtime.sessions import TIER, SessionOptions, open_session
from dnnsplit_onnx.runtime.sizing import find_sizes
from dnnsplit_onnx.slicing.extract import port
from dnnsplit_onnx.slicing.manifest import StateRecord, load_manifest
from dnnsplit_onnx.slicing.records import state_records


class LocalDecoder:
    """A chain in this process; see `Decoder`.

    Args:
        steps: The chain, its states empty.
        signature: What it reads and makes.
    """

    def __init__(self, steps: Steps, signature: Signature) -> None:
        self._steps, self._signature = steps, signature

    @classmethod
    def of_slices(
        cls, folder: str | Path, options: Callable[[str], SessionOptions] | None = None
    ) -> LocalDecoder:
        """The slices of a folder.

        Raises:
            ManifestError: A file is missing or was changed, or the slices do not fit together.
            ModelError: onnxruntime cannot load a slice.
        """
        manifest = load_manifest(slices_folder(folder))
        return cls(Steps.open(folder, options), Signature.of(manifest))

    @classmethod
    def of_model(cls, model: str | Path, options: SessionOptions | None = None) -> LocalDecoder:
        """A whole model, its states recognised by their names.

        Raises:
            ModelError: The file is no model, or onnxruntime cannot load it.
        """
        graph = load_graph(model)
        if options is not None and options.provider == TIER:  # it is on no tier
            options = replace(options, provider="cpu")
        session = open_session(graph.file.path, options)
        values = {value.name: value for value in (*graph.proto.graph.input, *graph.proto.graph.output)}
        ports = {name: port(value) for name, value in values.items()}
        inputs, outputs = [ports[name] for name in graph.inputs], list(dict.fromkeys(graph.outputs))
        records = state_records(graph, {})
        if _have_open_widths([ports[record.input] for record in records], records):
            records = state_records(graph, find_sizes(graph, {}).sizes)
        fresh = tuple(ports[name] for name in graph.fresh_inputs)
        kept = tuple(ports[state.input] for state in graph.states)
        signature = Signature(fresh, tuple(ports[name] for name in graph.results), kept, records)
        return cls(Steps(Chain([("whole", session)], inputs, outputs), records), signature)

    @property
    def signature(self) -> Signature:
        """What it reads and makes."""
        return self._signature

    def talk(self, positions: int | None = None) -> LocalTalk:
        """Begins a text; see `Decoder.talk`.

        Raises:
            RequestError: Its caches are more than there is memory.
        """
        if positions is not None:
            check_memory(self._signature, positions)
        return LocalTalk(self._steps.fork())

    def replayed(self, tokens: int) -> None:
        """Nothing is lost in this process."""

    def close(self) -> None:
        """The sessions go with the last who holds them."""


def _have_open_widths(ports: Sequence[Port], records: Sequence[StateRecord]) -> bool:
    """Whether a state has a named dimension that no step changes, such as the width of a head."""
    pairs = zip(ports, records, strict=True)
    return any(
        isinstance(dim, str)
        for port, record in pairs
        for axis, dim in enumerate(port.shape or ())
        if axis and axis != record.grows and record.grows is not None
    )


class LocalTalk:
    """A text in this process; see `Talk`."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def step(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Goes on by some tokens."""
        return self._steps(inputs)

    def drop(self, count: int) -> None:
        """Forgets the last positions."""
        self._steps.drop(count)

    def close(self) -> None:
        """Gives the states up."""
        self._steps.forget()
