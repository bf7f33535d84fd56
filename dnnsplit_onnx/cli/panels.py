"""Under which heading `--help` shows a command or an option."""

from __future__ import annotations

from typing import Any

#: Commands by what they are for, in the order of the overview.
COMMAND_PANELS = {
    "Cut a model": ("init", "inspect", "plan", "split", "verify", "report"),
    "Measure and study": ("bench", "profile", "sweep", "compare"),
    "Models and machines": ("convert", "zoo", "tiers", "doctor"),
    "Run across machines": ("serve", "run", "generate", "up", "compose", "ship", "export"),
}
#: Options by what they are about; those of one command alone stay under `Options`.
OPTION_PANELS = {
    "Model": (
        "bind", "custom_ops", "sample_input", "order", "state", "trips", "cut_size", "model", "inputs",
    ),
    "Machines": ("tiers", "edge", "near_edge", "cloud", "link", "bandwidth_mbps", "provider", "cuda_graph"),
    "What is best": ("objective", "weight", "planner", "planners", "at", "pareto", "plan"),
    "Limits": ("deadline_ms", "budget_usd", "max_mb"),
    "Codes": ("codes", "samples", "tolerance", "agreement"),
    "Network": (
        "url", "peer", "next_url", "host", "port", "token_file", "tls_ca", "tls_cert", "tls_key",
        "concurrency",
    ),
    "Output": ("output", "json", "form", "force", "plot", "annotate", "graph", "dashboard", "keep", "debug"),
}  # fmt: skip

_PANEL_OF = {name: panel for panel, names in OPTION_PANELS.items() for name in names}


def panel_of(command: str) -> str | None:
    """The heading of a command."""
    return next((panel for panel, names in COMMAND_PANELS.items() if command in names), None)


def arrange(command: Any) -> None:
    """Puts the options of a command, and of those within, under their headings."""
    for option in command.params:
        if getattr(option, "param_type_name", "") == "option" and option.name in _PANEL_OF:
            option.rich_help_panel = _PANEL_OF[option.name]
    for one in getattr(command, "commands", {}).values():
        arrange(one)
