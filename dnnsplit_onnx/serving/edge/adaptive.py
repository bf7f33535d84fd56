"""New cuts when a link or a tier is no longer what it was.

Every request tells how its links and tiers did. From that an estimate is kept of each link
(`estimate`) and of how much slower or faster each tier is than the plan thought, and when an
estimate has moved, the plan is made again over the cuts that there are slices for.

The slices of new cuts are opened first, on all tiers, while requests go on with the cuts
they have: no request waits for a slice to be opened.

So that it does not flap, the cuts change only for a gain that is larger than what the
measurements waver by, and after a change nothing but a large gain changes them again for a
while. What no request tells of any more is doubted (`doubt`), so that cuts return to a tier
that was slow when they left it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dnnsplit_onnx.errors import DnnsplitError, InputError, RequestError
from dnnsplit_onnx.machines.tiers_file import load_topology
from dnnsplit_onnx.machines.topology import Link, Topology
from dnnsplit_onnx.planning.choosing import problem_of
from dnnsplit_onnx.planning.figures import Figures
from dnnsplit_onnx.planning.fitting import analysis_of
from dnnsplit_onnx.planning.planners import get_planner
from dnnsplit_onnx.planning.problem import Problem
from dnnsplit_onnx.running.origin import bindings_of, find_model, slices_folder
from dnnsplit_onnx.serving.edge.choosing import Prepare, clipped
from dnnsplit_onnx.serving.edge.doubt import Doubt
from dnnsplit_onnx.serving.edge.edge import Edge
from dnnsplit_onnx.serving.edge.watching import LinkWatch
from dnnsplit_onnx.serving.tier.cuts import Cuts, format_cuts, positions
from dnnsplit_onnx.serving.tier.remote import Remote
from dnnsplit_onnx.serving.tier.routes import Routes
from dnnsplit_onnx.serving.wire.errors import ServingError
from dnnsplit_onnx.serving.wire.estimate import LinkState, Spread
from dnnsplit_onnx.serving.wire.pool import Target
from dnnsplit_onnx.serving.wire.stream import Deadline
from dnnsplit_onnx.serving.wire.trace import Hop, TierTrace
from dnnsplit_onnx.slicing.manifest import Manifest, load_manifest
from dnnsplit_onnx.slicing.records import recorded_plan
from dnnsplit_onnx.work.analysing import analyse
from dnnsplit_onnx.work.codes import RAW

_log = logging.getLogger(__name__)

#: Sends so many bytes over link 0 by a deadline, and tells how that went.
Measure = Callable[[int, Deadline], Hop]

_TICK_S = 0.1
_WORTH = 0.05  # gain, as a share of what the present cuts take, where nothing wavers
_LARGE = 0.40  # gain that is worth it at once
_DWELL_S = 1.0
_OVERDUE = 3.0  # times what a transfer should take
_QUIET_S = 1.0  # without traffic that tells, the link is measured
_MEASURE_S = 0.03  # of the link's time
_SHORTEST_MEASURE, _LONGEST_MEASURE = 96 << 10, 1 << 20
_SCALE_WEIGHT = 0.2


class Adaptive:
    """Chooses cuts by what links and tiers are seen to do.

    Args:
        routes: The slices there are.
        problem: The model on its tiers, as the plan saw them.
        measure: Measures link 0 when no request does; None to never do that.
        prepare: Has the slices of new cuts opened before they are used.
    """

    def __init__(
        self,
        routes: Routes,
        problem: Problem,
        measure: Measure | None = None,
        prepare: Prepare = lambda _: None,
    ) -> None:
        self.reason = "the plan"
        self._routes, self._measure = routes, measure
        self._problem = _with_slices(problem, routes)
        self._prepare = prepare
        self._seen = LinkWatch([(link.bandwidth_mbps, link.delay_ms) for link in problem.topology.links])
        self._scales = [1.0] * len(problem.topology.tiers)
        self._spreads = [Spread() for _ in problem.topology.tiers]
        self._tier_doubts = [Doubt() for _ in problem.topology.tiers]
        self._link_doubts = [Doubt() for _ in problem.topology.links]
        self._lock = threading.Lock()
        self._cuts: Cuts = routes.cuts
        self._fallbacks: dict[int, Cuts | None] = {}
        self._changed_at = self._failed_at = float("-inf")
        self._slices = _positions(routes)
        self._predicted: dict[Cuts, tuple[float, ...]] = {}
        self._stop = threading.Event()
        self._news = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="adapt", daemon=True)
        self._thread.start()

    @property
    def links(self) -> tuple[LinkState, ...]:
        """What each link is believed to do."""
        planned = self._problem.topology.links
        return tuple(map(_faded, planned, self._seen.states, self._link_doubts))

    def choose(self, reach: int) -> Cuts | None:
        """The best cuts known for this reach."""
        with self._lock:
            cuts = self._cuts
            if self._routes.route(cuts).links <= reach:
                return cuts
            if reach not in self._fallbacks:
                self._fallbacks[reach] = self._best(reach) or clipped(self._routes, cuts, reach)
            return self._fallbacks[reach]

    def observe(self, cuts: Cuts, tiers: tuple[TierTrace, ...], hop: Hop | None) -> None:
        """Learns from a request."""
        before = self._seen.states
        self._seen.observe(tiers, hop)
        for at, states in enumerate(zip(before, self._seen.states, strict=True)):
            self._doubt_link(at, *states)
        for at, predicted_s in enumerate(self._stage_seconds(cuts)):
            self._learn_scale(at, predicted_s, tiers[at].compute_s if at < len(tiers) else 0.0)
        self._news.set()

    def under_way(self, nbytes: int) -> AbstractContextManager[None]:
        """Watches a request: one that is overdue tells of its link before it arrives."""
        return self._seen.under_way(nbytes)

    def close(self) -> None:
        """Stops re-planning."""
        self._stop.set()
        self._news.set()
        self._thread.join()

    def _stage_seconds(self, cuts: Cuts) -> tuple[float, ...]:
        """What each tier takes by the plan's own figures, writing and reading codes among it."""
        found = self._predicted.get(cuts)
        if found is None:
            figures = self._problem.figures(positions(cuts), self._routes.codes(cuts))
            found = self._predicted[cuts] = tuple(stage.seconds for stage in figures.stages)
        return found

    def _learn_scale(self, tier: int, predicted: float, seconds: float) -> None:
        if predicted > 1e-4 and seconds > 0:
            scale = seconds / predicted
            believed = self._tier_doubts[tier].told(scale, self._scales[tier])
            self._spreads[tier].learn(scale / believed)
            self._scales[tier] = believed + _SCALE_WEIGHT * (scale - believed)
        else:
            self._tier_doubts[tier].untold()

    def _doubt_link(self, at: int, before: LinkState, after: LinkState) -> None:
        planned = self._problem.topology.links[at].bandwidth_mbps
        if after.samples > before.samples:
            self._link_doubts[at].told(after.bandwidth_mbps / planned, before.bandwidth_mbps / planned)
        elif at > 0 or self._measure is None:  # link 0 is measured where no request tells of it
            self._link_doubts[at].untold()

    def _watch(self) -> None:
        while not self._stop.is_set():
            news = self._news.wait(_TICK_S)
            self._news.clear()
            try:
                if self._look_for_overdue() or self._measure_if_quiet() or news:
                    self._plan_again()
            except Exception:
                # Whatever planning raises, this thread must live: without it no cut would ever change
                # again. Requests go on with the cuts they have, and the log has the traceback.
                _log.exception("re-planning failed")

    def _look_for_overdue(self) -> bool:
        found = False
        for nbytes, seconds in self._seen.sharing.under_way():
            state = self._seen.links[0].state
            expected_s = (
                8 * nbytes / (state.bandwidth_mbps * 1e6) + 2 * state.delay_ms / 1e3 + self._above_s()
            )
            if seconds > _OVERDUE * expected_s + _TICK_S:
                self._seen.links[0].slower_than(nbytes, seconds)
                found = True
        return found

    def _above_s(self) -> float:
        """What the tiers above need for a request, by the present cuts."""
        figures = self._figures(self._now(), self._cuts)
        above = [stage.seconds for stage in figures.stages[1:]] + [link.seconds for link in figures.links[1:]]
        return sum(above)

    def _measure_if_quiet(self) -> bool:
        if self._measure is None:
            return False
        link, sharing = self._seen.links[0], self._seen.sharing
        state = link.state
        if state.age_s < _QUIET_S or sharing.under_way():
            return False
        nbytes = int(state.bandwidth_mbps * 1e6 / 8 * _MEASURE_S)
        nbytes = min(max(nbytes, _SHORTEST_MEASURE), _LONGEST_MEASURE)
        try:
            with sharing.transfer(nbytes):
                hop = self._measure(nbytes, Deadline(_QUIET_S))
        except ServingError:
            link.slower_than(nbytes, _QUIET_S)
        else:
            link.observe(hop)
            link.touch()
        return True

    def _plan_again(self) -> None:
        with self._lock:
            self._fallbacks.clear()
            best = self._best(len(self._seen.links))
            if best is None or best == self._cuts:
                return
            gain, least = self._gain(best), self._least_gain(best)
            dwelt = time.monotonic() - self._changed_at >= _DWELL_S
            if gain < least or (gain < max(_LARGE, 2 * least) and not dwelt):
                return
            reason = f"{gain:.0%} better at " + ", ".join(
                f"{_short(s.bandwidth_mbps)} Mbit/s and {s.delay_ms:.2g} ms" for s in self.links
            )
        if self._is_prepared(best):
            with self._lock:
                self._cuts, self._changed_at, self.reason = best, time.monotonic(), reason

    def _gain(self, cuts: Cuts) -> float:
        """What other cuts are better by than the present ones, as a share of these."""
        problem = self._now()
        mine, theirs = (self._figures(problem, each).value(problem.objective) for each in (self._cuts, cuts))
        if problem.objective == "throughput":
            mine, theirs = 1 / mine, 1 / theirs
        return 1 - theirs / mine

    def _least_gain(self, cuts: Cuts) -> float:
        """What other cuts must be better by: more than what the measurements waver by.

        Each tier's and link's seconds are uncertain by its spread; independent errors add in
        squares, those of the present cuts and of the others.
        """
        problem = self._now()
        squares, present_s = 0.0, 0.0
        for each in (self._cuts, cuts):
            figures = self._figures(problem, each)
            seconds = [stage.seconds for stage in figures.stages] + [link.seconds for link in figures.links]
            spreads = [
                spread.value * d.trust for spread, d in zip(self._spreads, self._tier_doubts, strict=True)
            ]
            spreads += [state.spread for state in self.links]
            squares += sum((s * spread) ** 2 for s, spread in zip(seconds, spreads, strict=True))
            present_s = present_s or sum(seconds)
        return max(_WORTH, math.sqrt(squares) / present_s) if present_s else _WORTH

    def _is_prepared(self, cuts: Cuts) -> bool:
        """Whether all tiers have the slices of these cuts open; if not, it is tried again later."""
        if time.monotonic() - self._failed_at < _DWELL_S:
            return False
        try:
            self._prepare(cuts)
        except DnnsplitError as error:
            self._failed_at = time.monotonic()
            _log.warning("cuts %s would be better and cannot be used: %s", format_cuts(cuts), error.message)
            return False
        return True

    def _now(self) -> Problem:
        """The problem with links and tiers as they are seen to be."""
        topology = self._problem.topology
        links = [
            link.changed(bandwidth_mbps=state.bandwidth_mbps, delay_ms=state.delay_ms, down_mbps=None)
            for link, state in zip(topology.links, self.links, strict=True)
        ]
        costs, trust = self._problem.costs, [doubt.trust for doubt in self._tier_doubts]
        scales = (np.array(self._scales) ** trust)[:, None]
        codes = {
            name: replace(one, encode_s=one.encode_s * scales, decode_s=one.decode_s * scales)
            for name, one in costs.codes.items()
        }
        return replace(
            self._problem,
            costs=replace(costs, seconds_below=costs.seconds_below * scales, codes=codes),
            topology=topology.changed(links=links),
        )

    def _figures(self, problem: Problem, cuts: Cuts) -> Figures:
        return problem.figures(positions(cuts), self._routes.codes(cuts))

    def _best(self, reach: int) -> Cuts | None:
        """The best cuts that there are slices for and that use no link beyond the reach."""
        problem = self._now()
        size, count = self._routes.size, len(self._seen.links)
        allowed = np.zeros((count, size + 1), dtype=np.bool_)
        allowed[:reach, self._slices] = True
        allowed[:, size] = True
        if problem.allowed is not None:
            allowed &= problem.allowed
        try:
            found = get_planner("exact")(replace(problem, allowed=allowed))
        except RequestError:  # no plan keeps the limits as things are
            return None
        codes = found.codes or (RAW,) * count
        places = (int(cut) for cut in found.cuts)
        cuts = self._routes.shortest(tuple(zip(places, codes, strict=True)))
        return cuts if self._routes.has(cuts) else None


