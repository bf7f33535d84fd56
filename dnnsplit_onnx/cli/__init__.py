"""The command line: parsing, and nothing that the library cannot do.

Start-up is kept short: this package imports typer and no more. Each command imports what it
needs when it runs.
"""

from dnnsplit_onnx.cli.app import main, run

__all__ = ["main", "run"]
