"""What the tutorial tells a newcomer to type works, and prints what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import DOCS, Block, blocks, missing_lines, run_page

MADE = {"model.onnx", "tiers.toml", "tiers.schema.json", "slices", "bench.json", "edge.json", "report.html"}


def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    page = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    commands = [block for block in blocks(page) if block.language == "sh"]
    assert len(commands) > 10
    assert [block.mark for block in commands if block.mark] == ["not run", "background"]
    run_page(page, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= MADE
    for name in MADE:
        assert f"`{name}" in page or f" {name}" in page


def test_blocks_are_found_with_their_marks() -> None:
    page = "a\n\n<!-- measured -->\n\n```text\n1 ms\n```\n\n```sh\necho `a`\n```\n"
    assert blocks(page) == [Block("text", "1 ms\n", "measured"), Block("sh", "echo `a`\n")]


@pytest.mark.parametrize(
    ("shown", "measured", "missing"),
    [
        ("b 12.5 ms\n", False, []),
        ("a  1\n...\nb 12.5 ms", False, []),
        ("b 12.5 ms\na 1", False, ["a 1"]),
        ("b 11 ms", False, ["b 11 ms"]),
        ("b 11 µs", True, []),
        ("c 11 µs", True, ["c #"]),
    ],
)
def test_what_is_not_printed_is_noticed(shown: str, measured: bool, missing: list[str]) -> None:
    assert missing_lines(shown, "a 1\nx\nb   12.5 ms of it\n", measured=measured) == missing


@pytest.mark.parametrize(
    ("page", "what"),
    [
        ("```sh\nfalse\n```\n", "ended with 1"),
        ("```sh\necho 1\n```\n\n```text\n2\n```\n", "not printed"),
        ("<!-- background -->\n\n```sh\necho no\n```\n", "no address"),
    ],
)
def test_a_page_that_is_wrong_fails(page: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=what):
        run_page(page, tmp_path)
