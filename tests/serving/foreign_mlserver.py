"""A model for MLServer, which finds it by its import path."""

from __future__ import annotations

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor

from .foreign_server import DTYPES, Model


class Served(MLModel):
    """One ONNX file; its path is the model's `uri`."""

    async def load(self) -> bool:
        assert self.settings.parameters is not None
        self.inner = Model(str(self.settings.parameters.uri))
        self.inputs = [MetadataTensor(**port) for port in Model.describe(self.inner.session.get_inputs())]
        self.outputs = [MetadataTensor(**port) for port in Model.describe(self.inner.session.get_outputs())]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        values = {
            tensor.name: NumpyCodec.decode_input(tensor).astype(DTYPES[tensor.datatype])
            for tensor in payload.inputs
        }
        outputs = [NumpyCodec.encode_output(key, value) for key, value in self.inner.run(values).items()]
        return InferenceResponse(model_name=self.name, outputs=outputs)
