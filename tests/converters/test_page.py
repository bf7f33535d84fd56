"""The recipes of the page on conversion, as a reader types them."""

from __future__ import annotations

import pytest

from tests.converters.support import needs
from tests.pages import DOCS, blocks, run_page


@pytest.mark.slow
@needs("pytorch", "cpu")
def test_the_recipes_do_what_they_say(tmp_path):
    page = (DOCS / "converting.md").read_text(encoding="utf-8")
    assert sum(line.startswith("## ") and line[3].isdigit() for line in page.splitlines()) == 8
    assert sum(block.mark == "not run" for block in blocks(page)) == 5
    run_page(page, tmp_path)
    assert len(list(tmp_path.glob("*.onnx"))) == 6
