"""An ONNX file opened without its weights.

`open_model` memory-maps the file, leaves every large weight where it is (see `wire`) and
parses the rest, so that a 20 GB model costs a few megabytes. Weights that the model keeps
in external files are checked to be there and inside the model's folder; those small
enough to be a shape operand are read, since shape inference and onnxruntime want them
inline.

A model file is untrusted: no path leaves its folder, by `..`, by an absolute path or
through a symbolic link, and no range goes past the end of its file.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError, EncodeError

from dnnsplit_onnx.errors import ModelError
from dnnsplit_onnx.files import file_sha256, stamp
from dnnsplit_onnx.graph.digests import LARGE_NBYTES, Digests, are_begun, identity, pending_digests
from dnnsplit_onnx.graph.folders import model_in
from dnnsplit_onnx.graph.kinds import HEAD_NBYTES, kind_of
from dnnsplit_onnx.graph.protobuf import Buffer, DataRange, detach

# Weights below this stay inline: shape operands, scales, biases of small layers. It is the
# threshold onnx itself uses when it moves weights out of a file.
INLINE_BELOW = 1024

_EXTERNAL = onnx.TensorProto.EXTERNAL
_DECIMAL = re.compile("-?[0-9]{1,40}")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model and where its weights lie.

    Attributes:
        path: The ONNX file.
        proto: The model. Each large weight is external data; where it is inline in the
            file, its location is the file itself.
        stamp: Size and time of the file when it was read.
        owner: What keeps the file there, if it lies in a temporary folder.
    """

    path: Path
    proto: onnx.ModelProto
    stamp: tuple[int, int] = (0, 0)
    owner: object = field(default=None, repr=False, compare=False)

    @property
    def folder(self) -> Path:
        """The folder that locations of weights are relative to."""
        return self.path.parent

    def is_inline(self, where: DataRange) -> bool:
        """Whether these bytes lie in the model's own file."""
        return where.location == self.path.name

    def check_unchanged(self) -> None:
        """Holds the file against what was read.

        Raises:
            ModelError: It is another one by now, so that ranges of it mean nothing.
        """
        try:
            same = stamp(self.path) == self.stamp
        except OSError as error:
            raise ModelError(f"cannot read `{self.path}`: {error.strerror}") from None
        if not same:
            raise ModelError(f"`{self.path}` has changed since it was read", hint="try again")

    @property
    def is_hashed(self) -> bool:
        """Whether its digests are known, or under way."""
        return are_begun(self.path, self.stamp)

    def begin_digests(self) -> None:
        """Starts to compute what `digests` will be asked for, in a thread."""
        pending_digests(self.path, self.stamp)

    def digests(self) -> Digests:
        """The digests of the ONNX file itself; external files are not part of them.

        Raises:
            ModelError: The file cannot be read any more.
        """
        try:
            return pending_digests(self.path, self.stamp).result()
        except OSError as error:
            raise ModelError(f"cannot read `{self.path}`: {error.strerror}") from None

    def sha256(self) -> str:
        """The SHA-256 that tells the model from others (`digests.identity`); raises as `digests`."""
        return identity(self.digests())

    def is_named(self, sha256: str) -> bool:
        """Whether this is the model's SHA-256, or that of all its bytes, as releases before 0.2 have it.

        Raises:
            ModelError: As for `digests`.
        """
        if sha256 in self.digests().values():
            return True
        try:
            return self.stamp[0] > LARGE_NBYTES and file_sha256(self.path) == sha256
        except OSError as error:
            raise ModelError(f"cannot read `{self.path}`: {error.strerror}") from None


