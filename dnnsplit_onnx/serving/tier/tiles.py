"""A tier of several machines: the first one scatters rows to the others and gathers theirs.

Every machine serves the same folder of the tier. A request for one tile is an ordinary request
that names the tile's file. What a machine cannot answer in time, or at all, another one
computes: of those that still answer the one with the fewest tiles, in the end this one. So a
request is answered once, whoever dies meanwhile; a machine that is back is asked again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.running.origin import bindings_of
from dnnsplit_onnx.running.tiles import run_tiles
from dnnsplit_onnx.runtime.inputs import generate
from dnnsplit_onnx.serving.tier.engine import Arrays, Times, Values
from dnnsplit_onnx.serving.tier.legs import Leg
from dnnsplit_onnx.serving.tier.remote import Remote
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.tier.sequences import Sequence as Turns
from dnnsplit_onnx.serving.tier.stage import Stage
from dnnsplit_onnx.serving.wire.errors import ProtocolError, ServingError
from dnnsplit_onnx.serving.wire.pool import Target
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.slicing.manifest import SliceRecord, TileRecord

_log = logging.getLogger(__name__)

# An attempt elsewhere may take this share of the time that is left, so that there is time
# for another.
_SHARE_OF_TIME = 0.5


def machines_of(record: SliceRecord) -> tuple[str, ...]:
    """The machines that share a slice, each once."""
    return tuple(dict.fromkeys(tile.machine for tile in record.tiles))


def parse_peers(texts: Sequence[str]) -> dict[str, str]:
    """Machines and where they serve, from `NAME=URL`.

    Raises:
        InputError: One is not written so, or is named twice.
    """
    peers: dict[str, str] = {}
    for text in texts:
        name, is_given, url = text.partition("=")
        if not is_given or not name or not url:
            raise InputError(f"`{text}` names no machine", hint="write it as pi-b=http://pi-b:8000")
        if name in peers:
            raise InputError(f"machine `{name}` is given twice", hint="name each machine once")
        peers[name] = url
    return peers


class Machines:
    """The engine of a tier's first machine.

    Args:
        stage: Runs tiles here.
        peers: Where the other machines serve, by name. Rows of a machine that is not among
            them are computed here.
        me: Which machine this is: its tiles are tried when the server starts.

    Raises:
        InputError: A name is none of the tier's machines.
    """

    def __init__(self, stage: Stage, peers: Mapping[str, Target], me: str | None = None) -> None:
        record = stage.routes.manifest.slices[stage.tier]
        names = machines_of(record)
        for name in (*peers, *([me] if me else [])):
            if name not in names:
                listed = ", ".join(names) if names else "none: it was not planned for several"
                raise InputError(
                    f"no machine of tier `{stage.name}` is named `{name}`", hint=f"its machines: {listed}"
                )
        self.stage = stage
        self._me = me
        self._record = record
        self._peers = {
            name: Remote(target, stage.routes, stage.tier, alone=True)
            for name, target in peers.items()
            if name != me
        }
        self._pool = ThreadPoolExecutor(max(1, 4 * len(self._peers)), thread_name_prefix="tile")

    @property
    def routes(self) -> Routes:
        """Of the manifest."""
        return self.stage.routes

    @property
    def tier(self) -> int:
        """Which tier, counted from 0."""
        return self.stage.tier

    @property
    def name(self) -> str:
        """The tier's name."""
        return self.stage.name

    @property
    def ready(self) -> bool:
        """Whether a slice has really run, and requests can be taken."""
        return self.stage.ready

    @property
    def waiting(self) -> int:
        """Requests that wait to compute."""
        return self.stage.waiting

    @property
    def replicas(self) -> int:
        """One, once it is ready."""
        return self.stage.replicas

    @property
    def sequences(self) -> int:
        """Of how many sequences states are kept."""
        return self.stage.sequences

    def is_on_device(self, leg: Leg) -> bool:
        """Whether this process runs the tier's part of a route on a GPU."""
        return self.stage.is_on_device(leg)

    def run(
        self,
        leg: Leg,
        values: Values,
        deadline: Deadline,
        times: Times | None = None,
        sequence: Turns | None = None,
    ) -> Arrays:
        """Runs this tier's part of a route; arguments and errors as in `Engine.run`."""
        if leg.record is None or not leg.record.tiles or leg.states or not self._peers:
            return self.stage.run(leg, values, deadline, times, sequence)
        times = times or Times()
        start = time.perf_counter()
        result = run_tiles(leg.record, values, partial(self._compute, deadline, times))
        times.compute_s = time.perf_counter() - start - times.queue_s
        return result

    def open(self, leg: Leg) -> None:
        """Opens what this machine runs of a leg ahead of the first request that needs it."""
        if leg.record is None or not leg.record.tiles:
            self.stage.open(leg)
            return
        for tile in self._own(leg.record):
            self.stage.open(self._leg(tile))

    def forget(self, name: str) -> None:
        """Forgets the states of a sequence."""
        self.stage.forget(name)

    def warm_up(self) -> None:
        """Runs this machine's tiles on made-up values.

        Raises:
            DnnsplitError: One cannot be opened.
        """
        for tile in self._own(self._record):
            leg = self._leg(tile)
            try:
                inputs = generate(tile.inputs, bindings_of(self.routes.manifest))
                self.stage.run(leg, inputs.values, Deadline(3600))
            except (InputError, ProtocolError) as error:
                _log.info("`%s` is loaded, not tried on made-up values: %s", tile.file, error.message)
        if not self._record.tiles:
            self.stage.warm_up()
        self.stage.ready = True

    def close(self) -> None:
        """Gives up its sessions and connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for remote in self._peers.values():
            remote.close()
        self.stage.close()

    def _own(self, record: SliceRecord) -> list[TileRecord]:
        return [tile for tile in record.tiles if self._is_mine(tile)]

    def _is_mine(self, tile: TileRecord) -> bool:
        return tile.machine == self._me or (tile.machine not in self._peers and bool(self._peers))

    def _leg(self, tile: TileRecord) -> Leg:
        return self.routes.tile(self.tier, tile.file).legs[self.tier]

    def _compute(
        self,
        deadline: Deadline,
        times: Times,
        region: Sequence[TileRecord],
        inputs: Sequence[Arrays],
    ) -> list[Arrays]:
        """Computes the tiles of a region, wherever they can be."""
        made: dict[int, Arrays] = {}
        lost: set[str] = set()
        while len(made) < len(region):
            places = self._places(region, made.keys(), lost)
            asked: dict[int, tuple[str, Future[Arrays]]] = {
                at: (name, self._pool.submit(self._ask, name, region[at], inputs[at], deadline))
                for at, name in places.items()
                if name is not None
            }
            for at, name in places.items():
                if name is None:
                    made[at] = self._run_here(region[at], inputs[at], deadline, times)
            for at, (name, answer) in asked.items():
                try:
                    made[at] = answer.result()
                except ServingError as error:
                    lost.add(name)
                    rows = region[at].rows
                    _log.warning("machine `%s` is left out, rows %s: %s", name, rows, error.message)
        return [made[at] for at in range(len(region))]

    def _places(
        self, region: Sequence[TileRecord], done: Collection[int], lost: set[str]
    ) -> dict[int, str | None]:
        """Who computes each tile that is not done; None is this machine."""
        left = [at for at in range(len(region)) if at not in done]
        places: dict[int, str | None] = {}
        for at in left:
            name = region[at].machine
            places[at] = name if name in self._peers and name not in lost else None
        orphans = [at for at in left if places[at] is None and not self._is_mine(region[at])]
        for at in orphans:
            held = {name: 0 for name in (None, *self._peers) if name not in lost}
            for place in places.values():
                held[place] = held.get(place, 0) + 1
            held[None] -= 1  # this tile itself
            places[at] = min(held, key=lambda name: held[name])
        return places

    def _ask(self, name: str, tile: TileRecord, inputs: Arrays, deadline: Deadline) -> Arrays:
        route = self.routes.tile(self.tier, tile.file)
        part = Deadline(deadline.remaining_s * _SHARE_OF_TIME)
        results, _ = self._peers[name].infer(route, inputs, part)
        return results

    def _run_here(self, tile: TileRecord, inputs: Arrays, deadline: Deadline, times: Times) -> Arrays:
        own = Times()
        feeds: dict[str, np.ndarray | None] = dict(inputs)
        result: Arrays = self.stage.run(self._leg(tile), feeds, deadline, own)
        times.queue_s += own.queue_s
        return result
