"""onnxruntime sessions, opened the same way everywhere and failing in one clear line."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx

from dnnsplit_onnx.errors import ManifestError, ModelError
from dnnsplit_onnx.manifest import SliceRecord, check_files
from dnnsplit_onnx.modelfile import open_model
from dnnsplit_onnx.runtime.messages import clear_line
from dnnsplit_onnx.runtime.provider import check_provider, fallback_nodes, provider_list, runtime
from dnnsplit_onnx.runtime.values import Value, present

_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_FATAL = 4  # its errors come as exceptions; the log would say them twice


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How to open a session.

    Attributes:
        provider: `cpu` or `cuda`.
        optimize: All graph optimisations, or none.
        threads: Threads within an operator; None leaves it to onnxruntime.
        spin: Whether idle threads spin while a run is under way. On a single core that
            doubles the time. Between runs they never do: the threads of one slice would
            take the processor from the next.
        memory_nbytes: Most device memory the session's arena may take.
    """

    provider: str = "cpu"
    optimize: bool = True
    threads: int | None = None
    spin: bool = True
    memory_nbytes: int | None = None


class Session:
    """A model that is ready to run.

    Attributes:
        label: What errors call it, such as "slice `edge`".
        provider: `cpu` or `cuda`: where it runs, which is what was asked for.
        inputs: Names of the values it reads.
        outputs: Names of the values it makes.
        cpu_nodes: Nodes that run on the CPU although another provider was asked for; None
            if this onnxruntime cannot tell.
    """

    def __init__(self, session: Any, label: str, provider: str) -> None:
        self._session = session
        self.label = label
        self.provider = provider
        self.inputs = tuple(value.name for value in session.get_inputs())
        self.outputs = tuple(value.name for value in session.get_outputs())
        self.cpu_nodes = fallback_nodes(session, provider)

    def run(self, values: Mapping[str, Value], *, on_device: Collection[str] = ()) -> dict[str, Value]:
        """Runs the model on the values it reads; others in `values` are left alone.

        Args:
            values: Its inputs by name; None is an absent optional.
            on_device: Outputs to leave in the provider's memory.

        Raises:
            ModelError: onnxruntime refuses the inputs or fails.
        """
        feeds = {name: values[name] for name in self.inputs if values.get(name) is not None}
        try:
            if self.provider == "cpu":
                made: Sequence[Value] = self._session.run_with_ort_values(self.outputs, feeds)
            else:
                made = self._run_bound(feeds, on_device)
        except Exception as error:
            # onnxruntime raises types of its own, ValueError and RuntimeError alike.
            raise ModelError(f"{self.label} fails to run: {clear_line(error)}") from error
        return {name: present(value) for name, value in zip(self.outputs, made, strict=True)}

    def _run_bound(self, feeds: Mapping[str, Value], on_device: Collection[str]) -> Sequence[Value]:
        """Runs with bound inputs and outputs: each is copied at most once, to where it is used."""
        binding = self._session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        for name in self.outputs:
            binding.bind_output(name, self.provider if name in on_device else "cpu", 0)
        self._session.run_with_iobinding(binding)
        outputs: Sequence[Value] = binding.get_outputs()
        return outputs


def open_session(
    path: Path, options: SessionOptions | None = None, *, label: str | None = None, expose: Sequence[str] = ()
) -> Session:
    """Opens a model file.

    Args:
        path: The ONNX file.
        options: How to run it.
        label: What errors call it; the file's name by default.
        expose: Inner values to make outputs too, besides the model's own.

    Raises:
        ModelError: onnxruntime cannot load it.
        MissingExtraError: There is no onnxruntime, or not one with this provider.
    """
    ort = runtime()
    options = options or SessionOptions()
    label = label or f"model `{path.name}`"
    providers = provider_list(ort, options.provider, memory_nbytes=options.memory_nbytes)
    settings = _settings(ort, options)
    source: str | bytes = str(path)
    if expose:
        source = _exposed(path, expose)
        settings.add_session_config_entry(_WEIGHTS_FOLDER, str(path.parent.resolve()))
    try:
        session = ort.InferenceSession(source, settings, providers=providers)
    except Exception as error:
        raise ModelError(f"{label} cannot be loaded: {clear_line(error)}", context=f"in {path}") from error
    session.disable_fallback()  # a failing provider is an error, not a reason to use another
    check_provider(session, options.provider)
    return Session(session, label, options.provider)


