"""Serves one ONNX file with somebody else's server of the Open Inference Protocol.

python -m tests.serving.foreign_server kserve|mlserver NAME MODEL PORT

Nothing of this project is used: what answers is theirs, and onnxruntime.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import numpy as np
import onnxruntime

TYPES = {"tensor(float)": "FP32", "tensor(int64)": "INT64"}
DTYPES = {"FP32": np.float32, "INT64": np.int64}


class Model:
    """A model that names, reads and makes tensors of the two types above."""

    def __init__(self, path: str) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, values), strict=True))

    @staticmethod
    def describe(ports: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": port.name,
                "datatype": TYPES[port.type],
                "shape": [size if isinstance(size, int) else -1 for size in port.shape],
            }
            for port in ports
        ]


def serve_kserve(name: str, path: str, port: int) -> None:
    import kserve

    class Served(kserve.Model):
        def __init__(self) -> None:
            super().__init__(name)
            self.inner = Model(path)
            self.ready = True

        def get_input_types(self) -> list[dict[str, Any]]:
            return Model.describe(self.inner.session.get_inputs())

        def get_output_types(self) -> list[dict[str, Any]]:
            return Model.describe(self.inner.session.get_outputs())

        def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:  # noqa: ARG002
            made = self.inner.run({tensor.name: tensor.as_numpy() for tensor in payload.inputs})
            outputs = []
            for key, value in made.items():
                datatype = {np.dtype(dtype): text for text, dtype in DTYPES.items()}[value.dtype]
                output = kserve.InferOutput(key, list(value.shape), datatype)
                output.set_data_from_numpy(value, binary_data=False)
                outputs.append(output)
            return kserve.InferResponse(payload.id or "", name, outputs)

    kserve.ModelServer(http_port=port, enable_grpc=False, workers=1).start([Served()])


def serve_mlserver(name: str, path: str, port: int) -> None:
    from mlserver import MLServer, ModelSettings, Settings
    from mlserver.settings import ModelParameters

    from .foreign_mlserver import Served

    async def main() -> None:
        settings = Settings(
            host="127.0.0.1", http_port=port, grpc_port=port + 1, metrics_port=port + 2, parallel_workers=0
        )
        server = MLServer(settings)
        model = ModelSettings(name=name, implementation=Served, parameters=ModelParameters(uri=path))
        await server.start([model])

    asyncio.run(main())


if __name__ == "__main__":
    {"kserve": serve_kserve, "mlserver": serve_mlserver}[sys.argv[1]](
        sys.argv[2], sys.argv[3], int(sys.argv[4])
    )
