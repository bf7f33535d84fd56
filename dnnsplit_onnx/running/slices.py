"""Slices of a manifest opened in onnxruntime, each held against what the manifest says of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from dnnsplit_onnx.errors import ManifestError, MissingExtraError
from dnnsplit_onnx.graph.modelfile import open_model
from dnnsplit_onnx.runtime.custom_ops import needed
from dnnsplit_onnx.runtime.options import TIER, SessionOptions
from dnnsplit_onnx.runtime.sessions import Session, open_session
from dnnsplit_onnx.slicing.checking import check_files
from dnnsplit_onnx.slicing.manifest import SliceRecord


def open_slice(
    folder: Path,
    record: SliceRecord,
    options: SessionOptions | None = None,
    *,
    check: bool = True,
    private: bool = False,
) -> Session:
    """Opens a tier's slice.

    Args:
        folder: The folder of the manifest.
        record: The slice; it must have a file.
        options: How to run it.
        check: Whether to hold its files against the manifest's hashes first.
        private: Whether the session has its weights to itself. Otherwise they stay mapped
            files, and whoever writes to one changes what the session computes.

    Raises:
        ManifestError: A file is missing, is not the one that was written, or the slice
            reads or makes other values than the manifest says.
        InputError: It cannot run as a CUDA graph, and is asked to.
        ModelError: onnxruntime cannot load it.
        MissingExtraError: There is no onnxruntime, or not one with this provider.
    """
    if record.file is None:
        raise ManifestError(f"tier `{record.tier}` has no work, and so no slice to run")
    if check:
        check_files(folder, record)
    # Refuses weights outside the slice's folder, as onnxruntime does only of late.
    open_model(folder / record.file)
    options = options or SessionOptions()
    try:
        session = open_session(
            folder / record.file,
            options_on(options, record),
            label=f"slice `{record.tier}`",
            private=private,
        )
    except MissingExtraError as error:
        if options.provider == TIER and record.provider not in (None, "cpu", "web"):
            error.context = f"tier `{record.tier}` was planned for it"
            error.hint = f"{error.hint}; to run it on the CPU all the same: --provider cpu"
        raise
    for said, found in ((record.inputs, session.inputs), (record.outputs, session.outputs)):
        if {port.name for port in said} != set(found):
            raise ManifestError(
                f"{session.label} does not read and make the values that the manifest lists",
                context=f"manifest: {[port.name for port in said]}, slice: {list(found)}",
                hint="run `split` again",
            )
    return session


def options_on(options: SessionOptions, record: SliceRecord) -> SessionOptions:
    """The options for a slice, `tier` made the provider of its own tier, its libraries among them.

    No process of ours is a browser: the CPU stands for it, which reads the same files.

    The limit on a CUDA tier's memory becomes that of the device memory.

    Raises:
        InputError: The tier names a library of operators that is not here, or that nobody allowed.
        MissingExtraError: It names onnxruntime-extensions, which are not installed.
    """
    own = "cpu" if record.provider in (None, "web") else record.provider
    provider = own if options.provider == TIER else options.provider
    memory = options.memory_nbytes
    if memory is None and provider == own == "cuda":
        memory = record.memory_nbytes
    graph = options.cuda_graph and (provider == "cuda" or options.provider != TIER)
    own_options = record.provider_options if provider == own else {}
    return replace(
        options,
        provider=provider,
        memory_nbytes=memory,
        cuda_graph=graph,
        provider_options={**own_options, **options.provider_options},
        custom_ops=with_libraries(options, [record]),
    )


def with_libraries(options: SessionOptions, records: Iterable[SliceRecord]) -> tuple[str, ...]:
    """The libraries of some options, and those that the tiers of slices name.

    Raises:
        InputError: As for `options_on`.
        MissingExtraError: As for `options_on`.
    """
    own = [file for r in records for file in needed(r.custom_ops, r.tier, options.custom_ops)]
    return tuple(dict.fromkeys([*options.custom_ops, *own]))
