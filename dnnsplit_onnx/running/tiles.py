"""A stage in tiles: rows are cut out and handed over, and results put side by side.

Who computes a tile is for the caller to say: this process (`run_here`), or the machines of the
tier (`serving.tier.tiles`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dnnsplit_onnx.slicing.manifest import SliceRecord, TilePort, TileRecord

#: Values by name; None is an optional that is absent.
Arrays = dict[str, "np.ndarray | None"]
#: Computes the tiles of one region, each of its own inputs.
Compute = Callable[[Sequence[TileRecord], Sequence[Arrays]], Sequence[Arrays]]


def run_tiles(record: SliceRecord, values: Mapping[str, np.ndarray | None], compute: Compute) -> Arrays:
    """Runs a slice that is laid down in tiles.

    Args:
        record: The slice.
        values: What it reads, each value whole.
        compute: Computes the tiles of a region.

    Returns:
        What the slice makes for others, each value whole.
    """
    live: Arrays = {port.name: values.get(port.name) for port in record.inputs}
    for region in record.regions:
        made = compute(region, [cut_out(tile, live) for tile in region])
        live.update(assembled(region, made))
    return {port.name: live[port.name] for port in record.outputs}


def cut_out(tile: TileRecord, values: Mapping[str, np.ndarray | None]) -> Arrays:
    """The rows that a tile reads."""
    return {port.name: rows_of(values.get(port.name), port) for port in tile.inputs}


def rows_of(value: np.ndarray | None, port: TilePort) -> np.ndarray | None:
    """Rows of a whole value, in one piece of memory."""
    if value is None or port.axis is None or port.rows is None:
        return value
    where = (slice(None),) * port.axis + (slice(*port.rows),)
    return np.ascontiguousarray(value[where])


def assembled(tiles: Sequence[TileRecord], made: Sequence[Mapping[str, np.ndarray | None]]) -> Arrays:
    """The values that tiles of one region make together.

    Args:
        tiles: The tiles, in the order of their rows.
        made: What each of them made.
    """
    pieces: dict[str, list[np.ndarray | None]] = {}
    axes: dict[str, int | None] = {}
    for tile, results in zip(tiles, made, strict=True):
        for port in tile.assemble:
            axes[port.name] = port.axis
            pieces.setdefault(port.name, []).append(results[port.name])
    return {name: _joined(parts, axes[name]) for name, parts in pieces.items()}


def _joined(parts: Sequence[np.ndarray | None], axis: int | None) -> np.ndarray | None:
    present = [part for part in parts if part is not None]
    if axis is None or len(present) < 2:
        return parts[0]
    return np.concatenate(present, axis)
