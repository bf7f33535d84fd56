"""The conditions of a plan as options: machines, limits, and what is to be best."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dnnsplit_onnx.cli import completion
from dnnsplit_onnx.cli.devices import DeviceOptions
from dnnsplit_onnx.cli.options import Agreement, ModelOptions, Samples, Tolerance
from dnnsplit_onnx.errors import InputError

if TYPE_CHECKING:
    from dnnsplit_onnx.machines.topology import Topology
    from dnnsplit_onnx.measuring.judging import Judge
    from dnnsplit_onnx.planning.weights import Weights
    from dnnsplit_onnx.work.analysis import Analysis

Aim = Literal["latency", "cost", "throughput", "energy", "weighted", "ttft", "tpot"]

_TEXTS = ("prompt_tokens", "new_tokens", "conversations")


@dataclass(frozen=True, kw_only=True)
class ConditionOptions(DeviceOptions, ModelOptions):
    """What planners are asked. Shared by `plan`, `split`, `compare` and `sweep`."""

    tiers: Annotated[
        Path | None,
        typer.Option("--tiers", metavar="T.toml", help="The tiers and links.", show_default=False),
    ] = None
    objective: Annotated[Aim, typer.Option("--objective", help="What is to be best.")] = "latency"
    weight: Annotated[
        list[str] | None,
        typer.Option(
            "--weight",
            metavar="NAME=W",
            help="For `--objective weighted`: what a second of `latency`, a USD of `cost` or a joule of "
            "`energy` weighs. Repeatable.",
            show_default=False,
        ),
    ] = None
    deadline_ms: Annotated[
        float | None,
        typer.Option("--deadline-ms", metavar="MS", help="Limit on latency.", show_default=False),
    ] = None
    budget_usd: Annotated[
        float | None,
        typer.Option("--budget-usd", metavar="USD", help="Limit on cost per request.", show_default=False),
    ] = None

    prompt_tokens: Annotated[
        int | None,
        typer.Option(
            "--prompt-tokens",
            metavar="N",
            help="A request is a whole text: a prompt of so many tokens, and `--new-tokens` after it.",
            show_default=False,
        ),
    ] = None
    new_tokens: Annotated[
        int | None,
        typer.Option("--new-tokens", metavar="N", help="Tokens made of a prompt.", show_default=False),
    ] = None
    conversations: Annotated[
        int | None,
        typer.Option(
            "--conversations", metavar="N", help="Texts whose caches are kept at a time.", show_default=False
        ),
    ] = None

    codes: Annotated[
        list[str] | None,
        typer.Option(
            "--codes",
            metavar="A,B",
            help="How values may be written for links, besides raw: fp16, uint8-channel, uint8, or all "
            "of these; and packed, on top of any, where a profile has measured it. "
            "A link's own `codes` in the tiers file come first.",
            show_default=False,
        ),
    ] = None

    @property
    def allowed_codes(self) -> tuple[str, ...]:
        """The codes that `--codes` allows."""
        from dnnsplit_onnx.planning.coding import code_names
        from dnnsplit_onnx.work.codes import LOSSY

        named = [name.strip() for text in self.codes or () for name in text.split(",") if name.strip()]
        return code_names(code for name in named for code in (LOSSY if name == "all" else (name,)))

    def topology(self) -> Topology:
        """The tiers file, with the limits and codes of the command line.

        Raises:
            InputError: There is none.
            TopologyError: It cannot be read, or says something impossible.
        """
        from dnnsplit_onnx.cli.output import note
        from dnnsplit_onnx.machines.suspicions import suspicions
        from dnnsplit_onnx.machines.tiers_file import load_topology, read_topology

        if self.tiers is None and not self.device_words:
            raise InputError(
                "missing option `--tiers`",
                hint="describe your machines in a tiers file: --tiers tiers.toml, "
                "or name some: --edge raspberry-pi-4 --cloud l4 --link 4g",
            )
        if self.tiers is not None and self.device_words:
            raise InputError(
                f"`--tiers` and `{self.device_words[0]}` exclude each other", hint="leave one of them out"
            )
        if self.tiers is None:
            topology = read_topology(self.tiers_text(schema=False).encode(), Path("tiers.toml"))
        else:
            topology = load_topology(self.tiers)
        for suspicion in suspicions(topology):
            note(suspicion)
        wanted = {"deadline_ms": self.deadline_ms, "budget_usd": self.budget_usd}
        topology = topology.with_limits(**{key: value for key, value in wanted.items() if value is not None})
        texts = {name: getattr(self, name) for name in _TEXTS if getattr(self, name) is not None}
        if texts:
            topology = topology.with_workload(**texts)
        return topology.with_codes(self.allowed_codes) if self.allowed_codes else topology

    @property
    def words(self) -> list[str]:
        """The machines, the aim and the limits as they were given."""
        words = self.device_words if self.tiers is None else ["--tiers", str(self.tiers)]
        defaults = ConditionOptions()
        for name in ("objective", "deadline_ms", "budget_usd", *_TEXTS):
            value = getattr(self, name)
            if value != getattr(defaults, name):
                given = f"{value:.12g}" if isinstance(value, float) else str(value)
                words += [f"--{name.replace('_', '-')}", given]
        if self.allowed_codes:
            words += ["--codes", ",".join(self.allowed_codes)]
        return words + [word for weight in self.weight or () for word in ("--weight", weight)]

    def weights(self) -> Weights | None:
        """The weights, if the objective has any.

        Raises:
            InputError: They cannot be read, or are missing, or are of no use.
        """
        from dnnsplit_onnx.planning.weights import Weights

        if self.objective != "weighted":
            if self.weight:
                raise InputError("`--weight` is for `--objective weighted`", hint="add --objective weighted")
            return None
        if not self.weight:
            raise InputError(
                "`--objective weighted` has no weights", hint="such as --weight latency=1 --weight cost=1000"
            )
        return Weights.parse(self.weight)


@dataclass(frozen=True, kw_only=True)
class JudgedOptions(ConditionOptions):
    """What codes may lose. Shared by `plan`, `split`, `sweep` and `compare`."""

    samples: Samples = None
    tolerance: Tolerance = None
    agreement: Agreement = None

    def topology(self) -> Topology:
        """As for the conditions; files of pictures are as long as those of the samples.

        Raises:
            InputError: There is none, or the samples cannot be read.
            TopologyError: It cannot be read, or says something impossible.
        """
        from dnnsplit_onnx.runtime.pictures import is_of_pictures, median_nbytes

        topology = super().topology()
        unsaid = {name: one for name, one in topology.files.items() if one.nbytes is None}
        if not unsaid or self.samples is None or not is_of_pictures(self.samples):
            return topology
        nbytes = median_nbytes(self.samples)
        told = {name: one.changed(nbytes=nbytes) for name, one in unsaid.items()}
        return topology.changed(input={**topology.input, **told})

    def judge(self, analysis: Analysis) -> Judge | None:
        """What says whether the codes of a plan are accepted; None if nothing is asked of them.

        Raises:
            InputError: There is nothing to judge them on.
        """
        if self.tolerance is None and self.agreement is None:
            return None
        if self.samples is None:
            raise InputError(
                "`--tolerance` and `--agreement` need samples to judge codes on",
                hint="give inputs as they will come: --samples X.npz",
            )
        from dnnsplit_onnx.measuring.judging import Judge

        return Judge(analysis, self.samples, self.tolerance, self.agreement)


@dataclass(frozen=True, kw_only=True)
class PlanOptions(JudgedOptions):
    """How a plan is made. Shared by `plan` and `split`."""

    planner: Annotated[
        str,
        typer.Option(
            "--planner", metavar="NAME", help="Who chooses the cuts.", autocompletion=completion.planners
        ),
    ] = "exact"
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at",
            metavar="CUT",
            help="Cut here instead: a position, the name of a value or node, layer:NAME of a converted "
            "model, or names joined by + for the least cut that holds them all. One a link, from tier 0 up; "
            "repeat it or separate with commas.",
            show_default=False,
        ),
    ] = None

    pareto: Annotated[
        int,
        typer.Option(
            "--pareto", metavar="N", min=0, help="Most plans to list of those that no other beats in all."
        ),
    ] = 64

    @property
    def cuts(self) -> tuple[str, ...]:
        """The cuts that `--at` names, in the order given."""
        return tuple(part.strip() for text in self.at or () for part in text.split(",") if part.strip())
