"""Where a request's links are cut, and in which code what crosses is written.

A cut is a position, which stands for the code that the plan has there, or a position and a code:

    12,40         cut at 12 and 40
    12:uint8,40   the same, and what crosses the first cut is written as uint8
"""

from __future__ import annotations

from collections.abc import Iterable

from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.serving.wire.errors import ProtocolError
from dnnsplit_onnx.slicing.manifest import Manifest, SliceRecord
from dnnsplit_onnx.work.codes import LOSSY, RAW

Cut = int | tuple[int, str]
#: One a link, from tier 0 up.
Cuts = tuple[Cut, ...]


def positions(cuts: Iterable[Cut]) -> tuple[int, ...]:
    """The positions of cuts, whatever their codes."""
    return tuple(cut if isinstance(cut, int) else cut[0] for cut in cuts)


def parse_cuts(text: object) -> Cuts:
    """Cuts as they travel, `12,40`.

    Raises:
        ProtocolError: They are none.
    """
    try:
        if not isinstance(text, str) or len(text) > 1024:
            raise ValueError
        return tuple(_parse(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise ProtocolError("`dnnsplit_cuts` is not a list of positions") from None


def format_cuts(cuts: Cuts) -> str:
    """Cuts as `parse_cuts` reads them."""
    return ",".join(str(cut) if isinstance(cut, int) else f"{cut[0]}:{cut[1]}" for cut in cuts)


def code_of(ports: Iterable[Port]) -> str:
    """The code in which values cross at one end of a slice: that of any coded value among its ports."""
    return next((port.code or RAW for port in ports if port.stands_for is not None), RAW)


def ends_of(record: SliceRecord) -> tuple[str, str]:
    """The codes of what a slice reads and of what it writes."""
    return code_of(record.inputs), code_of(record.outputs)


def planned_codes(manifest: Manifest) -> tuple[str, ...]:
    """The code of each link by the plan: what the tier below it writes, or passes on."""
    codes: list[str] = []
    for record in manifest.slices[:-1]:
        passes = record.file is None and codes
        codes.append(codes[-1] if passes else code_of(record.outputs))
    return tuple(codes)


def _parse(part: str) -> Cut:
    position, colon, code = part.partition(":")
    if not colon:
        return int(position)
    if code not in (RAW, *LOSSY):
        raise ValueError
    return int(position), code
