"""A folder of slices as if it had no codes: the same files, opened with their codes taken out."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import onnx

from dnnsplit_onnx.graph.modelfile import open_model
from dnnsplit_onnx.running.chain import Chain
from dnnsplit_onnx.running.slices import options_on
from dnnsplit_onnx.runtime.sessions import SessionOptions, open_session
from dnnsplit_onnx.slicing.manifest import Manifest, SliceRecord
from dnnsplit_onnx.slicing.uncoding import uncode, uncoded


def uncoded_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """The manifest without codes; itself if it has none.

    Raises:
        ModelError: A slice's file cannot be read.
    """
    if not any(port.stands_for for record in manifest.slices for port in (*record.inputs, *record.outputs)):
        return manifest
    return manifest.model_copy(
        update={"slices": tuple(_uncoded(folder, record) for record in manifest.slices)}
    )


def uncoded_chain(folder: Path, coded: Manifest, raw: Manifest, options: SessionOptions) -> Chain:
    """The slices of a folder as a chain, their codes taken out.

    Args:
        folder: The folder of the manifest.
        coded: What it holds.
        raw: The same without codes, as `uncoded_manifest` makes it.
        options: How to run each.

    Raises:
        ModelError: onnxruntime cannot load a slice.
    """
    stages = [
        (
            record.tier,
            open_session(
                folder / record.file,
                options_on(options, record),
                label=f"slice `{record.tier}`",
                rewrite=partial(uncode, record=record),
            ),
        )
        for record, plain in zip(coded.slices, raw.slices, strict=True)
        if record.file is not None and plain.file is not None
    ]
    return Chain(stages, coded.model.inputs, [port.name for port in coded.model.outputs])


def _uncoded(folder: Path, record: SliceRecord) -> SliceRecord:
    if record.file is None:
        return record
    model = onnx.ModelProto()
    model.CopyFrom(open_model(folder / record.file).proto)
    uncode(model, record)
    return uncoded(model, record)
