"""A tier: a kind of machine, or several machines that share the rows of its stage."""

from __future__ import annotations

import math
from collections import Counter
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from dnnsplit_onnx.machines.predictors import Predictor
from dnnsplit_onnx.machines.profiles import Profile
from dnnsplit_onnx.machines.providers import Provider
from dnnsplit_onnx.machines.tables import Name, NotNegative, Positive, Table

#: Options of a provider, by the names that onnxruntime has for them.
ProviderOptions = dict[Annotated[str, Field(min_length=1, max_length=128)], str | bool | int | float]

_MOST_MACHINES = 64
_SECONDS_PER_HOUR = 3600.0


class Machine(Table):
    """One of several machines that share the rows of a tier's stage.

    Attributes:
        name: Of the machine; the first of a tier takes the requests.
        gflops: As for a tier.
        memory_gb_per_s: As for a tier.
        overhead_us: As for a tier.
        profile: As for a tier: what was measured or is predicted on this machine.
    """

    key: ClassVar[str] = "machine"

    name: Name
    gflops: Positive | None = None
    memory_gb_per_s: Positive | None = None
    overhead_us: NotNegative = 0.0
    profile: str | SkipJsonSchema[Profile | Predictor] | None = None


class Lan(Table):
    """What joins the machines of a tier: each sends and receives at this rate.

    Attributes:
        bandwidth_mbps: 10^6 bit/s, each way.
        delay_ms: One-way delay, paid once for what a machine is sent and once for its answer.
        trusted: Whether private data may travel on it.
    """

    key: ClassVar[str] = "lan"

    bandwidth_mbps: Positive
    delay_ms: NotNegative = 0.0
    trusted: bool = False


