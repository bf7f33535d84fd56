"""`tritonclient.http`, unmodified, against our server."""

from __future__ import annotations

import numpy as np
import pytest

from tests.serving.conftest import Network, inputs

try:
    import tritonclient.http as triton
except (ImportError, RuntimeError):  # it raises the latter where the extra is missing
    pytest.skip("needs tritonclient: pip install 'tritonclient[http]'", allow_module_level=True)


@pytest.fixture
def client(network: Network):
    url = network.chain()
    made = triton.InferenceServerClient(url.removeprefix("http://"))
    yield made
    made.close()


def tensors(*, binary: bool = True):
    """What crosses link 0: `x`, `k`, and what the first two nodes make."""
    given = inputs()
    a = np.maximum(given["x"], 0)
    found = []
    for name, array in {"x": given["x"], "k": given["k"], "a": a, "b": -a}.items():
        tensor = triton.InferInput(name, list(array.shape), "INT64" if name == "k" else "FP32")
        tensor.set_data_from_numpy(array, binary_data=binary)
        found.append(tensor)
    return found


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("near")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("near", model_version="1")
    assert {tensor["name"]: tensor["datatype"] for tensor in metadata["inputs"]} == {
        "x": "FP32",
        "k": "INT64",
        "a": "FP32",
        "b": "FP32",
    }
    assert {tensor["name"] for tensor in metadata["outputs"]} == {"y", "z", "m"}
    assert metadata["inputs"][0]["shape"] == [-1, 8]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_inference(client, whole, binary_in, binary_out):
    outputs = binary_out is not None and [
        triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("y", "m")
    ]
    result = client.infer(
        "near", tensors(binary=binary_in), outputs=outputs or None, request_id="7", timeout=5_000_000
    )
    expected = whole(inputs())
    assert result.get_response()["id"] == "7"
    for name in ("y", "m"):
        np.testing.assert_array_equal(result.as_numpy(name), expected[name])
    assert (result.as_numpy("z") is None) is (binary_out is not None)


def test_requests_at_a_time(client, whole):
    waiting = [client.async_infer("near", tensors()) for _ in range(8)]
    for result in waiting:
        np.testing.assert_array_equal(result.get_result().as_numpy("y"), whole(inputs())["y"])


def test_errors_arrive_as_errors(client):
    with pytest.raises(triton.InferenceServerException, match="one model here"):
        client.infer("other", tensors())
    with pytest.raises(triton.InferenceServerException, match="is missing"):
        client.infer("near", tensors()[:1])
    with pytest.raises(triton.InferenceServerException, match="no output `q`"):
        client.infer("near", tensors(), outputs=[triton.InferRequestedOutput("q")])
    with pytest.raises(triton.InferenceServerException):
        client.infer("near", tensors(), request_compression_algorithm="gzip")
