"""What a request passes on its way up, for any cuts that there are slices for.

A request names its cuts (`cuts`): one position a link, and the code of what crosses where that is
not the plan's. From those and the manifest alone, every tier knows which slice it runs, what arrives
from below, what it sends on, and which of the model's outputs it answers with:

    arrives at t  =  what t reads, and what tiers above t read and neither t nor they make
    answers of t  =  the model's outputs that t or a tier above it makes

States are neither: the tiers that read one keep it from request to request. What it is next
arrives where another tier makes it, or where it is an input of the model; and a request may
bring what it is now, which the first must for one that stays for the whole sequence:

    begins at t   =  the states that t, or a tier above it, keeps

A client that is itself the last tier, as a page may be, asks for the tiers below it alone
(`until`): they answer with what it reads as well, and keep no states but their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import cached_property
from itertools import pairwise

from dnnsplit_onnx.errors import ManifestError
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.serving.tier.cuts import Cuts, ends_of, format_cuts, planned_codes, positions
from dnnsplit_onnx.serving.tier.legs import Leg, Route
from dnnsplit_onnx.serving.wire.datatypes import BY_ONNX, fixed_nbytes
from dnnsplit_onnx.serving.wire.errors import ProtocolError
from dnnsplit_onnx.slicing.manifest import Manifest, SliceRecord, StateRecord
from dnnsplit_onnx.work.codes import RAW

_MOST_ROUTES = 4096


class Routes:
    """The routes of a manifest.

    Args:
        manifest: What was cut.

    Raises:
        ManifestError: A value is of a type that cannot travel, or a tier reads what no
            lower tier makes.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.identity = identity(manifest)
        self.tiers = tuple(record.tier for record in manifest.slices)
        self.size = manifest.slices[-1].stop
        self.cuts = tuple(record.stop for record in manifest.slices[:-1])
        self._codes = planned_codes(manifest)
        self._records = {
            (record.tier, record.start, record.stop, *ends_of(record)): record
            for record in (*manifest.candidates, *manifest.slices)
        }
        self._ports = _ports(manifest, self._records.values())
        self._states = {state.input: state for state in manifest.states}
        self._next = {state.output for state in manifest.states}
        self._routes: dict[tuple[Cuts, int | None], Route] = {}
        self._lacking: set[Cuts] = set()
        self.default = self.route(self.cuts)

    @cached_property
    def states(self) -> tuple[Port, ...]:
        """All states, as the model reads them."""
        return tuple(port for port in self.manifest.model.inputs if port.name in self._states)

    @cached_property
    def fresh(self) -> tuple[Port, ...]:
        """The model's inputs that a request brings."""
        return self.manifest.fresh_inputs

    @cached_property
    def results(self) -> tuple[Port, ...]:
        """The model's outputs that a request is about."""
        return self.manifest.results

    @cached_property
    def brought(self) -> frozenset[str]:
        """Names of the states that a request may bring among its inputs: those that stay for a sequence."""
        return frozenset(port.name for port in self.manifest.staying_inputs)

    @cached_property
    def staying(self) -> tuple[Port, ...]:
        """The states that stay for a whole sequence, and that a slice reads."""
        kept = {s.input for r in self.manifest.slices for s in self.kept(r) if s.output is None}
        return tuple(port for port in self.states if port.name in kept)

    def route(self, cuts: Cuts, until: int | None = None) -> Route:
        """The route of some cuts.

        Args:
            cuts: Where each link is cut; a position alone stands for the code that the plan has there.
            until: The tiers from this one up are the client's own; None if there are none.

        Raises:
            ProtocolError: They are no cuts of this model, or there is no slice for a range.
        """
        found = self._routes.get((cuts, until))
        if found is None:
            key = self.shortest(cuts), until
            found = self._routes.get(key) or self._make(*key)
            if len(self._routes) >= _MOST_ROUTES:
                self._routes.clear()
            self._routes[key] = self._routes[cuts, until] = found
        return found

    def shortest(self, cuts: Cuts) -> Cuts:
        """The same cuts, without the codes that go without saying."""
        codes, places = self.codes(cuts), positions(cuts)
        plain = self.codes(places)
        return tuple(
            place if code == known else (place, code)
            for place, code, known in zip(places, codes, plain, strict=True)
        )

    def codes(self, cuts: Cuts) -> tuple[str, ...]:
        """The code of each link: what is said, or what the plan has at that cut.

        Raises:
            ProtocolError: They are not one a link.
        """
        if len(cuts) != len(self.cuts):
            raise ProtocolError(f"{format_cuts(cuts)} are no cuts of this model over {len(self.tiers)} tiers")
        planned = zip(self.cuts, self._codes, strict=True)
        return tuple(
            cut[1] if not isinstance(cut, int) else code if cut == place else RAW
            for cut, (place, code) in zip(cuts, planned, strict=True)
        )

    @cached_property
    def coded(self) -> tuple[frozenset[tuple[int, str]], ...]:
        """The cuts and codes, `raw` apart, that each link has slices for."""
        ends = [(name, (stop, above)) for name, _, stop, _, above in self._records if above != RAW]
        return tuple(frozenset(end for name, end in ends if name == tier) for tier in self.tiers[:-1])

    def tile(self, tier: int, file: str) -> Route:
        """The route of one tile of the plan's slice of a tier.

        Raises:
            ProtocolError: There is no such tile.
        """
        record = self.manifest.slices[tier]
        tile = next((tile for tile in record.tiles if tile.file == file), None)
        if tile is None:
            raise ProtocolError(f"tier `{record.tier}` has no tile `{file[:200]}`", status=404)
        leg = Leg(tier, record.tier, record.of_tile(tile), tile.inputs, (), tile.assemble, goes_on=False)
        legs = (*self.default.legs[:tier], leg, *self.default.legs[tier + 1 :])
        return Route(self.cuts, legs, file)

    def check_identity(self, theirs: object, name: str) -> None:
        """Refuses a sender whose slices were not cut as these were.

        Args:
            theirs: The identity of the sender's manifest.
            name: This tier's.

        Raises:
            ProtocolError: They are others (409).
        """
        if theirs != self.identity:
            raise ProtocolError(f"tier `{name}` has slices of another manifest than the sender", status=409)

    def describe(self, cuts: Cuts) -> str:
        """Cuts in words: `all on edge` where one tier has all the work, else the positions."""
        return self.route(cuts).words

    def has(self, cuts: Cuts) -> bool:
        """Whether there are slices for some cuts."""
        if cuts in self._lacking:  # each request asks what could do without the tiers above
            return False
        try:
            self.route(cuts)
        except ProtocolError:
            if len(self._lacking) >= _MOST_ROUTES:
                self._lacking.clear()
            self._lacking.add(cuts)
            return False
        return True

    def ranges(self, tier: int) -> tuple[SliceRecord, ...]:
        """All slices of a tier."""
        return tuple(
            record
            for (name, *_), record in self._records.items()
            if name == self.tiers[tier] and record.file is not None
        )

    def most_nbytes(self, tier: int) -> int | None:
        """The bytes of all that may ever arrive at a tier; None if something has no fixed size."""
        records = (record for at in range(tier, len(self.tiers)) for record in self.ranges(at))
        names = {port.name for record in records for port in (*record.inputs, *self._arriving(record))}
        sizes = [fixed_nbytes(self._ports[name]) for name in names]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def _make(self, cuts: Cuts, until: int | None) -> Route:
        bounds, codes = (0, *positions(cuts), self.size), (RAW, *self.codes(cuts), RAW)
        if any(low > high for low, high in pairwise(bounds)):
            raise ProtocolError(f"{format_cuts(cuts)} are no cuts of this model over {len(self.tiers)} tiers")
        ends = zip(pairwise(bounds), pairwise(codes), strict=True)
        records = [self._record(tier, *between) for tier, between in enumerate(ends)]
        legs: list[Leg] = []
        needed: dict[str, None] = {}
        begins: dict[str, None] = {}
        asked: dict[str, None] = {}  # what the client's own tiers read of what is made below
        answers: set[str] = set()
        owner: dict[str, int] = {}  # who makes an output; above, one that crosses in a code is made again
        for tier, record in enumerate(records):
            for port in record.outputs if record is not None else ():
                owner.setdefault(port.name, tier)
        for tier in reversed(range(len(self.tiers))):
            if tier + 1 == until:
                asked, needed, begins, answers = needed, {}, {}, set()
            record, sends = records[tier], tuple(needed)
            if record is not None:
                made = {port.name for port in record.outputs}
                needed = self.reads(record) | {name: None for name in needed if name not in made}
                answers.update(name for name in made - self._next if owner[name] == tier)
                answers.update(made & asked.keys())
                begins = {state.input: None for state in self.kept(record)} | begins
            leg = self._leg(tier, record, needed, sends, begins, asked)
            returned = tuple(port for port in self._answering(asked) if port.name in answers)
            legs.insert(0, replace(leg, answers=returned, goes_on=any(records[tier + 1 : until])))
        self._check(legs[0])
        return Route(cuts, tuple(legs), until=until)

    def _answering(self, asked: Collection[str]) -> tuple[Port, ...]:
        """What tiers may answer with: the model's outputs, and what a client reads besides."""
        outputs = self.manifest.model.outputs
        names = {port.name for port in outputs}
        return (*outputs, *self._named(name for name in asked if name not in names))

    def _leg(
        self,
        tier: int,
        record: SliceRecord | None,
        arrives: Iterable[str],
        sends: Collection[str],
        begins: Iterable[str],
        asked: Collection[str],
    ) -> Leg:
        """A leg by what passes its ends, without answers."""
        states = self.kept(record)
        outputs = record.outputs if record is not None else ()
        return Leg(
            tier,
            self.tiers[tier],
            record,
            arrives=self._named(arrives),
            sends=self._named(sends),
            answers=(),
            goes_on=False,
            states=states,
            keeps=self._named(state.input for state in states),
            begins=self._named(begins),
            own_outputs=tuple(
                p for p in outputs if p.name not in self._next or p.name in sends or p.name in asked
            ),
        )

    def _named(self, names: Iterable[str]) -> tuple[Port, ...]:
        return tuple(self._ports[name] for name in names)

    def reads(self, record: SliceRecord) -> dict[str, None]:
        """What a slice needs of others: what it reads but states, and what these are next."""
        made = {port.name for port in record.outputs}
        names = [port.name for port in record.inputs if port.name not in self._states]
        names += [port.name for port in self._arriving(record) if port.name not in made]
        return dict.fromkeys(names)

    def kept(self, record: SliceRecord | None) -> tuple[StateRecord, ...]:
        """The states that a tier keeps for its slice: that it reads, or that are handed to one of these."""
        left = [port.name for port in record.inputs if port.name in self._states] if record else []
        kept: dict[str, StateRecord] = {}
        while left:
            state = self._states[left.pop()]
            kept[state.input] = state
            if state.output in self._states and state.output not in kept:
                left.append(state.output)
        return tuple(state for state in self.manifest.states if state.input in kept)

    def _arriving(self, record: SliceRecord) -> tuple[Port, ...]:
        """What the states of a slice are next, where no state of it is that."""
        names = (state.output for state in self.kept(record) if state.output is not None)
        return tuple(self._ports[name] for name in names if name not in self._states)

    def _record(self, tier: int, span: tuple[int, int], codes: tuple[str, str]) -> SliceRecord | None:
        (start, stop), (below, above) = span, codes
        found = self._records.get((self.tiers[tier], start, stop, below, above))
        if found is None and start == stop and below == above:
            return None
        if found is None:
            coded = "" if below == above == RAW else f" that reads {below} and writes {above}"
            raise ProtocolError(
                f"tier `{self.tiers[tier]}` has no slice of nodes {start} to {stop}{coded}",
                status=404,
                hint="lay down the slices of all candidate cuts: split --all-candidates",
            )
        # Nodes that nothing needs make no slice either.
        return found if found.file is not None else None

    def _check(self, lowest: Leg) -> None:
        inputs = {port.name for port in self.manifest.model.inputs}
        for port in lowest.arrives:
            if port.name not in inputs:
                raise ManifestError(
                    f"value `{port.name}` is read, and no lower tier makes it", hint="run `split` again"
                )