class Tier(Table):
    """A kind of machine.

    Attributes:
        name: Also the name of its folder of slices.
        gflops: Effective compute, 10^9 FLOP/s.
        memory_gb_per_s: Memory bandwidth, 10^9 byte/s; with `gflops` it makes a roofline.
        overhead_us: Fixed time of each node, on top of the roofline.
        profile: A measured profile in place of these, or a predictor that was fitted on other
            models: its file, named relative to the tiers file, or the object itself.
        usd_per_hour: What a second of its compute costs, times 3600.
        memory_gb: Limit on weights plus peak live values, 10^9 bytes.
        watts: Power while it computes.
        idle_watts: Power while it waits for other tiers and links of the same request.
        provider: The onnxruntime execution provider.
        provider_options: Its options, by the names that onnxruntime has for them.
        pin: Nodes, or values by the node that makes them, that must run on this tier.
        min_prefix: At least so many of the model's first nodes run on this tier or below.
        max_prefix: At most so many do.
        private: Whether data must stay here until `limits.private_until` has run. Tiers
            below a private one are private too, since the data comes from them.
        machines: Machines that share the stage, each computing some rows; the lowest tier
            alone can have them. They have the speeds, and the tier has none of its own.
        lan: What joins them.
        private_inputs: The same for some of the model's inputs, by their names.
        replicas: Equal machines behind one address: capacity and price times as many.
        usd_per_request: What a request that runs anything here costs besides.
        custom_ops: Libraries of operators that its slice needs: `onnxruntime-extensions`, or
            files, named relative to the tiers file.
    """

    key: ClassVar[str] = "tier"

    name: Name
    gflops: Positive | None = None
    memory_gb_per_s: Positive | None = None
    overhead_us: NotNegative = 0.0
    profile: str | SkipJsonSchema[Profile | Predictor] | None = None
    usd_per_hour: NotNegative = 0.0
    memory_gb: Positive | None = None
    watts: NotNegative | None = None
    idle_watts: NotNegative = 0.0
    provider: Provider = "cpu"
    provider_options: ProviderOptions = Field(default_factory=dict)
    pin: tuple[str, ...] = ()
    min_prefix: Annotated[int, Field(ge=0)] | None = None
    max_prefix: Annotated[int, Field(ge=0)] | None = None
    private: bool = False
    machines: Annotated[tuple[Machine, ...], Field(alias="machine", max_length=_MOST_MACHINES)] = ()
    lan: Lan | None = None
    private_inputs: tuple[str, ...] = ()
    replicas: Annotated[int, Field(ge=1, le=10_000)] = 1
    usd_per_request: NotNegative = 0.0
    custom_ops: tuple[str, ...] = ()

    def __init__(self, /, name: str | None = None, **fields: Any) -> None:
        super().__init__(**({} if name is None else {"name": name}), **fields)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @model_validator(mode="after")
    def _one_speed(self) -> Tier:
        if self.machines:
            self._check_machines()
            return self
        if self.lan is not None:
            raise ValueError("a `lan` joins machines, and the tier names none: add [[tier.machine]]")
        if (self.gflops is None) == (self.profile is None):
            raise ValueError("give `gflops` (with a roofline, if you like) or `profile`, one of the two")
        if self.profile is not None and (self.memory_gb_per_s is not None or self.overhead_us):
            raise ValueError("a measured `profile` leaves no room for `memory_gb_per_s` and `overhead_us`")
        return self

    def _check_machines(self) -> None:
        if self.gflops is not None or self.profile is not None or self.memory_gb_per_s is not None:
            raise ValueError("its machines have the speeds: take the tier's own away")
        for name, count in Counter(machine.name.lower() for machine in self.machines).items():
            if count > 1:
                raise ValueError(f"two of its machines are named `{name}`: give each a name of its own")
        for machine in self.machines:
            if (machine.gflops is None) == (machine.profile is None):
                raise ValueError(f"machine `{machine.name}`: give `gflops` or `profile`, one of the two")
        if len(self.machines) > 1 and self.lan is None:
            raise ValueError(
                "several machines need a [tier.lan] between them: its bandwidth_mbps and delay_ms"
            )
        if keeps_data(self) and hands_out(self):
            raise ValueError(
                "a private tier's data may not travel to its other machines: "
                "say `trusted = true` in [tier.lan], or name one machine"
            )

    @property
    def singles(self) -> tuple[Tier, ...]:
        """Each of its machines as a tier of one machine; itself where it names none."""
        if not self.machines:
            return (self,)
        return tuple(
            Tier(
                machine.name,
                gflops=machine.gflops,
                memory_gb_per_s=machine.memory_gb_per_s,
                overhead_us=machine.overhead_us,
                profile=machine.profile,
                provider=self.provider,
                provider_options=self.provider_options,
            )
            for machine in self.machines
        )

    @property
    def cost_model(self) -> str:
        """Where its seconds come from: `gflops`, `roofline` or `profile`."""
        if self.machines:
            return self.singles[0].cost_model
        if self.profile is not None:
            return "profile"
        return "roofline" if self.memory_gb_per_s is not None or self.overhead_us else "gflops"

    @property
    def usd_per_s(self) -> float:
        """Price of a second of compute: all replicas are paid for."""
        return self.usd_per_hour / _SECONDS_PER_HOUR * self.replicas

    @property
    def memory_nbytes(self) -> float:
        """The limit on memory in whole bytes, infinite if there is none."""
        if self.memory_gb is None:
            return math.inf
        nbytes = math.floor(self.memory_gb * 1e9) + 1
        while nbytes / 1e9 > self.memory_gb:  # so that a limit copied from a report is met exactly
            nbytes -= 1
        return nbytes


def keeps_data(tier: Tier) -> bool:
    """Whether some data must stay on a tier and those below."""
    return tier.private or bool(tier.private_inputs)


def hands_out(tier: Tier) -> bool:
    """Whether rows travel between its machines on a LAN that private data may not use."""
    return len(tier.machines) > 1 and tier.lan is not None and not tier.lan.trusted
