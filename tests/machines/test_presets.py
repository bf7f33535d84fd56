"""Devices and links to start from: complete, sourced, and turned into tiers files that are read."""

from __future__ import annotations

import re
import tomllib
from itertools import combinations
from pathlib import Path

import onnx
import pytest

from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.machines.presets import Connection, Device, Rules, presets, tiers_text
from dnnsplit_onnx.machines.tiers_file import load_topology
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.models import write_model
from dnnsplit_onnx.planning.costs import cost_table
from dnnsplit_onnx.work.analysing import analyse
from dnnsplit_onnx.work.analysis import Analysis

KNOWN = presets()
DEVICES = list(KNOWN.devices.values())
CONNECTIONS = list(KNOWN.connections.values())
RULES = Rules(efficiency=0.5, memory_share=0.5, lifetime_years=2, usd_per_kwh=0.1)


def written(text: str, folder: Path) -> Topology:
    (folder / "tiers.toml").write_text(text)
    return load_topology(folder / "tiers.toml")


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_a_device_has_a_dated_source_and_one_price(device: Device) -> None:
    assert re.search(r"\b20[12]\d\b", device.source)
    # No figure without a page that was read, or a word that says so.
    assert device.source_url or re.search(r"assumed|brief|datasheet|AWS|Intel", device.source)
    assert all(url.startswith("https://") for url in device.source_url)
    assert (device.price_usd is None) != (device.usd_per_hour is None)
    assert min(device.peak_gflops, device.memory_gb, device.memory_gb_per_s, device.watts) > 0


def test_idle_power_is_written_as_a_comment_where_a_page_has_it(tmp_path: Path) -> None:
    """Whether these requests are to pay for it, the person decides."""
    known = [device for device in DEVICES if device.idle_watts is not None]
    assert {"raspberry-pi-4", "apple-m1"} <= {device.name for device in known}
    for device in known:
        assert device.idle_watts is not None
        assert 0 < device.idle_watts < device.watts
        text = tiers_text([("edge", device)], [], KNOWN.rules)
        assert written(text, tmp_path).tiers[0].idle_watts == 0
        uncommented = text.replace("# idle_watts", "idle_watts")
        assert written(uncommented, tmp_path).tiers[0].idle_watts == device.idle_watts
    assert "idle_watts" not in tiers_text([("edge", KNOWN.device("l4"))], [], KNOWN.rules)


@pytest.mark.parametrize("link", CONNECTIONS, ids=lambda link: link.name)
def test_a_link_says_where_its_figures_come_from(link: Connection) -> None:
    assert "assumed" in link.source or re.search(r"\b20[12]\d\b", link.source)
    assert link.bandwidth_mbps > 0


def test_ethernet_is_what_the_headers_leave() -> None:
    for name, gross in (("ethernet-100", 100), ("ethernet-1g", 1000), ("datacentre", 10000)):
        assert KNOWN.connection(name).bandwidth_mbps == pytest.approx(gross * 1460 / 1538, rel=1e-3)


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_every_device_makes_a_tier(device: Device, tmp_path: Path) -> None:
    topology = written(tiers_text([("edge", device)], [], KNOWN.rules), tmp_path)
    (tier,) = topology.tiers
    assert tier.gflops == pytest.approx(0.3 * (device.tensor_gflops or device.peak_gflops), rel=5e-3)
    assert tier.memory_gb == pytest.approx(0.8 * device.memory_gb, rel=5e-3)
    assert (tier.watts, tier.provider) == (device.watts, device.provider)
    assert tier.cost_model == ("gflops" if device.provider == "cpu" else "roofline")


@pytest.mark.parametrize("link", CONNECTIONS, ids=lambda link: link.name)
def test_every_link_joins_tiers(link: Connection, tmp_path: Path) -> None:
    tiers = [("a", DEVICES[0]), ("b", DEVICES[1])]
    (found,) = written(tiers_text(tiers, [link], KNOWN.rules), tmp_path).links
    assert (found.bandwidth_mbps, found.down_mbps) == (link.bandwidth_mbps, link.down_mbps)
    assert found.delay_ms == link.delay_ms


