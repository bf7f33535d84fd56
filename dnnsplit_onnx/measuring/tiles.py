"""The proof of tiles: each against the same rows inside the whole model.

A tile runs the operators of the whole on fewer rows. Whether it sums in the same order is up to
the runtime: kernels may depend on the number of rows, with optimisations off and on alike. So
both levels are run, and which of them agreed bit for bit is told; a tile passes that is within a
few units of the last place of the largest element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ml_dtypes import bfloat16, finfo

from dnnsplit_onnx.measuring.compare import Difference, combine, compare
from dnnsplit_onnx.measuring.evidence import TileCheck
from dnnsplit_onnx.running.slices import open_slice
from dnnsplit_onnx.running.tiles import cut_out, rows_of
from dnnsplit_onnx.runtime.provider import runtime
from dnnsplit_onnx.runtime.sessions import SessionOptions
from dnnsplit_onnx.runtime.values import to_python, to_value
from dnnsplit_onnx.slicing.manifest import SliceRecord, TileRecord

#: Types whose sums round.
BY_NAME = {"float": np.float32, "double": np.float64, "float16": np.float16, "bfloat16": bfloat16}
# Units of the last place of the largest element that a tile may be away.
LAST_PLACES = 64


class Whole(Protocol):
    """Runs the whole model; its values by name, for each set of inputs."""

    def __call__(self, *, optimize: bool, expose: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        """The model's outputs, and inner values.

        Args:
            optimize: Whether graph optimisations are on.
            expose: The inner values.
        """


def check_tiles(
    folder: Path,
    record: SliceRecord,
    inputs: Sequence[Mapping[str, Any]],
    whole: Whole,
    threads: int | None,
) -> list[TileCheck]:
    """Holds each tile of a slice against the whole.

    Args:
        folder: The folder of slices.
        record: The slice.
        inputs: Sets of the model's inputs.
        whole: Runs the whole model on them.
        threads: Threads within an operator.

    Raises:
        ModelError: A tile cannot be loaded, or fails.
    """
    ports = [port for tile in record.tiles for port in (*tile.inputs, *tile.assemble)]
    inner = tuple(dict.fromkeys(port.name for port in ports if port.name not in inputs[0]))
    found: list[list[Difference]] = []
    for optimize in (False, True):
        made = [
            {**given, **values}
            for given, values in zip(inputs, whole(optimize=optimize, expose=inner), strict=True)
        ]
        options = SessionOptions(optimize=optimize, threads=threads)
        found.append([_difference(folder, record, tile, made, options) for tile in record.tiles])
    plain, optimized = found
    return [
        TileCheck(
            tier=record.tier,
            machine=tile.machine,
            start=tile.start,
            stop=tile.stop,
            rows=tile.rows,
            bitwise=off.bitwise,
            max_abs_diff=off.max_abs,
            optimized_bitwise=on.bitwise,
            optimized_max_abs_diff=on.max_abs,
            within_tolerance=_is_near(off, tile) and _is_near(on, tile),
        )
        for tile, off, on in zip(record.tiles, plain, optimized, strict=True)
    ]


def _difference(
    folder: Path,
    record: SliceRecord,
    tile: TileRecord,
    values: Sequence[Mapping[str, Any]],
    options: SessionOptions,
) -> Difference:
    ort = runtime()
    session = open_slice(folder, record.of_tile(tile), options, check=False)
    dtypes = {port.name: port.dtype for port in tile.inputs}
    differences = []
    for whole in values:
        feeds = {name: to_value(ort, array, dtypes[name]) for name, array in cut_out(tile, whole).items()}
        made = session.run(feeds)
        differences += [
            compare(to_python(ort, made[port.name]), rows_of(whole[port.name], port))
            for port in tile.assemble
        ]
    return combine(differences)


def _is_near(difference: Difference, tile: TileRecord) -> bool:
    """Whether rounding explains the distance."""
    if difference.bitwise:
        return True
    kinds = {port.dtype for port in tile.assemble}
    if not kinds <= BY_NAME.keys():
        return False
    place = max(float(finfo(BY_NAME[kind or ""]).eps) for kind in kinds)  # type: ignore[no-untyped-call]
    return difference.max_abs <= LAST_PLACES * place * difference.scale