def identity(manifest: Manifest) -> str:
    """What two tiers must have in common: the model and all slices, not where they lie."""
    content = manifest.model_dump(mode="json", include={"slices", "candidates"})
    content["model"] = manifest.model.sha256
    for record in (*content["slices"], *content["candidates"]):  # as earlier releases have them
        record.update({"sha256": None} | record.pop("digests"))
        for data in record["data"]:
            data.update(data.pop("digests"))
        if not record["tiles"]:
            del record["tiles"]
    if manifest.states:
        content["states"] = manifest.state_pairs
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _ports(manifest: Manifest, records: Iterable[SliceRecord]) -> dict[str, Port]:
    """The port of every value that may travel."""
    found: dict[str, Port] = {}
    for record in records:
        of_tiles = (port for tile in record.tiles for port in (*tile.inputs, *tile.assemble))
        for port in (*record.inputs, *record.outputs, *of_tiles):
            found.setdefault(port.name, port)
    for port in (*manifest.model.inputs, *manifest.model.outputs):
        found[port.name] = port
    for port in found.values():
        if port.kind not in ("tensor", "optional") or port.dtype not in BY_ONNX:
            what = (
                port.kind
                if port.kind not in ("tensor", "optional")
                else f"tensor of {port.dtype or 'unknown type'}"
            )
            raise ManifestError(
                f"value `{port.name}` is a {what}, which the Open Inference Protocol cannot carry",
                hint="cut elsewhere: split --at",
            )
    return found
