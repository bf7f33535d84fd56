"""`compare --rivals`: a split beside everything that could be done in its place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dnnsplit_onnx.cli.conditions import JudgedOptions
from dnnsplit_onnx.errors import InputError

if TYPE_CHECKING:
    from dnnsplit_onnx.planning.cascades import SmallModel
    from dnnsplit_onnx.planning.rivals import Rivals
    from dnnsplit_onnx.work.analysis import Analysis

_ONLY = "With --rivals: "


@dataclass(frozen=True, kw_only=True)
class RivalOptions(JudgedOptions):
    """What a split is compared with."""

    rivals: Annotated[
        bool,
        typer.Option(
            "--rivals",
            help="Compare what could be done in place of a split, and not planners: single tiers, a smaller "
            "input, a smaller model, a cascade, tiles.",
        ),
    ] = False
    small: Annotated[
        str | None,
        typer.Option(
            "--small",
            metavar="MODEL2",
            help=f"{_ONLY}a smaller model, for the lowest tier alone and in a cascade.",
            show_default=False,
        ),
    ] = None
    small_profile: Annotated[
        Path | None,
        typer.Option(
            "--small-profile",
            metavar="P.json",
            help=f"{_ONLY}what `profile` measured of the smaller model on the lowest tier.",
            show_default=False,
        ),
    ] = None
    escalation: Annotated[
        float | None,
        typer.Option(
            "--escalation",
            metavar="RATE",
            min=0,
            max=1,
            help=f"{_ONLY}the share of requests that the cascade hands to the large model.",
            show_default=False,
        ),
    ] = None
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            metavar="P",
            min=0,
            max=1,
            help=f"{_ONLY}that share is measured on --samples: the smaller model is sure from here on.",
            show_default=False,
        ),
    ] = None
    accuracy: Annotated[
        list[str] | None,
        typer.Option(
            "--accuracy",
            metavar="WHO=A",
            help=f"{_ONLY}what answers are worth, of `large`, `small` or `cascade`. Repeatable.",
            show_default=False,
        ),
    ] = None
    bits_per_pixel: Annotated[
        float,
        typer.Option(
            "--bits-per-pixel", metavar="B", help=f"{_ONLY}what a JPEG of an input that is a picture takes."
        ),
    ] = 2.0

    @property
    def accuracies(self) -> dict[str, float]:
        """What `--accuracy` gives.

        Raises:
            InputError: One is not `WHO=A`, of somebody known, from 0 to 1.
        """
        from dnnsplit_onnx.planning.cascades import NAMES

        found = {}
        for text in self.accuracy or ():
            who, equals, number = text.partition("=")
            try:
                found[who] = float(number)
            except ValueError:
                equals = ""
            if not equals or who not in NAMES or not 0 <= found[who] <= 1:
                raise InputError(
                    f"cannot read `--accuracy {text}`",
                    hint="write --accuracy WHO=A, such as --accuracy small=0.7",
                )
        return found

    def refuse_unused(self) -> None:
        """Refuses options that have no meaning here.

        Raises:
            InputError: One is given without what it belongs to.
        """
        for name in ("small", "small_profile", "escalation", "threshold", "accuracy"):
            if getattr(self, name) is None:
                continue
            option = f"--{name.replace('_', '-')}"
            if not self.rivals:
                raise InputError(f"`{option}` is for `--rivals`", hint=f"add --rivals, or leave {option} out")
            if name in ("small_profile", "escalation", "threshold") and self.small is None:
                raise InputError(f"`{option}` is about a smaller model", hint="name it: --small MODEL2")
        if self.escalation is not None and self.threshold is not None:
            raise InputError(
                "`--escalation` and `--threshold` exclude each other", hint="leave one of them out"
            )
        if self.threshold is not None and self.samples is None:
            raise InputError("`--threshold` needs samples to measure on", hint="give --samples X.npz")


def rivals_of(model: str, options: RivalOptions) -> Rivals:
    """The table of rivals that the options ask for."""
    from dnnsplit_onnx.cli.loading import load_analysis
    from dnnsplit_onnx.planning.rivalry import rivals
    from dnnsplit_onnx.reporting.progress import progress

    topology, weights, accuracies = options.topology(), options.weights(), options.accuracies
    analysis = load_analysis(model, options)
    small = None if options.small is None else _small(options.small, analysis, options, accuracies)
    with progress("planning"):
        return rivals(
            analysis,
            topology,
            objective=options.objective,
            weights=weights,
            codes=options.allowed_codes or None,
            small=small,
            accuracy=accuracies.get("large"),
            bits_per_pixel=options.bits_per_pixel,
            accept=options.judge(analysis),
        )


def _small(model: str, large: Analysis, options: RivalOptions, accuracies: dict[str, float]) -> SmallModel:
    """The smaller model, and how often it escalates if samples tell."""
    from dnnsplit_onnx.cli.loading import model_file
    from dnnsplit_onnx.graph.graph import load_graph
    from dnnsplit_onnx.graph.shapes import free_dimensions
    from dnnsplit_onnx.planning.cascades import SmallModel
    from dnnsplit_onnx.work.analysing import analyse

    graph = load_graph(model_file(model))
    free = free_dimensions(graph, {})
    bindings = {name: size for name, size in options.bindings.items() if name in free}
    analysis, name = analyse(graph, bindings, order=options.order), graph.file.path.stem
    profile = None if options.small_profile is None else str(options.small_profile)
    if options.threshold is None or options.samples is None:
        return SmallModel(analysis, name, profile, options.escalation, accuracies=accuracies)
    from dnnsplit_onnx.measuring.escalation import measure_escalation

    found = measure_escalation(analysis, large, options.samples, options.threshold)
    basis = f"measured on {found.samples:,} samples, sure from {found.threshold:g} on"
    agreements = {"small": found.small, "cascade": found.cascade}
    return SmallModel(analysis, name, profile, found.escalated, basis, accuracies, agreements)