def adaptive_edge(
    folder: str | Path,
    target: Target | None,
    tiers: str | Path,
    model: str | Path | None = None,
    **options: Any,
) -> Edge:
    """A client that moves its cuts.

    Args:
        folder: A folder with the slices of all candidate cuts.
        target: Tier 1.
        tiers: The tiers file that the plan was made with.
        model: Where the whole model is now, if it was moved; its graph is read for its work.
        options: Further arguments of `Edge`.

    Raises:
        InputError: The folder has but one plan's slices, or the tiers are others.
    """
    place = slices_folder(folder)
    manifest = load_manifest(place)
    if not manifest.candidates:
        raise InputError(
            f"`{folder}` has the slices of one plan only", hint="lay down all of them: split --all-candidates"
        )
    problem = _problem(place, manifest, load_topology(tiers), model)

    def chooser(routes: Routes, remote: Remote | None, prepare: Prepare) -> Adaptive:
        return Adaptive(routes, problem, remote.measure if remote is not None else None, prepare)

    return Edge(folder, target, chooser=chooser, **options)


def _problem(place: Path, manifest: Manifest, topology: Topology, model: str | Path | None) -> Problem:
    names = tuple(record.tier for record in manifest.slices)
    if topology.names != names:
        raise InputError(
            f"the tiers file has the tiers {', '.join(topology.names)}, the slices are of {', '.join(names)}"
        )
    plan = recorded_plan(manifest)
    whole, bindings = find_model(place, manifest, model), bindings_of(manifest)
    analysis = analysis_of(plan, analyse(whole, bindings, states=manifest.state_pairs, trips=plan.trips))
    # What this client waits for is the answer, wherever the plan left it.
    answered = topology.with_limits(return_output=True)
    # And what it sends are tensors, whatever an encoded input would take, and the plan's files.
    answered = answered.changed(input_nbytes={}, input=(plan.topology or {}).get("input", {}))
    # The slices that were laid down have some codes, and no others.
    laid = [tuple({code for _, code in coded}) or None for coded in Routes(manifest).coded]
    links = (link.changed(codes=codes) for link, codes in zip(answered.links, laid, strict=True))
    answered = answered.changed(links=tuple(links))
    return problem_of(analysis, answered, plan.objective, weights=plan.weights)


