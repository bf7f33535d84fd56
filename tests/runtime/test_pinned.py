"""Pinned memory: what is asked of CUDA, and for how long."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dnnsplit_onnx.runtime import pinned
from dnnsplit_onnx.runtime.pinned import LEAST_NBYTES, cuda_runtime, pinned_block
from dnnsplit_onnx.serving.wire.arena import KEEP_NBYTES, Arena, Blocks

SIZE = LEAST_NBYTES


class FakeRuntime:
    """CUDA's runtime library, which keeps a list of what is pinned."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.pinned: dict[int, int] = {}
        self.cleared = 0

    def cudaHostRegister(self, address: int, nbytes: int, _flags: int) -> int:  # noqa: N802
        if self.status == 0:
            self.pinned[address] = nbytes
        return self.status

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802
        del self.pinned[address]
        return 0

    def cudaGetLastError(self) -> int:  # noqa: N802
        self.cleared += 1
        return self.status


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    fake = FakeRuntime()
    monkeypatch.setattr(pinned, "cuda_runtime", lambda: fake)
    return fake


def test_memory_is_pinned_while_it_or_a_view_lives(cuda: FakeRuntime) -> None:
    block = pinned_block(SIZE)
    address = block.ctypes.data
    assert cuda.pinned == {address: SIZE}
    assert address % 4096 == 0  # pages that nothing else lies on
    view = block[100:200].view(np.float32)
    view[:] = 3
    del block
    gc.collect()
    assert cuda.pinned == {address: SIZE}
    assert view.sum() == 75
    del view
    gc.collect()
    assert cuda.pinned == {}


def test_small_blocks_are_left_alone(cuda: FakeRuntime) -> None:
    assert pinned_block(SIZE - 1).nbytes == SIZE - 1
    assert cuda.pinned == {}


def test_where_pinning_fails_the_memory_is_ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRuntime(status=2)  # out of memory
    monkeypatch.setattr(pinned, "cuda_runtime", lambda: fake)
    block = pinned_block(SIZE)
    block[:] = 1
    assert (block.nbytes, fake.cleared) == (SIZE, 1)
    del block
    gc.collect()  # and nothing is unpinned that never was pinned


@pytest.fixture
def fresh() -> Iterator[None]:
    cuda_runtime.cache_clear()
    yield
    cuda_runtime.cache_clear()


@pytest.mark.parametrize("version", ["", "none", "9999.0"])
def test_without_cuda_memory_is_ordinary(fresh: None, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    build: Any = type("Build", (), {"cuda_version": version})
    monkeypatch.setattr(pinned, "import_module", lambda _: build)
    assert cuda_runtime() is None
    assert pinned_block(SIZE).nbytes == SIZE


def test_a_server_pins_what_goes_to_a_gpu_and_nothing_else(cuda: FakeRuntime) -> None:
    arena = Arena(Blocks())
    arena.reset(2 * SIZE, 1)
    assert cuda.pinned == {}
    arena.reset(2 * SIZE, 1, pinned=True)
    first = dict(cuda.pinned)
    assert len(first) == 1
    part = arena.allocate(100)
    assert part.ctypes.data in range(min(first), min(first) + first[min(first)])
    del part
    arena.reset(SIZE, 1)
    assert cuda.pinned == first  # it waits for the next request that goes to the GPU
    arena.reset(2 * SIZE, 1, pinned=True)
    assert cuda.pinned == first
    arena.reset(KEEP_NBYTES + SIZE, 1, pinned=True)
    assert len(cuda.pinned) == 2
    arena.release()
    assert cuda.pinned == first  # larger than what is kept: given back at once
