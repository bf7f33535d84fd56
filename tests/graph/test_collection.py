"""Garbage collection is put off for a while, and comes back as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from dnnsplit_onnx.graph import collection


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    yield
    gc.enable()


def test_it_is_put_off_and_comes_back() -> None:
    with collection.put_off():
        assert not gc.isenabled()
        with collection.put_off():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_comes_back_after_an_error() -> None:
    @collection.put_off()
    def fails() -> None:
        raise ValueError(str(gc.isenabled()))

    with pytest.raises(ValueError, match="False"):
        fails()
    assert gc.isenabled()


def test_who_does_without_it_goes_on_without_it() -> None:
    gc.disable()
    with collection.put_off():
        pass
    assert not gc.isenabled()