def open_model(path: str | Path) -> ModelFile:
    """Opens an ONNX file without reading its weights.

    Args:
        path: The `.onnx` file, or a folder of one (`folders`). External weights are looked for
            beside it.

    Raises:
        ModelError: The file cannot be read or is not ONNX; a weight's data is missing,
            too short, or lies outside the model's folder.
    """
    path = model_in(Path(path))
    info = _regular_file(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            proto = read_model(buffer, path)
    except OSError as error:
        raise ModelError(f"cannot read `{path}`: {error.strerror}") from None
    return ModelFile(path, proto, (info.st_size, info.st_mtime_ns))


class _Temporary:
    """A folder that goes when the last graph of its model does."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="dnnsplit-onnx-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return type(None), ()  # a copy in another process does not own the folder


def open_proto(model: onnx.ModelProto | bytes, name: str = "model.onnx") -> ModelFile:
    """Opens a model that is in memory, weights included, by way of a temporary file.

    Slicing copies weights as ranges of a file. The file is there for as long as the result,
    or a graph made of it, is.

    Args:
        model: The model.
        name: What the file is called.

    Raises:
        ModelError: It is not ONNX, is too large for one file, or keeps weights elsewhere.
    """
    if isinstance(model, onnx.ModelProto):
        for tensor in tensors(model):
            if tensor.data_location == _EXTERNAL:
                raise ModelError(
                    f"weight `{tensor.name}` of the model in memory lies in a file",
                    hint="pass the path of the model, or load it with `onnx.load(path)`, weights included",
                )
        try:
            model = model.SerializeToString()
        except (EncodeError, ValueError):
            raise ModelError(
                "a model in memory may take 2 GB at most",
                hint="save it with `onnx.save(model, path, save_as_external_data=True)`, and pass the path",
            ) from None
    owner = _Temporary()
    path = owner.path / name
    path.write_bytes(model)
    return replace(open_model(path), owner=owner)


def read_model(buffer: Buffer, path: Path) -> onnx.ModelProto:
    """A model without its large weights, from the bytes of its file.

    Args:
        buffer: The whole file; of large weights only the heads are touched.
        path: Where it lies. External weights are looked for beside it.

    Raises:
        ModelError: As for `open_model`.
    """
    try:
        proto = _parse(detach(buffer, path.name, INLINE_BELOW), path)
    except ModelError as error:
        if kind := kind_of(bytes(buffer[:HEAD_NBYTES])):
            raise ModelError(f"`{path}` is {kind.what}", hint=kind.hint) from None
        error.context = error.context or f"in {path}"
        error.hint = error.hint or "is the file whole, and an ONNX model? copy or export it again"
        raise
    _check_external(proto, path, len(buffer))
    return proto


def _regular_file(path: Path) -> os.stat_result:
    try:
        info = path.stat()
    except FileNotFoundError:
        raise ModelError(
            f"no such file: `{path}`", hint="pass an ONNX file; `dnnsplit-onnx zoo list` shows models to try"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read `{path}`: {error}") from None
    if not stat.S_ISREG(info.st_mode):
        raise ModelError(f"`{path}` is not a file", hint="pass the .onnx file itself")
    if info.st_size == 0:
        raise ModelError(f"`{path}` is empty", hint="copy or export the model again")
    return info


def _parse(skeleton: bytes, path: Path) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(skeleton)
    except (DecodeError, ValueError):
        raise ModelError(
            f"`{path}` is not an ONNX model",
            hint="is the file whole? copy or export it again; Keras and PyTorch models go through `convert`",
        ) from None
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise ModelError(
            f"`{path}` is not an ONNX model: it holds no graph",
            hint="Keras and PyTorch models go through `convert` first",
        )
    return proto


def tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model: initializers and attributes, at any depth."""
    yield from _graph_tensors(proto.graph)
    for training in proto.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)
    for function in proto.functions:
        yield from node_tensors(function.node)
        yield from _attribute_tensors(function.attribute_proto)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from node_tensors(graph.node)


def node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """Every tensor in the attributes of nodes, at any depth."""
    for node in nodes:
        if node.attribute:
            yield from _attribute_tensors(node.attribute)


def _attribute_tensors(attributes: Iterable[onnx.AttributeProto]) -> Iterator[onnx.TensorProto]:
    kinds = onnx.AttributeProto
    for attribute in attributes:
        kind = attribute.type
        if kind == kinds.TENSOR:
            yield attribute.t
        elif kind == kinds.GRAPH:
            yield from _graph_tensors(attribute.g)
        elif kind == kinds.TENSORS:
            yield from attribute.tensors
        elif kind == kinds.GRAPHS:
            for graph in attribute.graphs:
                yield from _graph_tensors(graph)
        elif kind in (kinds.SPARSE_TENSOR, kinds.SPARSE_TENSORS):
            sparse = [attribute.sparse_tensor] if kind == kinds.SPARSE_TENSOR else attribute.sparse_tensors
            for tensor in sparse:
                yield tensor.values
                yield tensor.indices


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor's data is a reference to bytes of a file."""
    return tensor.data_location == _EXTERNAL


