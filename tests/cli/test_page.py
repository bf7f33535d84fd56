"""docs/cli.md says what the program says, and README speaks of nothing that is not there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "lib" / "cli_page.py"))
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == made["page"](), "run .venv/bin/python scripts/lib/cli_page.py"


def test_the_readme_names_commands_and_options_that_exist() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in re.findall(r"^(?:\$ )?dnnsplit-onnx (\w+)", text, flags=re.MULTILINE):
        assert f"## `dnnsplit-onnx {command}`" in page
    for option in re.findall(r"--[a-z][a-z-]+", text):
        assert f"`{option}`" in page or option in ("--help", "--from")  # uvx has the latter
