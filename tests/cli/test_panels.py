"""Headings of `--help`: every command under one, and the options of all where they belong."""

from __future__ import annotations

import pytest

from dnnsplit_onnx.cli.lazy import COMMANDS
from dnnsplit_onnx.cli.panels import COMMAND_PANELS, OPTION_PANELS
from tests.cli.conftest import Run


def test_every_command_has_a_heading() -> None:
    placed = [name for names in COMMAND_PANELS.values() for name in names]
    assert len(placed) == len(set(placed))
    assert set(placed) <= set(COMMANDS)


def test_the_overview_shows_all_of_them(run: Run) -> None:
    text = run("--help").out
    places = [text.index(f" {panel} ") for panel in COMMAND_PANELS]
    assert places == sorted(places)
    for name in COMMANDS:
        assert f" {name} " in text


def test_no_option_has_two_headings() -> None:
    names = [name for names in OPTION_PANELS.values() for name in names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("command", ["plan", "split", "sweep"])
def test_options_stand_under_headings(run: Run, command: str) -> None:
    text = run(command, "--help").out
    for panel in ("Model", "Machines", "What is best", "Limits", "Codes", "Output"):
        assert f" {panel} " in text
    assert text.index(" Machines ") != text.index(" Limits ")
    limits = text[text.index(" Limits ") :]
    assert "--deadline-ms" in limits.split("\u2570")[0]  # before the box ends


def test_the_example_of_the_overview_works_from_nothing(run: Run) -> None:
    from dnnsplit_onnx.cli.app import app

    words = str(app.info.epilog).partition("`dnnsplit-onnx ")[2].rstrip("`.").split()
    assert run(*words[:1], "zoo:tiny_residual", *words[2:]).code == 0
