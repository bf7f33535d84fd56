"""Tiers files, profiles, plans, manifests and archives of inputs made to do harm."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dnnsplit_onnx.errors import InputError, ManifestError, PlanError, ProfileError, TopologyError
from dnnsplit_onnx.files import file_sha256, read_bounded
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.ports import Port
from dnnsplit_onnx.machines.profiles import load_profile, parse_profile
from dnnsplit_onnx.machines.tiers_file import load_topology, read_topology
from dnnsplit_onnx.planning.plans import load_plan, parse_plan
from dnnsplit_onnx.running.origin import find_model
from dnnsplit_onnx.runtime import archive
from dnnsplit_onnx.runtime.inputs import load_inputs
from dnnsplit_onnx.slicing import slice_model
from dnnsplit_onnx.slicing.checking import check_files
from dnnsplit_onnx.slicing.manifest import Manifest, load_manifest, parse_manifest
from tests.fuzz.campaign import CORPUS
from tests.hostile.claims import relu
from tests.hostile.confined import confined, refused
from tests.slicing.chain import plan_at
from tests.slicing.weights import layers, save

TIER = b'[[tier]]\nname = "a"\ngflops = 1\n'
DEEP = "[" * 100_000


@pytest.fixture
def slices(tmp_path: Path) -> Path:
    """A folder of slices with a file of weights."""
    graph = load_graph(save(layers(), tmp_path / "source.onnx", external=True))
    slice_model(graph, plan_at(graph, (2,)), tmp_path / "slices")
    return tmp_path / "slices"


class TestTiers:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            pytest.param(b"x = " + DEEP.encode(), "nested too deep", id="nested arrays"),
            pytest.param(b"x = " + b"{a=" * 100_000, "nested too deep", id="nested tables"),
            # A key of n parts costs tomllib n * n bytes.
            pytest.param(b".".join([b"a"] * 500_000) + b" = 1", "dots", id="dotted key"),
            pytest.param(b"[" + b".".join([b"a"] * 500_000) + b"]", "dots", id="dotted header"),
            pytest.param(TIER + b"watts = " + b"9" * 10_000, "is not TOML", id="digits"),
            pytest.param(TIER + b"watts = " + b"9" * 1000, r"watts` = \.\.\.", id="a long number"),
            pytest.param(TIER + b'x = "' + b"y" * 100_000 + b'"', "unknown key", id="a long value"),
            pytest.param(TIER.replace(b"gflops = 1", b"gflops = 1e-320"), "gflops", id="too slow"),
            pytest.param(TIER + b"memory_gb = 1e308", "memory_gb", id="too large"),
            pytest.param(b"\xff\xfe", "is not TOML", id="not UTF-8"),
        ],
    )
    def test_is_refused(self, text: bytes, reason: str) -> None:
        with pytest.raises(TopologyError, match=reason) as caught:
            read_topology(text, Path("tiers.toml"))
        assert len(str(caught.value)) < 500

    def test_that_are_many_are_refused_in_time(self, tmp_path: Path) -> None:
        path = tmp_path / "tiers.toml"
        path.write_bytes(b"".join(b'[[tier]]\nname="t%d"\ngflops=1\n' % at for at in range(30_000)))
        with pytest.raises(TopologyError, match="at most 1024 items"):
            load_topology(path)

    def test_file_without_end_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "tiers.toml").symlink_to("/dev/zero")
        model = tmp_path / "m.onnx"
        model.write_bytes(relu().SerializeToString())
        refused(confined("plan", model, "--tiers", tmp_path / "tiers.toml"), "larger than")

    @pytest.mark.parametrize("target", ["/dev/zero", "pipe"])
    def test_cannot_name_a_profile_without_end(self, target: str, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        tiers = tmp_path / "tiers.toml"
        tiers.write_text(f'[[tier]]\nname = "a"\nprofile = "{target}"\n')
        model = tmp_path / "m.onnx"
        model.write_bytes(relu().SerializeToString())
        refused(confined("plan", model, "--tiers", tiers), "not a regular file")


class TestProfiles:
    @pytest.mark.parametrize(
        ("key", "value", "reason"),
        [
            ("overhead_s", "NaN", "overhead_s"),
            ("whole_s", "Infinity", "whole_s"),
            ("whole_s", "1e400", "whole_s"),
            ("whole_s", "1e300", "whole_s"),
            ("nodes", "1" + "0" * 4000, "nodes"),
            ("nodes", "9" * 5000, "cannot read profile"),
            ("nodes", str(1 << 40), "nodes"),
            ("node_seconds", DEEP, "cannot read profile"),
            ("node_seconds", "[-1, 0, 0, 0]", "node_seconds"),
            ("bindings", '{"N": "1"}'.replace('"1"', DEEP), "cannot read profile"),
        ],
    )
    def test_with_broken_numbers_are_refused(self, key: str, value: str, reason: str) -> None:
        data = json.loads((CORPUS / "profile" / "nodes").read_bytes())
        text = json.dumps({**data, key: "HERE"}).replace('"HERE"', value)
        with pytest.raises(ProfileError, match=reason):
            parse_profile(text.encode(), "p.json")

    def test_of_more_nodes_than_the_model_take_no_memory(self, tmp_path: Path) -> None:
        model = tmp_path / "m.onnx"
        model.write_bytes(relu().SerializeToString())
        data = json.loads((CORPUS / "profile" / "two").read_bytes())
        count = 1 << 32  # an array of that many seconds would be 32 GiB
        data |= {"nodes": count, "model_sha256": file_sha256(model), "bindings": {}, "provider": "cpu"}
        data["segments"] = [{**data["segments"][0], "start": 0, "stop": count}]
        (tmp_path / "p.json").write_text(json.dumps(data))
        (tmp_path / "tiers.toml").write_text('[[tier]]\nname = "edge"\nprofile = "p.json"\n')
        refused(confined("plan", model, "--tiers", tmp_path / "tiers.toml"), "p.json")


class TestPlans:
    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"objective": "fame"}, "objective"),
            ({"evaluated": 10**30}, "evaluated"),
            ({"evaluated": True}, "evaluated"),
            ({"order": ["file"]}, "order"),
            ({"latency_s": [1]}, "latency_s"),
            ({"bindings": {"N": "1"}}, "bindings"),
            ({"permutation": [0, "1"]}, "permutation"),
        ],
    )
    def test_with_wrong_types_are_refused(self, change: dict[str, object], field: str) -> None:
        data = json.loads((CORPUS / "plan" / "full").read_bytes()) | change
        with pytest.raises(PlanError, match=field):
            parse_plan(json.dumps(data).encode(), "plan.json")

    def test_with_a_stage_of_wrong_types_are_refused(self) -> None:
        data = json.loads((CORPUS / "plan" / "full").read_bytes())
        data["stages"][0]["start"] = "0"
        with pytest.raises(PlanError, match="stages"):
            parse_plan(json.dumps(data).encode(), "plan.json")

    def test_nested_without_end_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "plan.json").write_text(DEEP)
        with pytest.raises(PlanError, match="cannot read plan"):
            load_plan(tmp_path / "plan.json")


class TestManifests:
    @pytest.mark.parametrize("target", ["/etc/hostname", "../source.onnx"])
    def test_links_out_of_the_folder_are_refused(self, slices: Path, target: str) -> None:
        found = load_manifest(slices)
        for name in ("model.onnx", "model.onnx.data"):
            path = slices / found.slices[0].tier / name
            content = path.read_bytes()
            path.unlink()
            path.symlink_to(target if target.startswith("/") else slices / target)
            with pytest.raises(ManifestError, match="is a link that leaves the folder"):
                check_files(slices, found.slices[0])
            path.unlink()
            path.write_bytes(content)
        check_files(slices, found.slices[0])

    def test_a_linked_tier_folder_is_refused(self, slices: Path, tmp_path: Path) -> None:
        found = load_manifest(slices)
        (slices / found.slices[0].tier).rename(tmp_path / "elsewhere")
        (slices / found.slices[0].tier).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ManifestError, match="is a link that leaves the folder"):
            check_files(slices, found.slices[0])

    def test_the_folder_itself_may_be_a_link(self, slices: Path, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(slices)
        check_files(tmp_path / "link", load_manifest(tmp_path / "link").slices[0])

    def test_pipes_and_folders_are_no_slices(self, slices: Path) -> None:
        found = load_manifest(slices)
        path = slices / found.slices[0].tier / "model.onnx"
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(ManifestError, match="cannot read slice file"):
            check_files(slices, found.slices[0])
        path.unlink()
        path.mkdir()
        with pytest.raises(ManifestError, match="cannot read slice file"):
            check_files(slices, found.slices[0])

    def test_the_whole_model_is_no_device(self, slices: Path) -> None:
        found = load_manifest(slices)
        endless = found.model_copy(update={"model": found.model.model_copy(update={"path": "/dev/zero"})})
        with pytest.raises(ManifestError, match="cannot read the whole model"):
            find_model(slices, endless)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"tier": "edge HTTP/1.1\r\nHost: elsewhere"}, "tier"),
            ({"tier": "../edge"}, "tier"),
            ({"start": -1}, "start"),
            ({"stop": 10**30}, "stop"),
            ({"file": "/etc/passwd"}, "leaves the folder"),
            ({"file": "edge/../../m.onnx"}, "leaves the folder"),
            ({"file": "C:\\m.onnx"}, "leaves the folder"),
        ],
    )
    def test_broken_slices_are_refused(self, slices: Path, change: dict[str, object], reason: str) -> None:
        data = load_manifest(slices).model_dump(mode="json")
        data["slices"][0] |= change
        with pytest.raises(ManifestError, match=reason):
            parse_manifest(json.dumps(data).encode(), "manifest.json")

    def test_a_slice_without_a_checksum_is_not_opened(self, slices: Path) -> None:
        record = load_manifest(slices).slices[0].model_copy(update={"digests": {}})
        with pytest.raises(ManifestError, match="has no checksum"):
            check_files(slices, record)

    def test_without_slices_are_refused(self, slices: Path) -> None:
        data = load_manifest(slices).model_dump(mode="json") | {"slices": []}
        with pytest.raises(ManifestError, match="slices"):
            parse_manifest(json.dumps(data).encode(), "manifest.json")

    def test_that_are_no_regular_file_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "manifest.json").symlink_to("/dev/zero")
        with pytest.raises(ManifestError, match="not a regular file"):
            load_manifest(tmp_path)


def test_slices_with_weights_elsewhere_are_not_opened(slices: Path, tmp_path: Path) -> None:
    """Whoever writes a manifest can write its checksums: onnxruntime must keep to the folder."""
    found: Manifest = load_manifest(slices)
    tier = slices / found.slices[0].tier
    (tmp_path / "secret").write_bytes((tier / "model.onnx.data").read_bytes())
    model = load_graph(tier / "model.onnx").proto  # its references as they are
    runtime = pytest.importorskip("onnxruntime")
    for location in ("../../secret", str(tmp_path / "secret")):
        for weight in model.graph.initializer:
            for entry in weight.external_data:
                if entry.key == "location":
                    entry.value = location
        (tier / "model.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(Exception, match=r"(?i)external data|escape|outside|absolute"):
            runtime.InferenceSession(tier / "model.onnx", providers=["CPUExecutionProvider"])


class TestArchives:
    PORT = (Port(name="x", dtype="float", shape=("N",)),)

    def test_that_unpack_to_gigabytes_are_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(archive, "_MOST_UNASKED", 1 << 20)
        np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(1 << 22, np.float32))
        with pytest.raises(InputError, match=r"unpacks from \d+ to 16777"):
            load_inputs(tmp_path / "bomb.npz", self.PORT)
        np.savez(tmp_path / "plain.npz", x=np.zeros(1 << 22, np.float32))
        assert load_inputs(tmp_path / "plain.npz", self.PORT).values["x"].shape == (1 << 22,)

    @pytest.mark.parametrize("shape", [(1 << 45,), (1 << 62, 1 << 62), (-5,), (1 << 70,)])
    def test_whose_shapes_are_not_theirs_are_refused(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        head = io.BytesIO()
        description = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(head, description)
        with zipfile.ZipFile(tmp_path / "claim.npz", "w") as made:
            made.writestr("x.npy", head.getvalue() + bytes(16))
        with pytest.raises(InputError, match="cannot read inputs"):
            load_inputs(tmp_path / "claim.npz", self.PORT)

    def test_of_names_that_climb_write_nothing(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "climb.npz", **{"../x": np.zeros(1, np.float32)})
        before = sorted(tmp_path.parent.iterdir())
        with pytest.raises(InputError, match=r"missing|unknown"):
            load_inputs(tmp_path / "climb.npz", self.PORT)
        assert sorted(tmp_path.parent.iterdir()) == before


def test_small_files_are_read_within_their_bound(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, most_nbytes=5) == b"12345"
    with pytest.raises(OSError, match="larger than"):
        read_bounded(path, most_nbytes=4)
    for broken in (tmp_path, Path("/dev/null")):
        with pytest.raises(OSError, match=r"directory|regular"):
            read_bounded(broken)
    with pytest.raises(ProfileError, match="no such profile"):
        load_profile(tmp_path / "none")
