"""The corpus, and inputs that once were finds, replayed without a fuzzer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.campaign import CORPUS, NAMES
from tests.fuzz.targets import TARGETS, run

SEEDS = sorted(path for path in CORPUS.rglob("*") if path.is_file())
_MOST_KIB = 64


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_no_input_does_what_it_should_not(seed: Path) -> None:
    run(seed.parent.name, seed.read_bytes())


def test_every_target_has_a_small_corpus() -> None:
    assert set(TARGETS) == set(NAMES)
    for name in NAMES:
        assert sum(path.stat().st_size for path in (CORPUS / name).iterdir()) < _MOST_KIB << 10


@pytest.mark.parametrize("name", NAMES)
def test_every_target_gets_behind_its_parser(name: str) -> None:
    # Seeds that were all refused would test nothing but the refusal.
    if name == "packed":
        pytest.importorskip("zstandard", reason="needs zstandard: pip install 'dnnsplit-onnx[packed]'")
    if name == "picture":
        pytest.importorskip("PIL", reason="needs Pillow: pip install 'dnnsplit-onnx[images]'")
    TARGETS[name](
        next(seed for seed in SEEDS if seed.parent.name == name and seed.name in _GOOD).read_bytes()
    )


_GOOD = {"typed", "steps", "chain", "full", "cut", "two", "post", "binary", "stored", "floats", "png"}


def test_an_error_of_another_kind_is_a_find(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes) -> None:
        raise IndexError(data)

    monkeypatch.setitem(TARGETS, "wire", broken)
    with pytest.raises(IndexError):
        run("wire", b"")
