"""What a browser cannot run, said before anything is written.

Measured with onnxruntime-web 1.30: its WASM build has the operators of onnxruntime's CPU build,
but for those of other domains than ONNX's and `com.microsoft`. What else it lacks is found when
a slice is opened, and the page says it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import onnx

from dnnsplit_onnx.errors import ManifestError
from dnnsplit_onnx.serving.wire.datatypes import BY_ONNX
from dnnsplit_onnx.slicing.manifest import SliceRecord

#: The largest array of bytes, and the largest file in protobuf's format.
LARGEST_FILE_NBYTES = (1 << 31) - 1
#: All memory of a program in WASM, the model's weights in it.
LARGEST_SLICE_NBYTES = 1 << 32

_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_DTYPES = frozenset(BY_ONNX) - {"bfloat16"}
_CUT_ELSEWHERE = "cut elsewhere: split --at"


def check_fitness(place: Path, records: Iterable[SliceRecord]) -> None:
    """Refuses slices that onnxruntime-web is known not to run.

    Args:
        place: The folder of the manifest.
        records: The slices of the browser's tier that have files.

    Raises:
        ManifestError: One is too large, or has values or operators that are not for browsers.
    """
    for record in records:
        assert record.file is not None
        _check_sizes(place, record)
        _check_values(record)
        _check_operators(place / record.file, record)


def _check_sizes(place: Path, record: SliceRecord) -> None:
    sizes = {name: (place / name).stat().st_size for name in _files(record)}
    for name, nbytes in sizes.items():
        if nbytes > LARGEST_FILE_NBYTES:
            raise _too_large(f"`{name}` has {_gib(nbytes)}; a browser holds 2 GiB in one piece")
    total = sum(sizes.values())
    if total > LARGEST_SLICE_NBYTES:
        raise _too_large(f"slice `{record.file}` has {_gib(total)}; WASM has 4 GiB in all")


def _too_large(message: str) -> ManifestError:
    return ManifestError(message, hint="give the browser's tier less: memory_gb = 1 in the tiers file")


def _check_values(record: SliceRecord) -> None:
    for port in (*record.inputs, *record.outputs):
        if port.kind != "tensor" or port.dtype not in _DTYPES:
            what = port.kind if port.kind != "tensor" else f"tensor of {port.dtype}"
            raise ManifestError(
                f"value `{port.name}` of slice `{record.file}` is a {what}, which onnxruntime-web lacks",
                hint=_CUT_ELSEWHERE,
            )


def _check_operators(path: Path, record: SliceRecord) -> None:
    model = onnx.load(path, load_external_data=False)
    own = {(function.domain, function.name) for function in model.functions}
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    lacking = sorted(
        {
            f"{node.domain}.{node.op_type}"
            for body in bodies
            for node in _with_inner(body)
            if node.domain not in _DOMAINS and (node.domain, node.op_type) not in own
        }
    )
    if lacking:
        raise ManifestError(
            f"slice `{record.file}` has operators that onnxruntime-web lacks: {', '.join(lacking)}",
            hint=_CUT_ELSEWHERE,
        )


def _with_inner(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes, and those of the bodies of If, Loop and Scan in them."""
    pending = list(nodes)
    while pending:
        node = pending.pop()
        yield node
        for attribute in node.attribute:
            pending.extend(attribute.g.node)
            pending.extend(inner for graph in attribute.graphs for inner in graph.node)


def _files(record: SliceRecord) -> tuple[str, ...]:
    return (record.file or "", *(data.file for data in record.data))


def _gib(nbytes: int) -> str:
    return f"{nbytes / (1 << 30):.2f} GiB"


def files_of(records: Iterable[SliceRecord]) -> Mapping[str, None]:
    """The files of some slices, each once, relative to the manifest."""
    return dict.fromkeys(name for record in records for name in _files(record))
