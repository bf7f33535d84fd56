"""What the objective `weighted` weighs: seconds, USD and joules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from dnnsplit_onnx.errors import InputError


@dataclass(frozen=True, slots=True)
class Weights:
    """What the objective `weighted` is: latency, cost and energy, each times a weight, added.

    Only the ratio of weights matters to a plan; those of each second, dollar and joule that
    a request takes make the sum a figure that can be compared.

    Attributes:
        latency: Weight of a second.
        cost: Weight of a USD.
        energy: Weight of a joule; 0 leaves unknown energies out of the matter.
    """

    latency: float = 0.0
    cost: float = 0.0
    energy: float = 0.0

    def __post_init__(self) -> None:
        for name, weight in self.to_dict().items():
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise InputError(f"the weight of {name} is {weight!r}", hint="give a number")
            try:
                number = float(weight)
            except OverflowError:  # whole numbers have no end
                number = math.inf
            if not (math.isfinite(number) and number >= 0):
                raise InputError(f"the weight of {name} is {number:g}", hint="give 0 or more")
            object.__setattr__(self, name, number)
        if not any(self.to_dict().values()):
            raise InputError("every weight is 0", hint="such as latency=1 and cost=1000")

    @classmethod
    def of(cls, weights: Mapping[str, float]) -> Weights:
        """Weights by the names of their figures.

        Raises:
            InputError: A name is none of them, or a weight is no number from 0 up.
        """
        known = [field.name for field in fields(cls)]
        for name in weights:
            if name not in known:
                raise InputError(f"no weight is named `{name}`", hint=f"known weights: {', '.join(known)}")
        return cls(**weights)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Weights:
        """Weights from `NAME=WEIGHT`, as a command line has them.

        Raises:
            InputError: A text has another form, names no figure, or one twice.
        """
        found: dict[str, float] = {}
        for text in texts:
            name, equals, number = text.partition("=")
            try:
                weight = float(number)
            except ValueError:
                equals = ""
            if not equals:
                raise InputError(f"cannot read the weight `{text}`", hint="write it as in cost=1000")
            if name in found:
                raise InputError(f"two weights are given for {name}")
            found[name] = weight
        return cls.of(found)

    def to_dict(self) -> dict[str, float]:
        """The weights by name."""
        return {"latency": self.latency, "cost": self.cost, "energy": self.energy}
