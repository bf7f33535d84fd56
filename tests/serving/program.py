"""The command line as a program, for tests that need real processes."""

from __future__ import annotations

import sys

from dnnsplit_onnx.cli.app import app, main


def register() -> None:
    """Adds the commands across machines, where the application does not have them yet."""
    from dnnsplit_onnx.cli import compose, export, run_chain, serve, up

    commands = {"serve": serve.serve, "run": run_chain.run, "up": up.up, "compose": compose.compose}
    known = {command.name for command in app.registered_commands}
    for name, command in commands.items():
        if name not in known:
            app.command(name)(command)
    if "export" not in {group.name for group in app.registered_groups}:
        app.add_typer(export.app, name="export")


if __name__ == "__main__":
    register()
    sys.exit(main())