def test_the_rules() -> None:
    bought = Device("d", "D", 100, 8, 10, 50, "2020", price_usd=2 * 8766 * 0.02)
    assert bought.gflops(RULES) == 50
    assert bought.hourly(RULES) == pytest.approx(0.02 + 0.05 * 0.1)
    assert Device("d", "D", 100, 8, 10, 50, "2020", usd_per_hour=3).hourly(RULES) == 3


def test_the_file_says_what_it_is() -> None:
    text = tiers_text([("edge", DEVICES[0]), ("cloud", DEVICES[-1])], [CONNECTIONS[0]], KNOWN.rules)
    lines = text.splitlines()
    assert lines[0] == "#:schema ./tiers.schema.json"
    assert "profile" in lines[2]
    assert "Estimates" in lines[2]
    said = " ".join(line.removeprefix("#").strip() for line in lines)
    for part in (DEVICES[0], DEVICES[-1], CONNECTIONS[0]):
        assert part.source in said
    assert max(map(len, lines)) <= 110
    without = tiers_text([("edge", DEVICES[0])], [], KNOWN.rules, schema=False)
    assert "#:schema" not in without
    assert tomllib.loads(without)["tier"][0]["name"] == "edge"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("raspberry_pi_4", "did you mean `raspberry-pi-4`? "), ("zx81", "known: raspberry-pi-3")],
)
def test_an_unknown_device(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"no device is named `{name}`") as caught:
        KNOWN.device(name)
    assert (caught.value.hint or "").startswith(hint)


def test_an_unknown_link() -> None:
    with pytest.raises(InputError, match="no link is named `carrier-pigeon`"):
        KNOWN.connection("carrier-pigeon")


def test_links_must_fit_the_tiers() -> None:
    with pytest.raises(ValueError, match="longer"):
        tiers_text([("edge", DEVICES[0])], [CONNECTIONS[0]], KNOWN.rules)


# Images of ResNet-50 a second, MLPerf Inference, closed division, Offline, NVIDIA's own submissions
# (github.com/mlcommons/inference_results_v3.0, of the T4 _v0.7: */resnet50/Offline/performance).
# They are in INT8 with TensorRT, so that only their order is of use here. In SingleStream the L4 is
# the quicker one, 0.36 ms to 0.47 ms of the A100: at so few milliseconds a GPU's start counts more.
MLPERF = {
    "h100": 56_635,
    "a100": 39_152,
    "l4": 13_158,
    "jetson-agx-orin": 6_438,
    "t4": 6_036,
    "jetson-orin-nx": 2_518,
}
# Milliseconds of a language model in 32-bit floats, measured by its makers
# (huggingface.co/sinequa/answer-finder-v1-L-multilingual).
FP32_MS = {"a10": 84, "l4": 124, "t4": 362}
# Results this close have no order.
CLOSE = 1.1


def seconds_on(name: str, analysis: Analysis, folder: Path) -> float:
    topology = written(tiers_text([("edge", KNOWN.device(name))], [], KNOWN.rules), folder)
    return float(cost_table(analysis, topology).seconds_below[0, -1])


def of_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return model


def test_gpus_are_as_quick_beside_each_other_as_measured(tmp_path: Path) -> None:
    write_model("light_resnet50", tmp_path / "m.onnx")
    for batch in (1, 64):
        analysis = analyse(of_batch(onnx.load(tmp_path / "m.onnx"), batch))
        predicted = {name: seconds_on(name, analysis, tmp_path) for name in (*MLPERF, *FP32_MS)}
        for one, other in combinations(MLPERF, 2):
            if MLPERF[one] > CLOSE * MLPERF[other]:
                assert predicted[one] < predicted[other], (one, other)
        for one, other in combinations(FP32_MS, 2):
            assert predicted[one] < predicted[other], (one, other)
