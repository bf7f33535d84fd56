"""Whether what goes over a link is packed: where that is quicker than to send it as it is.

For each kind of request, the way it is cut, one figure is kept: packed seconds over raw ones. Two things
tell it, and both count by how sure they are:

1. A model. The first time, and now and then while all is sent raw, a piece of a request is packed and
   unpacked here; packed requests tell it better. The link's bandwidth comes from requests, too:

       (pack + packed bytes / bandwidth + unpack)  /  (raw bytes / bandwidth)

2. Measurements: what requests took on their way, packed ones and raw ones. So that there are some of both,
   what seems slower is sent now and then: the fourth request, the eighth, ... and then so seldom that this
   costs one part in a hundred at most.

Until the link has shown its bandwidth, what crosses is raw. When the bandwidth is another one, what was
measured is forgotten.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from dnnsplit_onnx.serving.wire.datatypes import datatype_of
from dnnsplit_onnx.serving.wire.estimate import LinkEstimate
from dnnsplit_onnx.serving.wire.packing import pack, unpack
from dnnsplit_onnx.serving.wire.trace import Hop

#: What is shorter is sent as it is.
LEAST_NBYTES = 4096
# Of raw seconds, what packed ones may take to be worth it.
_WORTH = 0.96
# The piece that is tried, how often (the first run is slow), and after how many raw requests again.
_PIECE_NBYTES = 1 << 18
_TRIALS = 2
_TRY_AGAIN = 128
_WEIGHT = 0.25
_MOST_KINDS = 256
# Of each way, the last so many are kept; so many are wanted soon, the first at this request.
_KEPT, _WANTED, _FIRST_LOOK = 65, 3, 4
# A ratio that is not looked at so soon.
_HOPELESS = math.log(1.5)
# What looking may cost of all seconds, and the requests between two looks.
_LOOKING = 0.01
_SOONEST, _LATEST = 16, 4096
# How far the model may be off, and a request from its like (which counts as two of them), in logarithms.
_MODEL_SPREAD, _SPREAD, _SPREAD_COUNTS = 0.25, 0.2, 2
# A bandwidth so many times another is another link.
_LEAP = 2.0


@dataclass(slots=True)
class _Figures:
    """What packing does to one kind of request.

    Attributes:
        share: Packed bytes over raw ones.
        pack_s, unpack_s: Seconds a raw byte.
        is_of_requests: Whether these are of requests, and not of a piece alone.
        bytes_per_s: The bandwidth at which requests were measured.
        raw, packed: What requests took on their way, the logarithms of seconds a raw byte.
        count: Requests since they are measured.
        raws: Requests since a piece was tried.
    """

    share: float
    pack_s: float
    unpack_s: float
    is_of_requests: bool = False
    bytes_per_s: float = 0.0
    raw: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    packed: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    count: int = 0
    raws: int = 0

    def decide(self, bytes_per_s: float) -> bool:
        """Whether to pack the next one."""
        if not self.bytes_per_s or not 1 / _LEAP < bytes_per_s / self.bytes_per_s < _LEAP:
            self.raw.clear()
            self.packed.clear()
            self.bytes_per_s, self.count = bytes_per_s, 0
        self.count += 1
        ratio = self._log_ratio(bytes_per_s)
        packs = ratio < math.log(_WORTH)
        self.raws = 0 if packs else self.raws + 1
        return packs != self._is_turn_of_other(ratio, packs=packs)

    def _log_ratio(self, bytes_per_s: float) -> float:
        """Packed seconds over raw ones: the mean of model and measurements, each by its certainty."""
        model = math.log((self.pack_s + self.unpack_s) * bytes_per_s + self.share)
        if not self.raw or not self.packed:
            return model
        means = [fmean(one) for one in (self.packed, self.raw)]
        apart = [(x - means[0]) ** 2 for x in self.packed] + [(x - means[1]) ** 2 for x in self.raw]
        count = len(self.packed) + len(self.raw)
        variance = (sum(apart) + _SPREAD_COUNTS * _SPREAD**2) / (count - 2 + _SPREAD_COUNTS)
        certainty = 1 / (variance * (1 / len(self.packed) + 1 / len(self.raw)))
        of_model = 1 / _MODEL_SPREAD**2
        return (of_model * model + certainty * (means[0] - means[1])) / (of_model + certainty)

    def _is_turn_of_other(self, ratio: float, *, packs: bool) -> bool:
        """Whether the way that seems slower is taken, to see."""
        if self.share >= _WORTH:
            return packs and self.count % _SOONEST == 0
        seen = len(self.raw if packs else self.packed)
        if seen < _WANTED and (packs or ratio < _HOPELESS):
            return self.count >= _FIRST_LOOK and self.count.bit_count() == 1
        loss = math.expm1(abs(ratio))
        return self.count % round(min(max(loss / _LOOKING, _SOONEST), _LATEST)) == 0

    def measure(self, raw_nbytes: int, hop: Hop) -> None:
        """Learns from a request that has crossed."""
        above = hop.tiers[0]
        seconds = (hop.pack_s + hop.wire_s + above.unpack_s) / raw_nbytes
        if seconds > 0:
            (self.packed if hop.saved_nbytes else self.raw).append(math.log(seconds))
        if hop.saved_nbytes:
            weight = _WEIGHT if self.is_of_requests else 1.0
            self.is_of_requests = True
            self.share += weight * (hop.sent_nbytes / raw_nbytes - self.share)
            self.pack_s += weight * (hop.pack_s / raw_nbytes - self.pack_s)
            self.unpack_s += weight * (above.unpack_s / raw_nbytes - self.unpack_s)


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
        if figures is None or (figures.raws >= _TRY_AGAIN and not figures.is_of_requests):
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
        raw_nbytes = hop.sent_nbytes + hop.saved_nbytes
        if not hop.tiers or raw_nbytes < LEAST_NBYTES:
            return
        with self._lock:
            figures = self._kinds.get(kind)
            if figures is not None:
                figures.measure(raw_nbytes, hop)


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
