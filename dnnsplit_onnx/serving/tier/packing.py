"""Whether what goes over a link is packed: where that is quicker than to send it as it is.

For each kind of request, the way it is cut, three figures are kept: how much smaller packing makes
it, and the seconds that packing and unpacking take for a byte. The first time, and now and then
while it is sent raw, they come from a piece of it that is packed and unpacked here; while it is
sent packed, from the requests themselves. The link's bandwidth comes from the requests, too. Then

    packed, if  pack + packed bytes / bandwidth + unpack  <  raw bytes / bandwidth

with something to spare. Until the link has shown its bandwidth, what crosses is raw.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from dnnsplit_onnx.serving.wire.datatypes import datatype_of
from dnnsplit_onnx.serving.wire.estimate import LinkEstimate
from dnnsplit_onnx.serving.wire.packing import pack, unpack
from dnnsplit_onnx.serving.wire.trace import Hop

#: What is shorter is sent as it is.
LEAST_NBYTES = 4096
# Of raw seconds, what packed ones may take to be worth it.
_WORTH = 0.95
# The piece that is tried, how often (the first run is slow), and after how many raw requests again.
_PIECE_NBYTES = 1 << 18
_TRIALS = 2
_TRY_AGAIN = 128
# After so many packed requests one is raw, so that the link shows its bandwidth: short bodies do not.
_LOOK_AGAIN = 64
_WEIGHT = 0.25
_MOST_KINDS = 256


@dataclass(slots=True)
class _Figures:
    """What packing does to one kind of request.

    Attributes:
        share: Packed bytes over raw ones.
        pack_s, unpack_s: Seconds a raw byte.
        count: Requests since it was tried.
        is_worth_it: Whether the last of them was better packed.
    """

    share: float
    pack_s: float
    unpack_s: float
    count: int = 0
    is_worth_it: bool = False

    def decide(self, bytes_per_s: float) -> bool:
        """Whether to pack the next one."""
        raw_s = 1 / bytes_per_s
        packed_s = self.pack_s + self.share * raw_s + self.unpack_s
        self.count += 1
        self.is_worth_it = packed_s < _WORTH * raw_s
        return self.is_worth_it and self.count % _LOOK_AGAIN != 0


class Packing:
    """Decides for one link; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._link = LinkEstimate(math.inf, 0.0)
        self._kinds: OrderedDict[Hashable, _Figures] = OrderedDict()

    def is_worth_it(self, kind: Hashable, values: Mapping[str, np.ndarray]) -> bool:
        """Whether a request of some kind is to be packed.

        Args:
            kind: How it is cut.
            values: What it sends.
        """
        nbytes = sum(value.nbytes for value in values.values())
        bandwidth = self._link.state.bandwidth_mbps * 1e6 / 8
        if nbytes < LEAST_NBYTES or math.isinf(bandwidth):
            return False
        with self._lock:
            figures = self._kinds.get(kind)
        if figures is None or (not figures.is_worth_it and figures.count >= _TRY_AGAIN):
            figures = _tried(values)
        if figures is None:
            return False
        with self._lock:
            self._kinds[kind] = figures
            if len(self._kinds) > _MOST_KINDS:
                self._kinds.popitem(last=False)
            return figures.decide(bandwidth)

    def learn(self, kind: Hashable, hop: Hop) -> None:
        """Learns from a request that has crossed."""
        self._link.observe(hop)
        if not hop.saved_nbytes or not hop.tiers:
            return
        with self._lock:
            figures = self._kinds.get(kind)
            if figures is None:
                return
            raw = hop.sent_nbytes + hop.saved_nbytes
            figures.share += _WEIGHT * (hop.sent_nbytes / raw - figures.share)
            figures.pack_s += _WEIGHT * (hop.pack_s / raw - figures.pack_s)
            figures.unpack_s += _WEIGHT * (hop.tiers[0].unpack_s / raw - figures.unpack_s)


def _tried(values: Mapping[str, np.ndarray]) -> _Figures | None:
    """Packs and unpacks a piece from the middle of the largest value."""
    largest = max(values.values(), key=lambda value: value.nbytes)
    datatype = datatype_of(largest)
    if datatype is None or datatype.itemsize is None:
        return None
    flat, count = np.ascontiguousarray(largest).reshape(-1), _PIECE_NBYTES // datatype.itemsize
    start = max(0, (len(flat) - count) // 2)
    piece = flat[start : start + count].view(np.uint8)
    pack_s = unpack_s = math.inf
    for _ in range(_TRIALS):
        began = time.perf_counter()
        packed = pack(piece.data, datatype.itemsize)
        between = time.perf_counter()
        pack_s = min(pack_s, between - began)
        unpack(memoryview(packed), datatype.itemsize, np.empty(piece.nbytes, np.uint8))
        unpack_s = min(unpack_s, time.perf_counter() - between)
    return _Figures(len(packed) / piece.nbytes, pack_s / piece.nbytes, unpack_s / piece.nbytes)
