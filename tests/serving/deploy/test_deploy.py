"""Files for other machines and other engines, read by the programs they are for."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from dnnsplit_onnx.errors import InputError, ManifestError, OutputError
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.serving.deploy.deploy import (
    compose_file,
    plan_deployment,
    systemd_unit,
    write_deployment,
)
from dnnsplit_onnx.serving.deploy.export import export_kserve, export_triton, triton_config
from dnnsplit_onnx.serving.deploy.wheel import wheel_name
from dnnsplit_onnx.slicing.manifest import SliceRecord, load_manifest
from tests.serving.conftest import cut_model


def test_compose_and_units_are_written_once(slices: Path, tmp_path: Path):
    deployment = plan_deployment(slices)
    paths = write_deployment(deployment, tmp_path, force=False)
    assert {path.name for path in paths} == {
        "docker-compose.yml",
        "Dockerfile",
        "secrets.sh",
        "dnnsplit-near.service",
        "dnnsplit-cloud.service",
        wheel_name(),
    }
    with pytest.raises(OutputError, match="exists already"):
        write_deployment(deployment, tmp_path, force=False)
    write_deployment(deployment, tmp_path, force=True)


def test_compose_is_yaml_that_says_what_it_should(slices: Path):
    yaml = pytest.importorskip("yaml", reason="needs PyYAML to read the file")
    data = yaml.safe_load(compose_file(plan_deployment(slices, {"cloud": "cuda"})))
    near, cloud = data["services"]["near"], data["services"]["cloud"]
    assert near["read_only"] is True
    assert near["cap_drop"] == ["ALL"]
    assert near["command"][:2] == ["serve", "/slices/near"]
    assert near["command"][near["command"].index("--next") + 1] == "https://cloud:8443"
    assert near["depends_on"] == {"cloud": {"condition": "service_healthy"}}
    assert "ports" in near
    assert "ports" not in cloud
    assert "--next" not in cloud["command"]
    assert cloud["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert set(near["secrets"]) <= set(data["secrets"])
    assert near["volumes"][0]["source"] == str(slices)


def test_compose_is_accepted_by_docker(slices: Path, tmp_path: Path):
    asked = shutil.which("docker") and subprocess.run(
        ["docker", "compose", "version"], capture_output=True, check=False
    )
    if not asked or asked.returncode:
        pytest.skip("needs docker with its plugin compose")
    write_deployment(plan_deployment(slices), tmp_path, force=False)
    subprocess.run(["docker", "compose", "config", "--quiet"], check=True, capture_output=True, cwd=tmp_path)


def test_units_are_what_systemd_reads(slices: Path, tmp_path: Path):
    text = systemd_unit(plan_deployment(slices), "near")
    assert "ExecStart=/usr/bin/env dnnsplit-onnx serve /var/lib/dnnsplit/slices/near" in text
    assert "--next https://cloud:8443" in text
    assert "@" not in text
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze to verify the unit further")
    path = tmp_path / "dnnsplit-near.service"
    path.write_text(text)
    subprocess.run(["systemd-analyze", "verify", str(path)], check=True, capture_output=True)


def test_one_tier_is_nothing_to_deploy(tmp_path: Path):
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[B] x) => (float[B] y) { y = Relu(x) }'
    folder = cut_model(text, tmp_path, (), tiers=("edge",))
    with pytest.raises(InputError, match="nothing to deploy"):
        plan_deployment(folder)


@pytest.mark.parametrize("layout", ["plain", "candidates"])
def test_a_triton_repository_holds_models_that_run(
    slices: Path, plain_slices: Path, tmp_path: Path, layout: str
):
    folder = plain_slices if layout == "plain" else slices
    assert export_triton(folder, tmp_path / "repo") == ["edge", "near", "cloud"]
    for record in load_manifest(folder).slices:
        model = tmp_path / "repo" / record.tier / "1" / "model.onnx"
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        assert {value.name for value in session.get_inputs()} == {port.name for port in record.inputs}
    with pytest.raises(OutputError):
        export_triton(folder, tmp_path / "repo")
    export_triton(folder, tmp_path / "repo", tiers=["cloud"], force=True)
    assert [path.name for path in (tmp_path / "repo").iterdir()] == ["cloud"]


def test_scalars_strings_and_optionals_are_described_as_triton_has_them():
    ports = (Port(name="s", dtype="string", shape=(None,)), Port(name='n"', dtype="int64", shape=()))
    optional = Port(name="o", dtype="float", shape=(1,), kind="optional")
    record = SliceRecord(
        tier="t", file="t/m.onnx", sha256="0" * 64, start=0, stop=1, inputs=(*ports, optional)
    )
    text = triton_config(record)
    assert "TYPE_STRING" in text
    assert "reshape { shape: [] }" in text
    assert 'name: "n\\""' in text
    assert text.count("optional: true") == 1
    with pytest.raises(ManifestError, match="cannot be described"):
        triton_config(record.model_copy(update={"inputs": (Port(name="q", dtype="float"),)}))


def test_kserve_manifests_name_a_service_for_each_tier(slices: Path):
    text = export_kserve(slices, storage_uri="pvc://models/triton/", tiers=["cloud"], provider="cuda")
    (document,) = [json.loads(part) for part in text.split("---\n") if part]
    model = document["spec"]["predictor"]["model"]
    assert document["metadata"] == {"name": "cloud", "namespace": "default"}
    assert model["storageUri"] == "pvc://models/triton"
    assert model["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert np.all([word.startswith("--") for word in model["args"]])
