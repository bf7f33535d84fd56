"""onnxruntime sessions, opened the same way everywhere and failing in one clear line."""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Timer
from types import ModuleType
from typing import Any

import numpy as np
import onnx

from dnnsplit_onnx.errors import InputError, ModelError
from dnnsplit_onnx.graph.modelfile import data_range, is_external, open_model, tensors
from dnnsplit_onnx.runtime.cudagraph import DEVICE, Replay, why_not
from dnnsplit_onnx.runtime.custom_ops import register_all
from dnnsplit_onnx.runtime.messages import clear_line
from dnnsplit_onnx.runtime.options import TIER, SessionOptions
from dnnsplit_onnx.runtime.placement import Crossings, Placement, end_record, placement_of
from dnnsplit_onnx.runtime.provider import (
    DEVICES,
    check_provider,
    fallback_nodes,
    is_on_host,
    provider_list,
    runtime,
)
from dnnsplit_onnx.runtime.values import Value, present

__all__ = ["TIER", "Session", "SessionOptions", "open_session"]

#: Where onnxruntime finds the files of weights of a model that it gets as bytes.
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_NO_MEMORY = re.compile("allocate memory|smaller than requested bytes|out of memory", re.IGNORECASE)
_MORE_MEMORY = (
    "the device's memory, or the tier's `memory_gb`, is too small for it: give more, or cut elsewhere"
)
_FATAL = 4  # its errors come as exceptions; the log would say them twice


