"""Runs that are captured once as a CUDA graph, and replayed.

A CUDA graph launches all kernels of a run at once, which pays where a model has many small
ones. A replay reads and writes the very memory of the run that was captured, so

1. inputs are copied into buffers on the device that stay, and outputs lie in such buffers;
2. shapes cannot change;
3. runs of one session follow one another;
4. nothing else of this process may allocate on the device while a run is captured: CUDA gives
   up the capture. onnxruntime captures again in each thread that runs a session.

An output that stays on the device is the buffer itself: it is good until the session's next
run. Slices of a chain run in turn, and the next slice binds that buffer as its input, so
that nothing is copied between them.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from types import ModuleType
from typing import Any

from dnnsplit_onnx.runtime.values import Value, is_plain_type

#: Held while sessions with CUDA graphs are made or run.
DEVICE = threading.RLock()

_GRAPH = "gpu_graph_id"
_NOT_CAPTURED, _CAPTURED = "-1", "1"


def why_not(session: Any) -> str | None:
    """Why a session's runs cannot be captured, or None if they can.

    onnxruntime refuses by itself, when the session is made, models with control flow and
    those whose nodes need copies to the CPU.
    """
    for kind, values in (("input", session.get_inputs()), ("output", session.get_outputs())):
        for value in values:
            if not is_plain_type(value.type):
                return f"{kind} `{value.name}` is of type {value.type}"
            free = [dim for dim in value.shape if not isinstance(dim, int)]
            # The shapes of outputs follow from those of the inputs, or from data, which no
            # operator that can be captured does.
            if free and kind == "input":
                return f"dimension `{free[0]}` of input `{value.name}` is not fixed"
    return None


class Replay:
    """The runs of one session on buffers that stay.

    Args:
        ort: The module `onnxruntime`.
        session: An onnxruntime session, made with `enable_cuda_graph`.
        device: The memory it works in, as onnxruntime calls it.
    """

    def __init__(self, ort: ModuleType, session: Any, device: str) -> None:
        self._ort = ort
        self._session = session
        self._device = device
        self._names = [value.name for value in session.get_outputs()]
        self._binding: Any = None
        self._inputs: dict[str, Value] = {}
        self._outputs: list[Value] = []

    def run(self, feeds: Mapping[str, Value], on_device: Collection[str]) -> Sequence[Value]:
        """Runs on the values it reads, and returns what it makes, in the session's order.

        The first run allocates, the second is captured, those after it are replayed.

        Raises:
            ValueError: A value has another shape or type than in the first run.
        """
        with DEVICE:
            if self._binding is None:
                self._run_first(feeds)
            else:
                for name, value in feeds.items():
                    self._fill(name, value)
                self._session.run_with_iobinding(self._binding, self._options(_CAPTURED))
            return [
                buffer if name in on_device else self._on_host(buffer)
                for name, buffer in zip(self._names, self._outputs, strict=True)
            ]

    def _run_first(self, feeds: Mapping[str, Value]) -> None:
        binding = self._session.io_binding()
        inputs = {name: self._buffer(value) for name, value in feeds.items()}
        for name, buffer in inputs.items():
            binding.bind_ortvalue_input(name, buffer)
        for name in self._names:
            binding.bind_output(name, self._device, 0)
        self._session.run_with_iobinding(binding, self._options(_NOT_CAPTURED))
        outputs = list(binding.get_outputs())
        for name, buffer in zip(self._names, outputs, strict=True):
            binding.bind_ortvalue_output(name, buffer)
        self._binding, self._inputs, self._outputs = binding, inputs, outputs

    def _buffer(self, value: Value) -> Value:
        """What an input is read from: the value itself where it is on the device."""
        if value.device_name() == self._device and self._device != "cpu":
            return value
        make = self._ort.OrtValue.ortvalue_from_shape_and_type
        buffer = make(value.shape(), value.element_type(), self._device, 0)
        buffer.update_inplace(value.numpy())
        return buffer

    def _fill(self, name: str, value: Value) -> None:
        buffer = self._inputs[name]
        if value.data_ptr() == buffer.data_ptr():
            return
        if list(value.shape()) != list(buffer.shape()):
            raise ValueError(
                f"input `{name}` has shape {list(value.shape())}, and its CUDA graph was made "
                f"for {list(buffer.shape())}"
            )
        if value.element_type() != buffer.element_type():
            raise ValueError(f"input `{name}` is {value.data_type()}, and has to be {buffer.data_type()}")
        buffer.update_inplace(value.numpy())

    def _on_host(self, buffer: Value) -> Value:
        """A copy in memory of its own: the buffer is written again by the next run."""
        make = self._ort.OrtValue.ortvalue_from_shape_and_type
        copy = make(buffer.shape(), buffer.element_type(), "cpu", 0)
        copy.update_inplace(buffer.numpy())
        return copy

    def _options(self, graph: str) -> Any:
        options = self._ort.RunOptions()
        options.add_run_config_entry(_GRAPH, graph)
        return options
