"""Options that several commands share, each defined once.

A group of options is a dataclass whose fields are annotated for typer; `takes` spreads it
over a command's parameters and hands the command one object.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import typer

from dnnsplit_onnx.cli import completion
from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.machines.providers import Engine

CutSize = Literal["live", "layer-input"]
# The names of node orders that `orders.in_order` knows.
Order = Literal["envelope", "file"]


@dataclass(slots=True)
class Settings:
    """What holds for a whole run."""

    debug: bool = False


def _debug(context: typer.Context, wanted: bool) -> bool:
    settings = context.find_root().obj
    if wanted and isinstance(settings, Settings):
        settings.debug = True
    return wanted


def _custom_ops(libraries: list[str] | None) -> list[str] | None:
    if libraries:
        from dnnsplit_onnx.runtime.custom_ops import custom_ops

        custom_ops(*libraries)
    return libraries


CustomOps = Annotated[
    list[str] | None,
    typer.Option(
        "--custom-ops",
        metavar="LIB",
        callback=_custom_ops,
        help="A library of operators for onnxruntime, `onnxruntime-extensions`, or `tier` for those that "
        "the tiers name. Repeatable.",
        show_default=False,
    ),
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="An ONNX file, a folder with one (`genai_config.json`, `config.json` beside it), or `zoo:NAME`.",
        autocompletion=completion.models,
        show_default=False,
    ),
]
Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="A folder that `split` made.", show_default=False)
]
Format = Annotated[
    Literal["table", "json", "csv", "markdown", "latex"],
    typer.Option("--format", help="How to print: rows for spreadsheets and papers are csv, markdown, latex."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Provider = Annotated[
    Engine | None,
    typer.Option("--provider", help="The execution provider to run on. [default: cpu]", show_default=False),
]
TierProvider = Annotated[
    Engine | None,
    typer.Option(
        "--provider",
        help="The execution provider to run on; no other takes its place. "
        "[default: what the manifest says of each tier]",
        show_default=False,
    ),
]
CudaGraph = Annotated[
    bool,
    typer.Option("--cuda-graph", help="Run slices on CUDA as CUDA graphs; their shapes must be fixed."),
]
Bind = Annotated[
    list[str] | None,
    typer.Option(
        "--bind",
        metavar="DIM=N",
        help="Size of an open dimension, by its name or as INPUT.AXIS. Repeatable. "
        "[default: sizes at which the model runs]",
        show_default=False,
    ),
]
CutSizes = Annotated[
    CutSize,
    typer.Option("--cut-size", help="Charge a cut its live values, or the input of one layer (the paper)."),
]
NodeOrder = Annotated[
    Order,
    typer.Option(
        "--order",
        help="Order of the nodes that positions count in: one in which the best cuts of the whole graph are "
        "positions, or the file's own.",
    ),
]
Samples = Annotated[
    Path | None,
    typer.Option(
        "--samples",
        metavar="X.npz",
        help="Inputs to judge codes on, several along the first axis. [default: the inputs of the proof]",
        show_default=False,
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        metavar="X",
        min=0,
        help="With codes: the largest error of an output that is allowed, over its largest element.",
        show_default=False,
    ),
]
Agreement = Annotated[
    float | None,
    typer.Option(
        "--agreement",
        metavar="X",
        min=0,
        max=1,
        help="With codes: the share of samples whose largest output element must stay where it is.",
        show_default=False,
    ),
]


Debug = Annotated[
    bool, typer.Option("--debug", callback=_debug, is_eager=True, help="Show tracebacks of errors.")
]


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command takes."""

    debug: Debug = False


@dataclass(frozen=True, kw_only=True)
class Reporting(Common):
    """What every command that reports takes."""

    json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Reporting):
    """How a model is read. Shared by every command that takes one."""

    bind: Bind = None
    custom_ops: CustomOps = None
    sample_input: Annotated[
        Path | None,
        typer.Option(
            "--sample-input",
            metavar="X.npz",
            help="Inputs of a run that shows the shapes which cannot be inferred. [default: random inputs]",
            show_default=False,
        ),
    ] = None
    trips: Annotated[
        list[str] | None,
        typer.Option(
            "--trips",
            metavar="NAME=N",
            help="How often a Loop runs, by its node's name, where the model leaves it open. Repeatable.",
            show_default=False,
        ),
    ] = None
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            metavar="IN=OUT",
            help="An input that is an output of the run before, such as a decoder's cache: it stays on the "
            "tier that owns it. Names that exporters give are known (`past...` and `present...`, `state` and "
            "`stateN`); `*` names many: 'k_*=new_k_*'; 'IN=' stays for a whole sequence; `none` for no "
            "states. Repeatable.",
            show_default=False,
        ),
    ] = None
    cut_size: CutSizes = "live"
    order: NodeOrder = "envelope"

    @property
    def bindings(self) -> dict[str, int]:
        """The numbers of symbolic dimensions.

        Raises:
            InputError: An option is not `DIM=N`, or two bind one dimension.
        """
        return _numbers(self.bind, "--bind", "DIM=N", "batch=1")

    @property
    def model_words(self) -> list[str]:
        """The options as they were given, for a command that follows."""
        repeated = (
            ("--bind", self.bind),
            ("--trips", self.trips),
            ("--state", self.state),
            ("--custom-ops", self.custom_ops),
        )
        words = [word for option, given in repeated for text in given or () for word in (option, text)]
        single = (("--cut-size", self.cut_size, "live"), ("--order", self.order, "envelope"))
        words += [word for option, value, default in single if value != default for word in (option, value)]
        return words if self.sample_input is None else [*words, "--sample-input", str(self.sample_input)]

    @property
    def trip_counts(self) -> dict[str, int]:
        """How often loops run, by the names of their nodes.

        Raises:
            InputError: An option is not `NAME=N`, or two are about one loop.
        """
        return _numbers(self.trips, "--trips", "NAME=N", "decoder_loop=20")


def _numbers(given: list[str] | None, option: str, form: str, example: str) -> dict[str, int]:
    """Options of the form NAME=N."""
    found: dict[str, int] = {}
    for text in given or ():
        name, equals, number = text.rpartition("=")
        if not (name and equals and number.strip().isdecimal()):
            raise InputError(
                f"cannot read `{option} {text}`", hint=f"write {option} {form}, such as {option} {example}"
            )
        if found.setdefault(name, int(number)) != int(number):
            raise InputError(f"`{option}` gives `{name}` both {found[name]} and {int(number)}")
    return found


Group = TypeVar("Group")


def takes(group: type[Group]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a command take the fields of a dataclass as options of its own.

    Args:
        group: A dataclass whose fields are annotated for typer.

    Returns:
        A decorator. The command's parameter `options` receives an instance; its fields are
        options of the command, after the command's own.
    """
    hints = get_type_hints(group, include_extras=True)
    # Its own fields before inherited ones: help lists what is special first.
    named = {f.name: f for f in fields(group)}  # type: ignore[arg-type]
    order = [name for kind in group.__mro__ for name in getattr(kind, "__annotations__", ()) if name in named]
    spread = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if named[name].default is MISSING else named[name].default,
            annotation=hints[name],
        )
        for name in order
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [p.replace(kind=p.KEYWORD_ONLY) for p in signature.parameters.values()]
        rest = [p for p in own if p.name != "options"]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            options = group(**{p.name: given.pop(p.name) for p in spread})
            command(options=options, **given)

        parameters = [*rest, *spread]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        del run.__wrapped__  # typer would read its annotations
        return run

    return decorate
