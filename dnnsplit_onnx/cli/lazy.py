"""Commands that are imported when they are run.

A process runs one command, and the overview shows a line of each. So the names and these
lines are a table here, and a test holds the table against the commands.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from dnnsplit_onnx.cli.panels import COMMAND_PANELS, arrange, panel_of

#: By name: the module in this package, what to take from it, and what the overview says.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "init": ("init", "init", "Start with a model: write a tiers file for it, and plan."),
    "inspect": ("inspect", "inspect", "Show a model's work, weights, and cuts."),
    "plan": ("plan", "plan", "Choose where to cut, and say whether it pays."),
    "split": (
        "split",
        "split",
        "Plan, write one sub-model per tier, and prove that the chain equals the whole.",
    ),
    "verify": ("verify", "verify", "Prove that the chain of slices computes what the whole model computes."),
    "bench": (
        "bench",
        "bench",
        "Measure each slice, the chain of them, and the whole model; of shared rows, each tile.",
    ),
    "profile": ("profile", "profile", "Measure a model on this machine, or a link to another."),
    "sweep": ("sweep", "sweep", "Plan over a grid of conditions, and map what is best where."),
    "compare": ("compare", "compare", "Run planners side by side, or a split beside its rivals."),
    "report": ("report", "report", "Write one HTML page about a folder of slices, to read and to send."),
    "convert": (
        "convert",
        "convert",
        "Convert a Keras or PyTorch model to ONNX, and check that it computes the same.",
    ),
    "image": (
        "image",
        "image",
        "Have a model read a picture, bytes from 0 to 255, in place of normalised pixels.",
    ),
    "tiers": ("tiers", "app", "Write a tiers file from figures of real devices."),
    "zoo": ("zoo", "app", "Models to try things with: built or already installed, never downloaded."),
    "serve": ("serve", "serve", "Serve a tier over HTTP, by the Open Inference Protocol."),
    "run": ("run_chain", "run", "Run requests through the chain of tiers."),
    "generate": ("generate", "generate", "Continue a text with a decoder."),
    "up": ("up", "up", "Serve every tier of a folder on this machine, for trying things out."),
    "compose": (
        "compose",
        "compose",
        "Write a docker-compose file and systemd units, one service for each tier.",
    ),
    "ship": ("ship", "ship", "Send a tier's files to its machine, check them there, and switch over."),
    "export": ("export", "app", "Write slices for browsers, Triton and KServe."),
    "doctor": (
        "doctor",
        "doctor",
        "Look at what is installed, run a small model on each provider, and say what is missing.",
    ),
}


class LazyGroup(TyperGroup):
    """The group of all commands."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Commands()
        self._listing = False

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """All names, in the order of the headings that they stand under."""
        placed = [name for names in COMMAND_PANELS.values() for name in names if name in COMMANDS]
        return [*placed, *(name for name in COMMANDS if name not in placed)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """The command; for the overview, what is said of it there."""
        if cmd_name not in COMMANDS:
            return None
        if self._listing:
            return TyperCommand(cmd_name, help=COMMANDS[cmd_name][2], rich_help_panel=panel_of(cmd_name))
        return self.commands[cmd_name]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Prints the overview."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False


class _Commands(MutableMapping[str, Any]):
    """Commands by name, each made when it is first asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            module, attribute, _ = COMMANDS[name]
            self._made[name] = _command(
                name, getattr(import_module(f"dnnsplit_onnx.cli.{module}"), attribute)
            )
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


def _command(name: str, found: Any) -> Any:
    """A function or an application as a command."""
    if not isinstance(found, typer.Typer):
        app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        app.command(name, context_settings=CONTEXT)(found)
        found = app
    found.info.context_settings = CONTEXT
    found._add_completion = False
    command = typer.main.get_command(found)
    command.name = name
    arrange(command)
    return command


CONTEXT = {"help_option_names": ["-h", "--help"]}
