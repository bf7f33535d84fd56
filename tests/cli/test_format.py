"""`--format`: the rows of a result, as `records()` gives them, in every form."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from pathlib import Path

import pytest

from dnnsplit_onnx.cli.output import print_json
from tests.cli.conftest import Ended, Run

WORDS = {
    "plan": ("--tiers", "tiers.toml"),
    "inspect": (),
    "compare": ("--tiers", "tiers.toml", "--planners", "exact,dads"),
    "sweep": ("--tiers", "tiers.toml", "--vary", "link.0.bandwidth_mbps=1,10,100"),
}


def cells(text: str) -> list[list[str]]:
    """The cells of a Markdown table, without the line under its head."""
    lines = [line.strip("|").split("|") for line in text.splitlines()]
    assert {cell.strip() for cell in lines.pop(1)} == {"---"}
    return [[cell.strip() for cell in line] for line in lines]


@pytest.mark.parametrize("words", [("tiers", "list"), ("zoo", "list"), ("doctor",)])
def test_lists_have_every_form(run: Run, words: tuple[str, ...]) -> None:
    rows = list(csv.DictReader(io.StringIO(run(*words, "--format", "csv").out)))
    head, *body = cells(run(*words, "--format", "markdown").out)
    assert head == list(rows[0])
    assert len(body) == len(rows) > 5
    assert_latex(run(*words, "--format", "latex").out, len(head), len(rows))


def assert_latex(text: str, columns: int, rows: int) -> None:
    """A whole `tabular`, each line with as many cells as it has columns."""
    lines = text.splitlines()
    kinds = re.fullmatch(r"\\begin\{tabular\}\{([lr]+)\}", lines[0])
    assert kinds is not None
    assert len(kinds[1]) == columns
    assert lines[-1] == r"\end{tabular}"
    table = [line for line in lines if line.endswith(r" \\")]
    assert len(table) == rows + 1
    for line in table:
        assert len(re.findall(r"(?<!\\)&", line)) == columns - 1
        assert not re.search(r"(?<!\\)[#$%_]", line)


def test_what_is_measured_has_every_form(run: Run, tiny: Path, tiers: Path, tmp_path: Path) -> None:
    assert run("split", tiny, "--tiers", tiers, "--at", "4", "-o", tmp_path / "out").code == 0
    for words in (
        ("verify", tmp_path / "out"),
        ("bench", tmp_path / "out", "--runs", "2"),
        ("run", tmp_path / "out"),
        ("profile", tiny, "--tier", "edge", "--runs", "2", "--force", "-o", tmp_path / "p.json"),
    ):
        rows = list(csv.DictReader(io.StringIO(run(*words, "--format", "csv").out)))
        assert rows, words
        assert all(None not in row for row in rows)


@pytest.mark.parametrize("command", WORDS)
def test_every_form_has_the_same_rows(run: Run, tiny: Path, tiers: Path, command: str) -> None:
    def printed(*form: str) -> Ended:
        words = [str(tiers) if word == "tiers.toml" else word for word in WORDS[command]]
        ended = run(command, tiny, *words, *form)
        assert ended.code == 0, ended.err
        return ended

    rows = list(csv.DictReader(io.StringIO(printed("--format", "csv").out)))
    head, *body = cells(printed("--format", "markdown").out)
    assert rows
    assert head == list(rows[0])
    clocks = {"seconds"} if command == "compare" else set()  # what planning took, each time anew
    for row, line in zip(rows, body, strict=True):
        assert {key: text for key, text in zip(head, line, strict=True) if key not in clocks} == {
            key: text for key, text in row.items() if key not in clocks
        }
    whole = printed("--format", "json").json
    assert whole.keys() == printed("--json").json.keys()
    if command == "plan":
        assert [row["name"] for row in rows if row["kind"] == "tier"] == [
            stage["tier"] for stage in whole["stages"]
        ]
    if command == "sweep":
        points = whole["points"]
        assert [float(row["latency_s"]) for row in rows] == [point["latency_s"] for point in points]


def test_a_hint_that_says_where_nodes_are_listed_is_right(run: Run, tiny: Path, tiers: Path) -> None:
    refused = run("plan", tiny, "--tiers", tiers, "--at", "%%%")
    assert refused.code == 2
    command = re.search(r"hint: `dnnsplit-onnx (.+)` lists the nodes", refused.err)
    assert command
    rows = list(csv.DictReader(io.StringIO(run(*shlex.split(command[1])).out)))
    named = [row["name"] for row in rows]
    assert run("plan", tiny, "--tiers", tiers, "--at", named[len(named) // 2]).code == 0


def test_long_lists_have_an_entry_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": f'n"{at}\n', "values": [at, None]} for at in range(1_001)]
    data = {"model": "m", "nodes": rows, "total": {"macs": [1, 2], "none": {}}}
    print_json(data)
    text = capsys.readouterr().out
    assert json.loads(text) == data
    assert text.endswith("}\n")
    assert text.count("\n") == 1_001 + len(json.dumps({**data, "nodes": []}, indent=2).splitlines()) + 1
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_json({"rows": [float("nan")] * 1_001})
