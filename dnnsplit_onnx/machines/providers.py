"""The execution providers that a tier may name, by the short names of onnxruntime's."""

from __future__ import annotations

from typing import Literal

#: What a process of this package runs a slice on.
Engine = Literal[
    "cpu", "cuda", "tensorrt", "openvino", "coreml", "dml", "xnnpack", "rocm", "migraphx", "qnn"
]  # fmt: skip
#: `web` is onnxruntime-web in a browser.
Provider = Literal[Engine, "web"]
