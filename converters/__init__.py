"""Keras and PyTorch models in, ONNX out, and the proof that both compute the same.

    from dnnsplit_onnx.converters import convert

    report = convert("model.keras", "model.onnx")
    print(report.route, report.max_rel_diff)

Three routes, one file each:

    keras-torch   Keras on its torch backend, through torch's exporter   extra `keras`
    keras-tf      Keras or a SavedModel on TensorFlow, through tf2onnx   extra `keras-tf`
    pytorch       torch.onnx.export                                      extra `pytorch`

Everything else is shared: `sources` says what was given, `routes` which route takes it,
`pipeline` runs it, `parity` compares framework and onnxruntime, `finishing` cleans the
file. No framework is imported here, and none ever in the caller's process unless the
caller hands over a live model: `child` starts a fresh one, because Keras fixes its
backend for the life of a process and because memory can then be measured.

Nothing is downloaded, ever.
"""

from __future__ import annotations

from dnnsplit_onnx.converters.conversion import Conversion
from dnnsplit_onnx.converters.dispatch import convert

__all__ = ["Conversion", "convert"]