def data_range(tensor: onnx.TensorProto) -> DataRange:
    """Where the data of an external tensor lies.

    Raises:
        ModelError: The reference is incomplete or not made of numbers.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    try:
        offset = _number(entries.get("offset") or "0")
        length = _number(entries["length"]) if entries.get("length") else -1
        location = entries["location"]
        if not all(isinstance(text, str) for entry in entries.items() for text in entry):
            raise TypeError("bytes")
    except (KeyError, ValueError, TypeError):  # TypeError: it is bytes, where it is not UTF-8
        raise ModelError(f"weight `{tensor.name}` has a broken reference to external data") from None
    if offset < 0 or (length < 0 and "length" in entries and entries["length"]):
        raise ModelError(f"weight `{tensor.name}` has a negative offset or length")
    return DataRange(location, offset, length)


def _number(text: str) -> int:
    """A number as ONNX writes it; Python's `int` takes `1_0`, blanks and digits of other scripts too."""
    if _DECIMAL.fullmatch(text) is None:
        raise ValueError(text)
    return int(text)


def set_data_range(tensor: onnx.TensorProto, where: DataRange) -> None:
    """Makes `tensor` refer to these bytes.

    Entries that onnx does not define are kept; a checksum, which is of a whole file, is not.
    """
    own = {"location", "offset", "length", "checksum"}
    others = [(e.key, e.value) for e in tensor.external_data if e.key not in own]
    pairs = [("location", where.location), ("offset", str(where.offset)), ("length", str(where.length))]
    del tensor.external_data[:]
    for key, value in pairs + others:
        tensor.external_data.add(key=key, value=value)
    tensor.data_location = _EXTERNAL


def _check_external(proto: onnx.ModelProto, path: Path, nbytes: int) -> None:
    """Holds every reference to external data against the files that are there."""
    sizes: dict[str, int] = {path.name: nbytes}
    for tensor in tensors(proto):
        if tensor.data_location != _EXTERNAL:
            continue
        where = data_range(tensor)
        if where.location not in sizes:
            sizes[where.location] = _size_inside(path, where.location, tensor.name)
        size = sizes[where.location]
        length = where.length if where.length >= 0 else size - where.offset
        if length < 0 or where.offset + length > size:
            raise ModelError(
                f"weight `{tensor.name}` lies past the end of `{where.location}`",
                context=f"bytes {where.offset} to {where.offset + max(length, 0)} of {size}, in {path}",
                hint="the file of weights is truncated or belongs to another model: copy it again",
            )
        if where.length < 0:
            set_data_range(tensor, DataRange(where.location, where.offset, length))
        if length < INLINE_BELOW and where.location != path.name:
            with (path.parent / where.location).open("rb") as file:
                file.seek(where.offset)
                tensor.raw_data = file.read(length)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")


def _size_inside(path: Path, location: str, weight: str) -> int:
    """The size of a file of weights, which must be a regular file in the model's folder."""
    outside = ModelError(
        f"weight `{weight}` refers to `{location}`, outside the model's folder",
        context=f"in {path}",
        hint="external data must lie beside or below the model; re-save the model with its data there",
    )
    relative = Path(location)
    if not location or relative.is_absolute() or ".." in relative.parts or "\0" in location:
        raise outside
    folder = Path(os.path.realpath(path.parent))
    if not Path(os.path.realpath(path.parent / relative)).is_relative_to(folder):
        raise outside
    try:
        info = (path.parent / relative).stat()
    except OSError:
        raise ModelError(
            f"missing external data: `{location}`",
            context=f"weight `{weight}` of {path} is stored there",
            hint=f"put `{relative.name}` beside the model",
        ) from None
    if not stat.S_ISREG(info.st_mode):
        raise ModelError(f"external data `{location}` is not a regular file", context=f"in {path}")
    return info.st_size