class Session:
    """A model that is ready to run.

    Attributes:
        label: What errors call it, such as "slice `edge`".
        provider: Where it runs, which is what was asked for.
        inputs: Names of the values it reads.
        outputs: Names of the values it makes.
        output_types: Their types as onnxruntime spells them, such as `tensor(float)`.
        cpu_nodes: Nodes that run on the CPU although another provider was asked for; None
            if this onnxruntime cannot tell.
        crossings: What the last run moved between host and device.
        captured: Whether its runs are a CUDA graph.
    """

    def __init__(
        self,
        session: Any,
        label: str,
        provider: str,
        *,
        replay: Replay | None = None,
        records: Path | None = None,
    ) -> None:
        self._session = session
        self._replay = replay
        self._records = None
        if records is not None:
            self._records = weakref.finalize(self, shutil.rmtree, records, ignore_errors=True)
        self.label = label
        self.provider = provider
        self.inputs = tuple(value.name for value in session.get_inputs())
        self.output_types = {value.name: str(value.type) for value in session.get_outputs()}
        self.outputs = tuple(self.output_types)
        self.cpu_nodes = fallback_nodes(session, provider)
        self.crossings = Crossings()
        self.captured = replay is not None

    def placement(self) -> Placement | None:
        """Ends the record of its runs, and says where its nodes ran; None if there is none."""
        if self._records is None:
            return None
        found = placement_of(end_record(self._session), self.provider)
        self._records()
        self._records = None
        return found

    def run(
        self,
        values: Mapping[str, Value],
        *,
        on_device: Collection[str] = (),
        longest_s: float | None = None,
    ) -> dict[str, Value]:
        """Runs the model on the values it reads; others in `values` are left alone.

        Args:
            values: Its inputs by name; None is an absent optional.
            on_device: Outputs to leave in the provider's memory.
            longest_s: Seconds after which a run on the CPU is broken off.

        Raises:
            ModelError: onnxruntime refuses the inputs, fails, or takes too long.
        """
        feeds = {name: values[name] for name in self.inputs if values.get(name) is not None}
        try:
            if is_on_host(self.provider):
                with _ending(longest_s) as limit:
                    made: Sequence[Value] = self._session.run_with_ort_values(self.outputs, feeds, limit)
            else:
                made = self._run_bound(feeds, on_device)
        except Exception as error:
            # onnxruntime raises types of its own, ValueError and RuntimeError alike.
            hint = _MORE_MEMORY if not is_on_host(self.provider) and _NO_MEMORY.search(str(error)) else None
            raise ModelError(f"{self.label} fails to run: {clear_line(error)}", hint=hint) from error
        return {name: present(value) for name, value in zip(self.outputs, made, strict=True)}

    def run_arrays(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the model on numpy arrays, which is 40 microseconds shorter than `run`.

        For sessions on the CPU whose inputs and outputs are all tensors of types that numpy
        has; the arrays are read in place.

        Args:
            feeds: Its inputs by name, all of them and no others.

        Raises:
            ModelError: onnxruntime refuses the inputs or fails.
        """
        try:
            made: Sequence[np.ndarray] = self._session.run(self.outputs, feeds)
        except Exception as error:  # of onnxruntime's own types, as above
            raise ModelError(f"{self.label} fails to run: {clear_line(error)}") from error
        return dict(zip(self.outputs, made, strict=True))

    def _run_bound(self, feeds: Mapping[str, Value], on_device: Collection[str]) -> Sequence[Value]:
        """Runs with bound inputs and outputs: each is copied at most once, to where it is used."""
        device = DEVICES[self.provider]
        self.crossings = Crossings(
            sum(value.is_tensor() and value.device_name() != device for value in feeds.values()),
            sum(name not in on_device for name in self.outputs),
        )
        if self._replay is not None:
            return self._replay.run(feeds, on_device)
        binding = self._session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        for name in self.outputs:
            binding.bind_output(name, device if name in on_device else "cpu", 0)
        self._session.run_with_iobinding(binding)
        # What comes out keeps the binding alive, and so each run has one of its own. The
        # binding shall not keep what went in, nor copies of it on the device.
        outputs: Sequence[Value] = binding.get_outputs()
        binding.clear_binding_inputs()
        return outputs


def open_session(
    path: Path,
    options: SessionOptions | None = None,
    *,
    label: str | None = None,
    expose: Sequence[str] = (),
    rewrite: Callable[[onnx.ModelProto], None] | None = None,
    private: bool = False,
) -> Session:
    """Opens a model file.

    Args:
        path: The ONNX file.
        options: How to run it.
        label: What errors call it; the file's name by default.
        expose: Inner values to make outputs too, besides the model's own.
        rewrite: Changes the model, its large weights left in their files, before it is opened.
        private: Whether its weights are copied. Otherwise those in files of their own stay
            mapped files, and whoever writes to one changes what the session computes.

    Raises:
        InputError: It cannot run as a CUDA graph, and is asked to.
        ModelError: onnxruntime cannot load it.
        MissingExtraError: There is no onnxruntime, or not one with this provider.
    """
    options = options or SessionOptions()
    label = label or f"model `{path.name}`"
    if options.cuda_graph and options.provider != "cuda":
        where = "the CPU" if options.provider == "cpu" else f"`{options.provider}`"
        raise InputError(
            f"{label} runs on {where}, where there are no CUDA graphs", hint="leave out --cuda-graph"
        )
    settings = session_settings(runtime(), options)
    source: str | bytes = str(path)
    if expose or rewrite:
        source = _rewritten(path, expose, rewrite)
        settings.add_session_config_entry(WEIGHTS_FOLDER, str(path.parent.resolve()))
    mapped = _give_weights(settings, path) if private else []
    records = None
    if options.record and options.provider != "cpu" and not options.cuda_graph:
        records = Path(tempfile.mkdtemp(prefix="dnnsplit-record-"))
        settings.enable_profiling = True
        settings.profile_file_prefix = str(records / "run")
    try:
        session = create_session(source, settings, options, label, context=f"in {path}")
        replay = _replay(session, options, label) if options.cuda_graph else None
    except BaseException:
        if records is not None:
            shutil.rmtree(records, ignore_errors=True)
        raise
    finally:
        mapped.clear()
    return Session(session, label, options.provider, replay=replay, records=records)


def _give_weights(settings: Any, path: Path) -> list[np.ndarray]:
    """Gives onnxruntime the files of weights of a model as memory, of which it copies what the model has.

    Returns:
        That memory, which is needed until the session is there.

    Raises:
        ModelError: A file of weights cannot be read.
    """
    model = open_model(path)
    places = (data_range(tensor) for tensor in tensors(model.proto) if is_external(tensor))
    locations = sorted({where.location for where in places if not model.is_inline(where)})
    try:
        mapped: list[np.ndarray] = [np.memmap(path.parent / name, np.uint8, mode="r") for name in locations]
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the weights of `{path}`: {error}") from None
    if mapped:
        sizes = [view.nbytes for view in mapped]
        settings.add_external_initializers_from_files_in_memory(locations, mapped, sizes)
    return mapped


def create_session(
    source: str | bytes, settings: Any, options: SessionOptions, label: str, *, context: str | None = None
) -> Any:
    """An onnxruntime session that really has the provider asked for.

    Raises:
        ModelError: onnxruntime cannot load the model.
        MissingExtraError: It has no such provider, or fell back to another.
    """
    ort = runtime()
    providers = provider_list(
        ort,
        options.provider,
        memory_nbytes=options.memory_nbytes,
        cuda_graph=options.cuda_graph,
        options=options.provider_options,
    )
    try:
        # A failing provider is an error, not a reason to print lines and try another.
        with DEVICE if options.cuda_graph else nullcontext():
            session = ort.InferenceSession(source, settings, providers=providers, enable_fallback=0)
    except Exception as error:
        hint = "if it is for the CUDA graph: leave out --cuda-graph" if options.cuda_graph else None
        raise ModelError(
            f"{label} cannot be loaded: {clear_line(error)}", context=context, hint=hint
        ) from error
    check_provider(session, options.provider)
    return session


def _replay(session: Any, options: SessionOptions, label: str) -> Replay:
    why = why_not(session)
    if why is not None:
        raise InputError(
            f"{label} cannot run as a CUDA graph: {why}",
            hint="leave out --cuda-graph, or fix the model's dimensions before `split`",
        )
    return Replay(runtime(), session, DEVICES[options.provider])


def session_settings(ort: ModuleType, options: SessionOptions) -> Any:
    """The options as onnxruntime takes them, the provider apart."""
    settings = ort.SessionOptions()
    levels = ort.GraphOptimizationLevel
    settings.graph_optimization_level = levels.ORT_ENABLE_ALL if options.optimize else levels.ORT_DISABLE_ALL
    settings.log_severity_level = _FATAL
    register_all(settings, options.custom_ops)
    if options.by_priority:
        settings.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    if options.threads is not None:
        settings.intra_op_num_threads = options.threads
    if not options.spin:
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    if options.provider != "cpu":
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return settings


@contextmanager
def _ending(longest_s: float | None) -> Iterator[Any]:
    """Options of a run that is broken off after some seconds; None for one that is not."""
    if longest_s is None:
        yield None
        return
    limit = runtime().RunOptions()
    timer = Timer(longest_s, setattr, (limit, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield limit
    finally:
        timer.cancel()


def _rewritten(path: Path, expose: Sequence[str], rewrite: Callable[[onnx.ModelProto], None] | None) -> bytes:
    """The model with changes and further outputs; its large weights stay where they are.

    The outputs carry no types: onnxruntime infers them, and a wrong one would be refused.
    """
    proto = open_model(path).proto
    if rewrite is not None:
        rewrite(proto)
    known = {value.name for value in proto.graph.output}
    for name in expose:
        if name not in known:
            proto.graph.output.add(name=name)
    data: bytes = proto.SerializeToString()
    return data
