"""Machines with and without CUDA, as far as a machine without it can pretend.

`pretend_cuda` runs the code of CUDA sessions for real, on the CPU: bound inputs and outputs,
values left on the device, captured runs. What it cannot show is that CUDA computes.
"""

from __future__ import annotations

from typing import Any

import onnxruntime as ort
import pytest

from dnnsplit_onnx.runtime import provider

HAS_CUDA_BUILD = "CUDAExecutionProvider" in ort.get_available_providers()


def pretend_cuda(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Makes `cuda` the CPU under another name, and returns the options each session was made with."""
    monkeypatch.setitem(provider.PROVIDERS, "cuda", "CPUExecutionProvider")
    monkeypatch.setitem(provider.DEVICES, "cuda", "cpu")
    monkeypatch.setattr(provider, "load_cuda", lambda _: None)
    made: list[dict[str, Any]] = []
    real = ort.InferenceSession

    def create(source: Any, settings: Any = None, providers: Any = (), **options: Any) -> Any:
        named = [entry for entry in providers if isinstance(entry, tuple)]
        made.extend(given for _, given in named)
        kept = named or providers  # the CPU that is to take the rest is the same provider here
        return real(source, settings, providers=kept, **options)

    monkeypatch.setattr(ort, "InferenceSession", create)
    return made


def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU build on a machine without a driver: CUDA is listed, and sessions are on the CPU."""
    real = ort.InferenceSession
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: names)
    monkeypatch.setattr(provider, "load_cuda", lambda _: None)

    def create(source: Any, settings: Any = None, providers: Any = (), **options: Any) -> Any:
        kept = [entry for entry in providers if not isinstance(entry, tuple)]
        return real(source, settings, providers=kept, **options)

    monkeypatch.setattr(ort, "InferenceSession", create)
