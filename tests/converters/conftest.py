"""Fixtures of the converters' tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def importable(tmp_path, monkeypatch):
    """Writes a module that conversions, in their own process too, can import."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, source: str) -> str:
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return write
