"""Which bytes of the source make up the files of a slice.

1. Weights that the source holds inline stay inline, as long as the slice stays below
   2 GiB, which is all that protobuf can read. If it would not, its initializers move to a
   data file, and if that is not enough, the tensors in attributes and subgraphs too.
2. Weights that the source holds in external files go to one data file beside the slice.
   Bytes that several weights share, in whole or in part, are written once.
3. In a data file, weights from 1 MiB start on multiples of 64 KiB, so that every system can
   map them (Windows maps in units of 64 KiB; onnxruntime and onnx_ir write the same), and
   smaller ones on multiples of 64 bytes, a cache line and the widest vector register.

Nothing is copied here: the answer is a list of byte strings and ranges of the source's
files.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

import onnx

from dnnsplit_onnx.graph.modelfile import ModelFile, data_range, is_external, set_data_range, tensors
from dnnsplit_onnx.graph.protobuf import DataRange, attach

Piece = bytes | DataRange

#: Largest message that protobuf reads.
MAX_MESSAGE_NBYTES = 2**31 - 1

_PAGE_FROM = 1 << 20
_PAGE = 1 << 16
_LINE = 64


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a file, in order.

    Attributes:
        pieces: Byte strings, and ranges of the source's files.
        nbytes: Their length.
    """

    pieces: tuple[Piece, ...]
    nbytes: int

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> Content:
        """The content made of these pieces."""
        pieces = tuple(pieces)
        return cls(pieces, sum(len(p) if isinstance(p, bytes) else p.length for p in pieces))


@dataclass(frozen=True)
class DataLayout:
    """A data file: where each range of the source lies in it.

    Attributes:
        name: The file's name.
        content: Its bytes.
    """

    name: str
    content: Content
    _extents: dict[str, list[tuple[int, int, int]]]

    def place(self, where: DataRange) -> DataRange:
        """Where in the data file this range of the source lies."""
        extents = self._extents[where.location]
        first, _, at = extents[bisect_right(extents, where.offset, key=lambda extent: extent[0]) - 1]
        return DataRange(self.name, at + where.offset - first, where.length)


def lay_out_data(ranges: Iterable[DataRange], name: str) -> DataLayout:
    """A data file that holds each of these ranges of the source's files."""
    pieces: list[Piece] = []
    extents: dict[str, list[tuple[int, int, int]]] = {}
    end = 0
    for location, start, stop in _merged(ranges):
        size = stop - start
        step = _PAGE if size >= _PAGE_FROM else _LINE
        at = -(-end // step) * step
        if at > end:
            pieces.append(bytes(at - end))
        pieces.append(DataRange(location, start, size))
        extents.setdefault(location, []).append((start, stop, at))
        end = at + size
    return DataLayout(name, Content(tuple(pieces), end), extents)


def lay_out(model: onnx.ModelProto, source: ModelFile, data_name: str) -> tuple[Content, Content | None]:
    """The files of one slice on its own, by the rules above.

    Args:
        model: The slice, as `extract` gives it; its references are changed in place.
        source: The model it was taken from.
        data_name: Name of the data file, if one is needed.

    Returns:
        The ONNX file, and the data file.
    """
    moved = _to_data_file(model, source, data_name)
    if not moved:
        return _model_content(model, source), None
    data = lay_out_data(map(data_range, moved), data_name)
    for tensor in moved:
        set_data_range(tensor, data.place(data_range(tensor)))
    return _model_content(model, source, data_name), data.content


def refer_to(data: DataLayout, model: onnx.ModelProto) -> None:
    """Makes all large weights of a slice references to a given data file.

    Args:
        data: A data file that holds all `weight_ranges` of the slice.
        model: The slice, as `extract` gives it; its references are changed in place.
    """
    for tensor in _references(model):
        set_data_range(tensor, data.place(data_range(tensor)))


def as_it_is(model: onnx.ModelProto) -> Content:
    """The ONNX file of a slice whose references lead to a data file already."""
    return Content.of([model.SerializeToString(deterministic=True)])


def weight_ranges(model: onnx.ModelProto) -> list[DataRange]:
    """Where the large weights of a model lie."""
    return [data_range(tensor) for tensor in _references(model)]


def _references(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    return [tensor for tensor in tensors(model) if is_external(tensor)]


def _to_data_file(model: onnx.ModelProto, source: ModelFile, data_name: str) -> list[onnx.TensorProto]:
    """The tensors that cannot be inline, by rules 1 and 2."""
    found = _references(model)
    if source.path.name == data_name:
        return found  # a name that stands for the source cannot stand for the data file too
    inline = [tensor for tensor in found if source.is_inline(data_range(tensor))]
    # References that give way to bytes are longer than the bytes of the heads that grow.
    size = model.ByteSize() + sum(data_range(tensor).length for tensor in inline)
    if size < MAX_MESSAGE_NBYTES:
        return [tensor for tensor in found if not source.is_inline(data_range(tensor))]
    initializers = [t for t in model.graph.initializer if is_external(t)]
    left = size - sum(data_range(t).length for t in initializers if source.is_inline(data_range(t)))
    if left >= MAX_MESSAGE_NBYTES:
        return found
    return initializers + [t for t in found if not source.is_inline(data_range(t)) and t not in initializers]


def _model_content(model: onnx.ModelProto, source: ModelFile, data_name: str | None = None) -> Content:
    message = model.SerializeToString(deterministic=True)
    return Content.of(attach(message, "model", lambda at: at.location != data_name and source.is_inline(at)))


def _merged(ranges: Iterable[DataRange]) -> list[tuple[str, int, int]]:
    """The ranges as disjoint extents (location, start, stop), those that overlap joined."""
    order: dict[str, list[tuple[int, int]]] = {}
    for where in ranges:
        order.setdefault(where.location, []).append((where.offset, where.offset + where.length))
    merged: list[tuple[str, int, int]] = []
    for location, spans in order.items():
        for start, stop in sorted(set(spans)):
            if merged and merged[-1][0] == location and start < merged[-1][2]:
                merged[-1] = (location, merged[-1][1], max(stop, merged[-1][2]))
            else:
                merged.append((location, start, stop))
    return merged
