"""A route of a request, and each tier's part of it; `routes` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.serving.tier.cuts import Cuts, format_cuts, positions
from dnnsplit_onnx.slicing.manifest import SliceRecord, StateRecord

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Leg:
    """A tier's part of a route.

    Attributes:
        tier: Counted from 0.
        name: The tier's name.
        record: Its slice, None if it has no work.
        arrives: What comes from below; at tier 0 the model's inputs that are read at all.
        sends: What goes on to the next tier.
        answers: The model's outputs that this tier or one above it makes.
        goes_on: Whether a tier above has work.
        states: What the tier keeps from one request to the next.
        keeps: These states as the model reads them.
        begins: The states that this tier or one above it keeps: a request may bring them.
        own_outputs: What the slice makes for others.
        reads: What the slice reads but for these states.
        renewed: What these states are next, by name.
        handed_on: What arrives and is next what a state is.
        named: What a request may bring, by name.
    """

    tier: int
    name: str
    record: SliceRecord | None
    arrives: tuple[Port, ...]
    sends: tuple[Port, ...]
    answers: tuple[Port, ...]
    goes_on: bool
    states: tuple[StateRecord, ...] = ()
    keeps: tuple[Port, ...] = ()
    begins: tuple[Port, ...] = ()
    own_outputs: tuple[Port, ...] = ()
    # What follows from these, found once and not with each request.
    reads: tuple[Port, ...] = field(init=False, compare=False, repr=False)
    renewed: frozenset[str] = field(init=False, compare=False, repr=False)
    handed_on: tuple[Port, ...] = field(init=False, compare=False, repr=False)
    named: dict[str, Port] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        kept = {port.name for port in self.keeps}
        renewed = frozenset(state.output for state in self.states if state.output is not None)
        inputs = () if self.record is None else self.record.inputs
        object.__setattr__(self, "named", {port.name: port for port in (*self.begins, *self.arrives)})
        object.__setattr__(self, "reads", tuple(port for port in inputs if port.name not in kept))
        object.__setattr__(self, "renewed", renewed)
        object.__setattr__(self, "handed_on", tuple(p for p in self.arrives if p.name in renewed))


@dataclass(frozen=True, slots=True)
class Route:
    """One leg a tier.

    Attributes:
        cuts: Where each link is cut, with its code where that is not the plan's.
        legs: From tier 0 up.
        tile: The file of the one tile that is asked for, in place of all else.
        until: The tiers from this one up are the client's own; None if there are none.
        text: The cuts as they travel.
        words: The tier that has all the work, `all on edge`, else the cuts.
        links: How many links, counted from tier 0, it uses.
    """

    cuts: Cuts
    legs: tuple[Leg, ...]
    tile: str | None = None
    until: int | None = None
    text: str = field(init=False, compare=False)
    words: str = field(init=False, compare=False)
    links: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        text, busy = format_cuts(self.cuts), [leg.name for leg in self.legs if leg.record is not None]
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "words", f"all on {busy[0]}" if len(busy) == 1 else text)
        object.__setattr__(self, "links", sum(leg.goes_on for leg in self.legs))

    def sent(self, tier: int, live: Mapping[str, _Value]) -> dict[str, _Value | None]:
        """Of some values, those that a tier sends on, and the states that are brought for tiers above."""
        leg, above = self.legs[tier], self.legs[tier + 1]
        brought = {port.name: live[port.name] for port in above.begins if port.name in live}
        return {port.name: live.get(port.name) for port in leg.sends} | brought

    @property
    def positions(self) -> tuple[int, ...]:
        """The position that each link crosses."""
        return positions(self.cuts)
