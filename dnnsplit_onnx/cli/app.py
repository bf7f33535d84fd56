"""The application: its commands, the options of all of them, and the way out.

`main` is the one place where a run ends. Whatever happens becomes an exit code and, at
most, a few lines on stderr (`failures`).
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from dnnsplit_onnx._version import __version__
from dnnsplit_onnx.cli import failures
from dnnsplit_onnx.cli.lazy import CONTEXT, LazyGroup
from dnnsplit_onnx.cli.options import Debug, Settings

PROGRAM = "dnnsplit-onnx"

app = typer.Typer(
    name=PROGRAM,
    cls=LazyGroup,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings=CONTEXT,
    epilog="Start with `dnnsplit-onnx plan zoo:random_resnet50 --edge raspberry-pi-4 --cloud l4 --link 4g`.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Split an ONNX model over edge, near-edge and cloud.

    Finds the best cuts, writes one sub-model per tier, proves that the chain of them
    computes what the whole model computes, and measures it.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


def run() -> int:
    """The process `dnnsplit-onnx`: `main`, and what makes a short process start and end faster."""
    # Loading modules makes objects by the ten thousand, none of them garbage: looking for
    # it again and again takes an eighth of the time of `plan`.
    gc.set_threshold(100_000)
    # No plugin of the environment shall change how a tiers file is read, and finding out
    # that there is none means reading the metadata of all that is installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")
    # Handlers run last in, first out: this one after those of all that is loaded from here on.
    ended: list[int] = []
    atexit.register(_leave, ended)
    ended.append(main())
    return ended[0]


def _leave(ended: Sequence[int]) -> None:
    """Ends the process without clearing up its memory, object by object: a fifth of a short run.

    Threads have been waited for by now. Where output cannot be written, or no code is known,
    the interpreter ends as it always does, and says so.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return
    if ended:
        os._exit(ended[0])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: Arguments without the program's name; those of the process if None.

    Returns:
        The exit code: 0 done, 1 the request cannot be met, 2 wrong usage or unreadable
        input, 70 a bug, 130 interrupted, 141 the reader of stdout went away.
    """
    settings = Settings()
    try:
        command = typer.main.get_command(app)
        arguments = list(sys.argv[1:] if argv is None else argv)
        code = command.main(arguments, prog_name=PROGRAM, standalone_mode=False, obj=settings)
        sys.stdout.flush()  # so that a closed pipe is noticed here
    except SystemExit as stop:
        # typer turns a broken pipe into an exit of its own, with a code that means
        # something else here.
        code = failures.BROKEN_PIPE if isinstance(stop.__context__, BrokenPipeError) else stop.code
    except BaseException as error:
        return failures.report(error, debug=settings.debug)
    if code == failures.BROKEN_PIPE:
        failures.silence_stdout()
    if code == failures.INTERRUPTED:
        return failures.report(KeyboardInterrupt(), debug=settings.debug)
    return code if isinstance(code, int) else 0