def _with_slices(problem: Problem, routes: Routes) -> Problem:
    """The problem with codes only where some link has slices for them."""
    if not problem.costs.codes:
        return problem
    known = frozenset().union(*routes.coded)
    codes = {}
    for name, one in problem.costs.codes.items():
        applies = np.zeros_like(one.applies)
        applies[[at for at, code in known if code == name]] = True
        codes[name] = replace(one, applies=one.applies & applies)
    return replace(problem, costs=replace(problem.costs, codes=codes))


def _faded(planned: Link, seen: LinkState, doubt: Doubt) -> LinkState:
    """What a link is believed to do: as seen, fading to what the plan thought."""
    if (trust := doubt.trust) == 1:
        return seen
    return replace(
        seen,
        bandwidth_mbps=planned.bandwidth_mbps * (seen.bandwidth_mbps / planned.bandwidth_mbps) ** trust,
        delay_ms=planned.delay_ms + trust * (seen.delay_ms - planned.delay_ms),
        spread=seen.spread * trust,
    )


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _positions(routes: Routes) -> list[int]:
    """The positions that slices start or stop at."""
    records = [record for tier in range(len(routes.tiers)) for record in routes.ranges(tier)]
    return sorted({0, routes.size} | {at for record in records for at in (record.start, record.stop)})
