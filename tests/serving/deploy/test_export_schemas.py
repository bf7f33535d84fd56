"""Exports held against the schemas of the programs that they are for."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.serving.deploy.export import export_kserve, triton_config
from dnnsplit_onnx.serving.wire.datatypes import BY_ONNX
from dnnsplit_onnx.slicing.manifest import SliceRecord, load_manifest
from tests.serving.conftest import cut_model


@pytest.fixture(scope="module")
def parse_config():
    """Reads a configuration as Triton's own `model_config.proto` has it."""
    try:
        from tritonclient.grpc import model_config_pb2 as schema
    except (ImportError, RuntimeError):  # it raises the latter where grpc is missing
        pytest.skip("needs tritonclient: pip install 'tritonclient[grpc]'")
    text_format = pytest.importorskip("google.protobuf.text_format")
    return lambda text: text_format.Parse(text, schema.ModelConfig())


def one_port(**fields: Any) -> SliceRecord:
    port = Port(**{"name": "v", "shape": (1,), **fields})
    return SliceRecord(
        tier="t", file="t/m.onnx", sha256="0" * 64, start=0, stop=1, inputs=(port,), outputs=(port,)
    )


def test_every_slice_is_configured_as_triton_reads_it(slices: Path, parse_config):
    for record in load_manifest(slices).slices:
        for provider, kind in (("cpu", 2), ("cuda", 1)):
            config = parse_config(triton_config(record, provider))
            assert (config.name, config.backend, config.max_batch_size) == (record.tier, "onnxruntime", 0)
            assert config.default_model_filename == "model.onnx"
            assert config.instance_group[0].kind == kind
            for said, ports in ((config.input, record.inputs), (config.output, record.outputs)):
                assert [port.name for port in said] == [port.name for port in ports]
                assert all(list(port.dims) == [-1, 8] for port in said)


@pytest.mark.parametrize("dtype", sorted(BY_ONNX))
def test_every_type_is_one_of_tritons(parse_config, dtype: str):
    config = parse_config(triton_config(one_port(dtype=dtype)))
    enum = config.input[0].DESCRIPTOR.fields_by_name["data_type"].enum_type
    name = enum.values_by_number[config.input[0].data_type].name
    assert name == {"string": "TYPE_STRING"}.get(dtype, f"TYPE_{BY_ONNX[dtype].name}")


def test_scalars_optionals_and_odd_names_are_read_by_triton(parse_config):
    scalar = parse_config(triton_config(one_port(dtype="float", shape=())))
    assert list(scalar.input[0].dims) == [1]
    assert scalar.input[0].HasField("reshape")
    assert list(scalar.input[0].reshape.shape) == []
    optional = parse_config(triton_config(one_port(dtype="float", kind="optional")))
    assert optional.input[0].optional
    odd = 'a"\\\n{}\u00e9/:0'
    assert parse_config(triton_config(one_port(dtype="float", name=odd))).input[0].name == odd


def services(folder: Path, **options: Any) -> list[dict[str, Any]]:
    text = export_kserve(folder, **{"storage_uri": "pvc://models/triton", **options})
    return [json.loads(part) for part in text.split("---\n") if part]


def unknown_keys(data: Any, kind: str, models: Any, where: str = "") -> list[str]:
    """Keys of a document that its type in KServe's own API does not have."""
    if kind.startswith("list["):
        return [bad for item in data for bad in unknown_keys(item, kind[5:-1], models, where)]
    model = getattr(models, kind, None)
    if model is None:  # of Kubernetes itself, or no object
        import kubernetes.client.models as core

        model = getattr(core, kind, None)
    if model is None:
        return []
    kinds = {model.attribute_map[name]: inner for name, inner in model.openapi_types.items()}
    found = [f"{where}.{key}" for key in data if key not in kinds]
    for key, value in data.items():
        if key in kinds:
            found += unknown_keys(value, kinds[key], models, f"{where}.{key}")
    return found


@pytest.mark.skipif(importlib.util.find_spec("kserve") is None, reason="needs the package kserve")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_kserve_knows_every_key_of_its_manifests(slices: Path, provider: str):
    import kserve.models as models

    for document in services(slices, provider=provider):
        assert unknown_keys(document, "V1beta1InferenceService", models) == []
        assert document["apiVersion"] == "serving.kserve.io/v1beta1"
        assert unknown_keys({"spec": {"preditor": {}}}, "V1beta1InferenceService", models) == [
            ".spec.preditor"
        ]
        model = document["spec"]["predictor"]["model"]
        assert unknown_keys({**model, "storageURI": "x"}, "V1beta1ModelSpec", models) == [".storageURI"]


@pytest.mark.skipif(
    importlib.util.find_spec("kubernetes_validate") is None, reason="needs the package kubernetes-validate"
)
@pytest.mark.filterwarnings("default")
def test_what_becomes_of_a_manifest_is_a_pod_that_kubernetes_takes(slices: Path):
    import kubernetes_validate

    for document in services(slices, provider="cuda"):
        # KServe puts these fields of a model into the container that it starts.
        model = document["spec"]["predictor"]["model"]
        container = {"name": "kserve-container", "args": model["args"], "resources": model["resources"]}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": document["metadata"],
            "spec": {"containers": [container]},
        }
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
        container["resources"] = {"limits": ["nvidia.com/gpu"]}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


TWO = '<ir_version: 8, opset_import: ["" : 17]> g (float[B] x) => (float[B] y) { a = Relu(x) y = Neg(a) }'


def test_names_of_services_are_what_kubernetes_takes(tmp_path: Path):
    folder = cut_model(TWO, tmp_path, (1,), tiers=("Edge_1", "cloud.west"))
    names = [document["metadata"]["name"] for document in services(folder)]
    assert names == ["edge-1", "cloud-west"]
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) for name in names)


@pytest.mark.parametrize("tiers", [("0", "b"), ("a" * 64, "b"), ("a_b", "a.b"), ("a-", "b")])
def test_names_that_no_service_can_have_are_refused(tmp_path: Path, tiers: tuple[str, str]):
    folder = cut_model(TWO, tmp_path, (1,), tiers=tiers)
    with pytest.raises(InputError, match="no Kubernetes service"):
        services(folder)
