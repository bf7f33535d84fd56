"""What Triton's clients ask beyond the protocol: a model's configuration, and its statistics.

Source: https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dnnsplit_onnx.serving.wire.metrics import Metrics


def model_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A model's metadata as Triton's configuration has it."""
    return {
        "name": metadata["name"],
        "platform": metadata["platform"],
        "backend": "onnxruntime",
        "max_batch_size": 0,
        "input": [_described(port) for port in metadata["inputs"]],
        "output": [_described(port) for port in metadata["outputs"]],
    }


def model_statistics(name: str, metrics: Metrics) -> dict[str, Any]:
    """What the server has counted, as Triton's statistics have it."""
    answered, compute = metrics.total("request_seconds"), metrics.total("compute_seconds")
    failed = metrics.value("requests_failed_total")
    return {
        "model_stats": [
            {
                "name": name,
                "version": "1",
                "inference_count": answered[0],
                "execution_count": compute[0],
                "inference_stats": {
                    "success": _duration(answered),
                    "fail": _duration((int(failed), 0.0)),
                    "queue": _duration(metrics.total("queue_seconds")),
                    "compute_input": _duration(metrics.total("receive_seconds")),
                    "compute_infer": _duration(compute),
                    "compute_output": _duration((compute[0], 0.0)),
                },
                "batch_stats": [],
            }
        ]
    }


def _described(port: Mapping[str, Any]) -> dict[str, Any]:
    kind = "STRING" if port["datatype"] == "BYTES" else port["datatype"]
    return {"name": port["name"], "data_type": f"TYPE_{kind}", "dims": port["shape"]}


def _duration(total: tuple[int, float]) -> dict[str, int]:
    return {"count": total[0], "ns": int(total[1] * 1e9)}
