"""The tiles of a stage as files: `DIR/TIER/START-STOP.MACHINE.onnx`, on the stage's own weights.

Every machine of a tier is given the tier's whole folder, so any of them can compute the rows
of any other, and the first one all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import onnx

from dnnsplit_onnx.graph.digests import Digests
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.graph.shapes import Types
from dnnsplit_onnx.planning.figures import MachineShare
from dnnsplit_onnx.slicing.extract import extract
from dnnsplit_onnx.slicing.files import Content, DataLayout, as_it_is, refer_to, weight_ranges
from dnnsplit_onnx.slicing.index import SliceIndex
from dnnsplit_onnx.slicing.manifest import DataFile, TilePort, TileRecord
from dnnsplit_onnx.slicing.tiles import TilePart, tile_parts
from dnnsplit_onnx.work.tiling import Rows, region_of


@dataclass(frozen=True)
class TileDraft:
    """A tile that is ready to be written.

    Attributes:
        share: Which machine computes which rows of which nodes.
        content: The ONNX file.
        uses_weights: Whether it reads the stage's file of weights.
        inputs, outputs: What it reads and makes.
    """

    share: MachineShare
    content: Content
    uses_weights: bool
    inputs: tuple[TilePort, ...]
    outputs: tuple[TilePort, ...]

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.share.start}-{self.share.stop}.{self.share.machine}.onnx"

    def record(self, tier: str, digests: Digests, data: DataFile | None) -> TileRecord:
        """What the manifest says of it."""
        return TileRecord(
            machine=self.share.machine,
            file=f"{tier}/{self.name}",
            digests=digests,
            nbytes=self.content.nbytes,
            start=self.share.start,
            stop=self.share.stop,
            rows=self.share.rows,
            inputs=self.inputs,
            assemble=self.outputs,
            data=(data,) if data is not None and self.uses_weights else (),
        )


def draft_tiles(
    index: SliceIndex, shares: Sequence[MachineShare], weights: DataLayout, types: Types
) -> tuple[TileDraft, ...]:
    """The tiles of a stage.

    Args:
        index: The graph.
        shares: Who computes what, region after region.
        weights: The stage's file of weights.
        types: The graph's types.

    Raises:
        CutError: The shares are not all rows of a region once.
    """
    drafts: list[TileDraft] = []
    for (start, stop), group in groupby(shares, key=lambda share: (share.start, share.stop)):
        region = tuple(group)
        if region[0].rows is None:
            drafts.append(_alone(index, region[0], weights))
            continue
        counts = [share.rows[1] - share.rows[0] for share in region if share.rows is not None]
        parts = tile_parts(index, region_of(index.graph, types, start, stop), counts, types)
        drafts += [_shared(share, part, weights) for share, part in zip(region, parts, strict=True) if part]
    return tuple(drafts)


def _alone(index: SliceIndex, share: MachineShare, weights: DataLayout) -> TileDraft:
    part = extract(index, share.start, share.stop)
    inputs, outputs = (
        tuple(_port(port, None, None) for port in ports) for ports in (part.inputs, part.outputs)
    )
    return _draft(share, part.proto, weights, inputs, outputs)


def _shared(share: MachineShare, part: TilePart, weights: DataLayout) -> TileDraft:
    tile, axes = part.tile, part.region.axes

    def ports(side: Sequence[Port], rows_of: Mapping[str, Rows | None]) -> Iterator[TilePort]:
        for port in side:
            rows = rows_of[port.name]
            yield _port(port, None if rows is None else axes[port.name], rows)

    inputs = tuple(ports(part.inputs, tile.inputs))
    return _draft(share, part.proto, weights, inputs, tuple(ports(part.outputs, tile.outputs)))


def _draft(
    share: MachineShare,
    proto: onnx.ModelProto,
    weights: DataLayout,
    inputs: tuple[TilePort, ...],
    outputs: tuple[TilePort, ...],
) -> TileDraft:
    uses_weights = bool(weight_ranges(proto))
    refer_to(weights, proto)
    return TileDraft(share, as_it_is(proto), uses_weights, inputs, outputs)


def _port(port: Port, axis: int | None, rows: Rows | None) -> TilePort:
    bounds = None if rows is None else (rows.start, rows.stop)
    return TilePort(**port.model_dump(), axis=axis, rows=bounds)