class TracedSession(Session):
    """A session that records what each node takes.

    Attributes:
        optimized: The graph that really runs, its weights left out of sight: nodes, and the
            values between them.
    """

    def __init__(self, session: Any, label: str, provider: str, optimized: onnx.GraphProto) -> None:
        super().__init__(session, label, provider)
        self.optimized = optimized

    def finish(self) -> list[dict[str, Any]]:
        """Ends the record and returns its events, in onnxruntime's trace format."""
        path = Path(self._session.end_profiling())
        events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        return events


def open_traced(
    proto: onnx.ModelProto, folder: Path, options: SessionOptions, scratch: Path, *, label: str
) -> TracedSession:
    """Opens a model so that every run records what each node takes.

    Args:
        proto: The model, its large weights in files of `folder`.
        folder: Where these files are.
        options: How to run it.
        scratch: A folder for onnxruntime's records.
        label: What errors call it.

    Raises:
        ModelError: onnxruntime cannot load it.
        MissingExtraError: There is no onnxruntime, or not one with this provider.
    """
    ort = runtime()
    settings = _settings(ort, options)
    settings.enable_profiling = True
    settings.profile_file_prefix = str(scratch / "trace")
    optimized = scratch / "optimized.onnx"
    settings.optimized_model_filepath = str(optimized)
    settings.add_session_config_entry(
        "session.optimized_model_external_initializers_file_name", "optimized.data"
    )
    settings.add_session_config_entry(_WEIGHTS_FOLDER, str(folder.resolve()))
    providers = provider_list(ort, options.provider, memory_nbytes=options.memory_nbytes)
    try:
        session = ort.InferenceSession(proto.SerializeToString(), settings, providers=providers)
    except Exception as error:
        raise ModelError(f"{label} cannot be loaded: {clear_line(error)}") from error
    session.disable_fallback()
    check_provider(session, options.provider)
    return TracedSession(session, label, options.provider, open_model(optimized).proto.graph)


def open_slice(
    folder: Path, record: SliceRecord, options: SessionOptions | None = None, *, check: bool = True
) -> Session:
    """Opens a tier's slice.

    Args:
        folder: The folder of the manifest.
        record: The slice; it must have a file.
        options: How to run it.
        check: Whether to hold its files against the manifest's hashes first.

    Raises:
        ManifestError: A file is missing, is not the one that was written, or the slice
            reads or makes other values than the manifest says.
        ModelError: onnxruntime cannot load it.
    """
    if record.file is None:
        raise ManifestError(f"tier `{record.tier}` has no work, and so no slice to run")
    if check:
        check_files(folder, record)
    session = open_session(folder / record.file, options, label=f"slice `{record.tier}`")
    for said, found in ((record.inputs, session.inputs), (record.outputs, session.outputs)):
        if {port.name for port in said} != set(found):
            raise ManifestError(
                f"{session.label} does not read and make the values that the manifest lists",
                context=f"manifest: {[port.name for port in said]}, slice: {list(found)}",
                hint="run `split` again",
            )
    return session


def _settings(ort: ModuleType, options: SessionOptions) -> Any:
    settings = ort.SessionOptions()
    levels = ort.GraphOptimizationLevel
    settings.graph_optimization_level = levels.ORT_ENABLE_ALL if options.optimize else levels.ORT_DISABLE_ALL
    settings.log_severity_level = _FATAL
    if options.threads is not None:
        settings.intra_op_num_threads = options.threads
    if not options.spin:
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    if options.provider != "cpu":
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return settings


def _exposed(path: Path, names: Sequence[str]) -> bytes:
    """The model with further outputs; its large weights stay where they are.

    The outputs carry no types: onnxruntime infers them, and a wrong one would be refused.
    """
    proto = open_model(path).proto
    known = {value.name for value in proto.graph.output}
    for name in names:
        if name not in known:
            proto.graph.output.add(name=name)
    data: bytes = proto.SerializeToString()
    return data
