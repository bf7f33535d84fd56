"""The slices of a plan for other engines: a Triton model repository, and KServe manifests.

    REPO/TIER/config.pbtxt
    REPO/TIER/1/model.onnx        and its file of weights

A Triton server runs its slice and answers with what that makes; it sends nothing on. So it
can be the last tier of a chain whose other tiers are `serve --next`, or stand alone.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from dnnsplit_onnx.errors import InputError, ManifestError
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.running.origin import slices_folder
from dnnsplit_onnx.serving.wire.datatypes import BY_ONNX
from dnnsplit_onnx.slicing.checking import check_files
from dnnsplit_onnx.slicing.manifest import Manifest, SliceRecord, load_manifest
from dnnsplit_onnx.slicing.staging import staged_folder

_MODEL = "model.onnx"
#: Marks a folder as an export, so that `--force` replaces nothing else.
_CONFIG = "config.pbtxt"
# KServe adds words to it, and the whole must be a label of at most 63 letters.
_SERVICE = re.compile(r"[a-z](?:[-a-z0-9]{0,38}[a-z0-9])?")


def export_triton(
    folder: Path,
    output: Path,
    *,
    tiers: Sequence[str] = (),
    provider: str | None = None,
    force: bool = False,
) -> list[str]:
    """Writes a Triton model repository.

    Args:
        folder: The folder of slices.
        output: The repository to make. It appears whole or not at all.
        tiers: Which tiers to export; all that have work if none is named.
        provider: `cpu` or `cuda`; by default what the manifest says of each tier.
        force: Whether to replace an existing export.

    Returns:
        The tiers that were exported.

    Raises:
        InputError: There is no such tier, or it has no work.
        ManifestError: A slice is not the one that was written, or cannot be exported.
        OutputError: The output exists, or cannot be written.
    """
    place = slices_folder(folder)
    manifest = load_manifest(place)
    records = _chosen(manifest, tiers)
    with staged_folder(output, force=force, ours=_is_export, keep=[place]) as made:
        for record in records:
            check_files(place, record)
            target = made / record.tier
            (target / "1").mkdir(parents=True)
            engine = provider or record.provider or "cpu"
            (target / _CONFIG).write_text(triton_config(record, engine), encoding="utf-8")
            shutil.copyfile(place / _file(record), target / "1" / _MODEL)
            for data in record.data:
                shutil.copyfile(place / data.file, target / "1" / Path(data.file).name)
    return [record.tier for record in records]


def triton_config(record: SliceRecord, provider: str = "cpu") -> str:
    """The text of a slice's config.pbtxt.

    Raises:
        ManifestError: A value has no type that Triton knows, or no rank.
    """
    kind = "KIND_GPU" if provider == "cuda" else "KIND_CPU"
    return (
        f'name: {json.dumps(record.tier)}\nbackend: "onnxruntime"\n'
        # Slices have the batch among their own dimensions, or none at all.
        f"max_batch_size: 0\ndefault_model_filename: {json.dumps(_MODEL)}\n"
        f"{''.join(_port('input', port) for port in record.inputs)}"
        f"{''.join(_port('output', port) for port in record.outputs)}"
        f"instance_group [\n  {{\n    count: 1\n    kind: {kind}\n  }}\n]\n"
    )


def export_kserve(
    folder: Path,
    *,
    storage_uri: str,
    tiers: Sequence[str] = (),
    provider: str | None = None,
    namespace: str = "default",
) -> str:
    """Kubernetes manifests that serve slices with KServe's Triton runtime.

    Args:
        folder: The folder of slices.
        storage_uri: Where the Triton repository was uploaded to, as KServe reads it
            (`pvc://`, `s3://`, ...).
        tiers: Which tiers; all that have work if none is named.
        provider: `cpu` or `cuda`; by default what the manifest says of each tier.
        namespace: Of Kubernetes.

    Returns:
        The text of a YAML file, one document a tier.

    Raises:
        InputError: There is no such tier, or its name is none that a service can have.
    """
    records = _chosen(load_manifest(slices_folder(folder)), tiers)
    names = _service_names([record.tier for record in records])
    documents = [
        _inference_service(record.tier, name, storage_uri, provider or record.provider or "cpu", namespace)
        for record, name in zip(records, names, strict=True)
    ]
    # JSON is YAML, and says the same to every reader of it.
    return "".join(f"---\n{json.dumps(document, indent=2)}\n" for document in documents)


def _service_names(tiers: Sequence[str]) -> list[str]:
    """Names that Kubernetes takes for services, one a tier."""
    names = [tier.lower().replace("_", "-").replace(".", "-") for tier in tiers]
    for tier, name in zip(tiers, names, strict=True):
        if _SERVICE.fullmatch(name) is None or names.count(name) > 1:
            raise InputError(
                f"tier `{tier}` has a name that no Kubernetes service can have, or that another gets",
                hint="name it with letters, digits and `-` in the tiers file, and split again",
            )
    return names


def _inference_service(
    tier: str, name: str, storage_uri: str, provider: str, namespace: str
) -> dict[str, object]:
    resources: dict[str, dict[str, str]] = {"requests": {"cpu": "1", "memory": "1Gi"}}
    if provider == "cuda":
        resources["limits"] = {"nvidia.com/gpu": "1"}
    model = {
        "modelFormat": {"name": "onnx"},
        "runtime": "kserve-tritonserver",
        "protocolVersion": "v2",
        "storageUri": f"{storage_uri.rstrip('/')}",
        # Only this tier's model of the repository is loaded.
        "args": ["--model-control-mode=explicit", f"--load-model={tier}"],
        "resources": resources,
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"predictor": {"minReplicas": 1, "model": model}},
    }


def _chosen(manifest: Manifest, tiers: Sequence[str]) -> list[SliceRecord]:
    if manifest.states:
        raise InputError(
            "the model keeps states from request to request, which these engines are not told to do",
            hint="serve its tiers with `serve`",
        )
    known = {record.tier: record for record in manifest.slices}
    for tier in tiers:
        if tier not in known:
            raise InputError(f"no tier is named `{tier}`", hint=f"the tiers are {', '.join(known)}")
        if known[tier].file is None:
            raise InputError(f"tier `{tier}` has no work, and so no slice to export")
    chosen = tiers or [tier for tier, record in known.items() if record.file is not None]
    return [known[tier] for tier in chosen]


def _file(record: SliceRecord) -> str:
    assert record.file is not None  # `_chosen` leaves out the others
    return record.file


def _port(way: str, port: Port) -> str:
    datatype = BY_ONNX.get(port.dtype or "")
    if datatype is None or port.kind not in ("tensor", "optional") or port.shape is None:
        raise ManifestError(
            f"value `{port.name}` cannot be described to Triton: it is no tensor of known type and rank",
            hint="cut elsewhere: split --at",
        )
    name = "TYPE_STRING" if datatype.name == "BYTES" else f"TYPE_{datatype.name}"
    dims = [size if isinstance(size, int) else -1 for size in port.shape]
    # Triton has no scalars: they are one element, reshaped.
    shape = f"    dims: {dims}\n" if dims else "    dims: [1]\n    reshape { shape: [] }\n"
    optional = "    optional: true\n" if way == "input" and port.kind == "optional" else ""
    return (
        f"{way} [\n  {{\n    name: {json.dumps(port.name)}\n    data_type: {name}\n{shape}{optional}  }}\n]\n"
    )


def _is_export(folder: Path) -> bool:
    found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return bool(found) and all((path / _CONFIG).is_file() for path in found)
