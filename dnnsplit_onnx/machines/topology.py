"""The machines and links a model may run on, made in Python or read from a tiers file.

    machines = Topology(
        tiers=[Tier("edge", gflops=13.5), Tier("cloud", gflops=19500)],
        links=[Link(bandwidth_mbps=50, delay_ms=10)],
    )
    slower = machines.with_link(0, bandwidth_mbps=5)

Tiers stand in a line: tier 0 is where the input data is born, link i joins tier i to tier
i + 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, model_validator

from dnnsplit_onnx.errors import TopologyError, close_names
from dnnsplit_onnx.machines.inputs import InputCode
from dnnsplit_onnx.machines.tables import LARGEST, NotNegative, Positive, Table
from dnnsplit_onnx.machines.tiers import Tier, hands_out, keeps_data

_MOST_TIERS = 1024
#: What a workload says of the lengths and the number of texts.
TEXT_LENGTHS = ("prompt_tokens", "new_tokens", "conversations", "prefill_chunk")
_OF_TEXTS = (
    *(*TEXT_LENGTHS[1:], "head", "tokens_dim", "past_dim"),
    *("draft_ms", "draft_tokens", "draft_accepts"),
)
_MOST_TOKENS = 1 << 24
_MOST_DRAFTS = 256


class Link(Table):
    """What joins a tier to the next.

    Attributes:
        bandwidth_mbps: 10^6 bit/s away from tier 0.
        down_mbps: 10^6 bit/s towards tier 0, if it differs.
        delay_ms: One-way delay, paid once per request and direction if anything crosses.
        usd_per_hour: Price of a second of transfer, times 3600.
        usd_per_gb: Price of 10^9 bytes, in place of `usd_per_hour`.
        watts: Power while it transfers.
        max_mb: Most that a request may send, each way, 10^6 bytes.
        codes: How values may be written for it, besides `raw`: `fp16`, `uint8-channel`, `uint8`,
            and `packed` on top of any of them.
    """

    key: ClassVar[str] = "link"

    bandwidth_mbps: Positive
    down_mbps: Positive | None = None
    delay_ms: NotNegative = 0.0
    usd_per_hour: NotNegative | None = None
    usd_per_gb: NotNegative | None = None
    watts: NotNegative | None = None
    max_mb: NotNegative | None = None
    codes: tuple[Literal["raw", "packed", "fp16", "uint8-channel", "uint8"], ...] | None = None

    @model_validator(mode="after")
    def _one_price(self) -> Link:
        if self.usd_per_hour is not None and self.usd_per_gb is not None:
            raise ValueError("give `usd_per_hour` or `usd_per_gb`, not both")
        return self


class Limits(Table):
    """What a plan must keep to.

    Attributes:
        deadline_ms: Latency may not exceed it.
        budget_usd: Cost of a request may not exceed it.
        energy_j: Energy of a request may not exceed it.
        throughput_per_s: So many requests per second, at least, must be sustained.
        ttft_ms: The first token of a text may not take longer; for a workload of texts.
        tpot_ms: Nor may each token after it.
        return_output: Whether model outputs must come back to tier 0; if nothing is said, those
            of models with states do: what they make is read to ask for more.
        private_until: A node, or a value by the node that makes it: what leaves the private
            tiers may depend on the model's inputs through it alone. Without it, nothing
            may leave them.
    """

    key: ClassVar[str] = "limits"

    deadline_ms: Positive | None = None
    budget_usd: NotNegative | None = None
    energy_j: Positive | None = None
    throughput_per_s: Positive | None = None
    ttft_ms: Positive | None = None
    tpot_ms: Positive | None = None
    return_output: bool | None = None
    private_until: str | None = None

    @property
    def returns(self) -> bool:
        """Whether model outputs come back to tier 0, as far as it is said."""
        return bool(self.return_output)


class Workload(Table):
    """What is asked of the machines.

    Attributes:
        requests_per_s: Requests that all clients together offer; waiting is then part of
            latency (`planning.waiting`), and a plan must sustain the rate.
        clients: Equal machines of tier 0, each with a link 0 of its own, that share the tiers
            above.
        prompt_tokens: A request is a whole text: a pass over a prompt of so many tokens, then a
            pass for each new token but the first (`work.texts`).
        new_tokens: How many tokens are made of each prompt.
        conversations: Texts whose caches are kept at a time.
        prefill_chunk: The prompt is read in passes of at most so many tokens.
        head: What returns of the logits in each pass: `full`, those of all its tokens; `last`, those of the
            last one; `argmax`, a token's number; `topk:K`, the K best and their numbers.
        tokens_dim: The dimension that counts the tokens of a pass, where no name tells it.
        past_dim: The dimension that counts those in the caches.
        draft_ms: What a small model on tier 0 takes to draft a token: plans say what drafting would
            gain (`planning.drafting`).
        draft_tokens: How many are drafted before a pass checks them.
        draft_accepts: The share of drafts that is accepted.
    """

    key: ClassVar[str] = "workload"

    requests_per_s: Positive | None = None
    clients: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    prompt_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] | None = None
    new_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] = 1
    conversations: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    prefill_chunk: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] | None = None
    head: Annotated[str, Field(pattern=r"^(full|last|argmax|topk:[1-9][0-9]{0,5})$")] = "full"
    tokens_dim: str | None = None
    past_dim: str | None = None
    draft_ms: Positive | None = None
    draft_tokens: Annotated[int, Field(ge=1, le=_MOST_DRAFTS)] = 4
    draft_accepts: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.7

    @model_validator(mode="after")
    def _is_of_texts(self) -> Workload:
        fields = type(self).model_fields
        given = [name for name in _OF_TEXTS if getattr(self, name) != fields[name].default]
        if self.prompt_tokens is None and given:
            raise ValueError(f"`{given[0]}` is of texts: give `prompt_tokens`, too")
        return self

    @property
    def has_texts(self) -> bool:
        """Whether a request is a whole text, and not one run."""
        return self.prompt_tokens is not None


class Topology(Table):
    """Tiers in a line, the links between them, the limits and the workload.

    Attributes:
        input: Inputs that are pictures, by name: as what they cross links.
        input_nbytes: Bytes that a model input takes on a link, by its name, in place of its
            tensor's: those of a JPEG, say, or of uint8 samples that a model reads as floats.
            Whatever runs the plan must encode and decode it; the runtime of this package
            sends tensors as they are, so the figures are then what an encoded input would
            take. Memory holds the tensor in any case.
    """

    key: ClassVar[str] = ""

    tiers: Annotated[tuple[Tier, ...], Field(min_length=1, max_length=_MOST_TIERS, alias="tier")]
    links: Annotated[tuple[Link, ...], Field(alias="link")] = ()
    limits: Limits = Limits()
    workload: Workload = Workload()
    input_nbytes: dict[str, Annotated[int, Field(gt=0, le=LARGEST)]] = Field(default_factory=dict)
    input: dict[str, InputCode] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self) -> Topology:
        for name, count in Counter(tier.name.lower() for tier in self.tiers).items():
            if count > 1:
                raise ValueError(f"two tiers are named `{name}`")
        for tier in self.tiers[1:]:
            if len(tier.machines) > 1:
                raise ValueError(
                    f"tier `{tier.name}` has {len(tier.machines)} machines: "
                    "the lowest tier alone can divide rows among several; here say `replicas`"
                )
            if keeps_data(tier) and hands_out(self.tiers[0]):
                raise ValueError(
                    f"tier `{tier.name}` is private, and so are those below it: data may not travel to the "
                    f"other machines of `{self.tiers[0].name}`: say `trusted = true` in [tier.lan], or "
                    "name one machine"
                )
        self._check_inputs()
        if len(self.links) != len(self.tiers) - 1:
            need = len(self.tiers) - 1
            tiers = f"{len(self.tiers)} tier{'s' if need else ''}"
            links = f"{need} link{'s' if need != 1 else ''}" if need else "no link"
            raise ValueError(
                f"{tiers} need{'' if need else 's'} {links} between them; there are {len(self.links)}"
            )
        return self

    def _check_inputs(self) -> None:
        for name, one in self.input.items():
            if name in self.input_nbytes:
                raise ValueError(f"input `{name}` has a code, and `input_nbytes`")
            for tier in one.decode_ms:
                if tier not in self.names:
                    raise ValueError(f"`decode_ms` of input `{name}` names `{tier}`, which is no tier")
            if one.is_file and len(self.tiers[0].machines) > 1:
                raise ValueError(
                    f"input `{name}` travels as a {one.code} file, which several machines of one tier do not "
                    "share: take `uint8-image`, or name one machine"
                )

    @property
    def files(self) -> dict[str, InputCode]:
        """The inputs that cross links as files of pictures."""
        return {name: one for name, one in self.input.items() if one.is_file}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tiers."""
        return tuple(tier.name for tier in self.tiers)

    @property
    def tier_watts(self) -> tuple[float | None, ...]:
        """What all tiers draw while each computes: its watts, and the idle watts of the others."""
        idle = sum(Fraction(tier.idle_watts) for tier in self.tiers)
        return tuple(_together(tier.watts, idle - Fraction(tier.idle_watts)) for tier in self.tiers)

    @property
    def link_watts(self) -> tuple[float | None, ...]:
        """What is drawn while each link transfers: its watts, and the idle watts of all tiers."""
        idle = sum(Fraction(tier.idle_watts) for tier in self.tiers)
        return tuple(_together(link.watts, idle) for link in self.links)

    def with_tier(self, tier: str | int, **fields: Any) -> Topology:
        """The same topology with some fields of a tier replaced.

        Args:
            tier: Its name, or its place from 0.
            fields: As `Tier` takes them.

        Raises:
            TopologyError: There is no such tier or field, or its value is impossible.
        """
        at = self._place_of(tier)
        row = _changed(self.tiers[at], f"tier.{at}", fields)
        return self.changed(tiers=(*self.tiers[:at], row, *self.tiers[at + 1 :]))

    def with_link(self, link: int, **fields: Any) -> Topology:
        """The same topology with some fields of a link replaced.

        Args:
            link: Its place: link i joins tier i to tier i + 1.
            fields: As `Link` takes them.

        Raises:
            TopologyError: There is no such link or field, or its value is impossible.
        """
        if not _is_place(link, len(self.links)):
            raise TopologyError(f"no link {link!r}: there are {len(self.links)}", hint="links count from 0")
        row = _changed(self.links[link], f"link.{link}", fields)
        return self.changed(links=(*self.links[:link], row, *self.links[link + 1 :]))

    def with_limits(self, **fields: Any) -> Topology:
        """The same topology with some limits replaced; None takes a limit away.

        Raises:
            TopologyError: There is no such limit, or its value is impossible.
        """
        return self.changed(limits=_changed(self.limits, "limits", fields))

    def with_workload(self, **fields: Any) -> Topology:
        """The same topology with another workload; None takes a rate away.

        Raises:
            TopologyError: There is no such field, or its value is impossible.
        """
        return self.changed(workload=_changed(self.workload, "workload", fields))

    def with_codes(self, codes: Iterable[str]) -> Topology:
        """The same topology, these codes allowed on every link that says nothing of codes.

        Raises:
            TopologyError: One is no code.
        """
        allowed = tuple(codes)
        links = tuple(
            _changed(link, f"link.{at}", {"codes": allowed}) if link.codes is None else link
            for at, link in enumerate(self.links)
        )
        return self.changed(links=links)

    def _place_of(self, tier: str | int) -> int:
        if isinstance(tier, str) and tier in self.names:
            return self.names.index(tier)
        if not isinstance(tier, str) and _is_place(tier, len(self.tiers)):
            return tier
        close = close_names(tier, self.names, n=1) if isinstance(tier, str) else ()
        hint = f"did you mean `{close[0]}`?" if close else f"the tiers are {', '.join(self.names)}"
        raise TopologyError(f"no tier {tier!r}", hint=hint)

    def __repr__(self) -> str:
        parts = [self.names[0]]
        for link, name in zip(self.links, self.names[1:], strict=True):
            parts += [f"{link.bandwidth_mbps:g} Mbit/s", name]
        return f"<Topology {' - '.join(parts)}>"

    __str__ = __repr__


def _together(watts: float | None, idle: Fraction | int) -> float | None:
    """Both powers, correctly rounded; unknown where the first is."""
    return None if watts is None else float(Fraction(watts) + idle)


def _is_place(at: object, count: int) -> bool:
    return isinstance(at, int) and not isinstance(at, bool) and 0 <= at < count


_T = TypeVar("_T", bound=Table)


def _changed(table: _T, source: str, fields: Mapping[str, Any]) -> _T:
    try:
        return table.changed(**fields)
    except TopologyError as error:
        error.args = (message := f"{source}: {error.message.partition(': ')[2]}",)
        error.message = message
        raise
