"""The zoo's framework models: the table, and (slow) every conversion."""

from __future__ import annotations

import pytest

from dnnsplit_onnx import load_topology, plan, slice_model, verify
from dnnsplit_onnx.converters import convert
from dnnsplit_onnx.converters.extras import EXTRAS, missing
from dnnsplit_onnx.errors import MissingExtraError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.shapes import bind_shapes
from dnnsplit_onnx.models import ENTRIES, frameworks
from dnnsplit_onnx.models.frameworks import FRAMEWORK_ENTRIES, build_framework_model
from dnnsplit_onnx.work.analysis import measure
from tests.converters.support import needs

ASKED_FOR = [
    "keras_vgg16",
    "keras_mobilenetv2",
    "keras_efficientnetb0",
    "keras_resnet50",
    "keras_resnet101",
    "keras_resnet152",
    "keras_inceptionv3",
    "keras_densenet169",
    "keras_xception",
    "torch_alexnet",
    "torch_resnet18",
    "torch_vgg16",
    "torch_mobilenetv2",
    "torch_vit_base16",
    "torch_bert_base",
    "torch_gpt2",
    "torch_gpt2_past",
    "torch_llama",
    "torch_llama_past",
    "torch_yolo",
    "torch_lstm",
]
# Each step of a decoder takes one token and remembers sixteen, where figures are recorded.
SIZES = {"sequence": 1, "past_sequence": 16}


@pytest.mark.parametrize("name", ASKED_FOR)
def test_what_people_measure_with_is_there(name):
    assert name in FRAMEWORK_ENTRIES


def test_names_do_not_clash_with_the_rest_of_the_zoo():
    assert not set(FRAMEWORK_ENTRIES) & set(ENTRIES)


@pytest.mark.parametrize("entry", FRAMEWORK_ENTRIES.values(), ids=lambda entry: entry.name)
def test_entries_say_what_they_are_and_need(entry):
    assert entry.summary
    assert entry.source
    assert set(entry.extras) <= set(EXTRAS)
    assert entry.requires == f"dnnsplit-onnx[{','.join(entry.extras)}]"
    assert entry.layers > 0
    assert entry.macs > entry.nodes > 0
    assert entry.weight_nbytes == 4 * entry.parameters > 0


def test_the_published_layer_counts():
    layers = {
        name: FRAMEWORK_ENTRIES[f"keras_{name}"].layers
        for name in ("resnet50", "resnet152", "efficientnetb0")
    }
    assert layers == {"resnet50": 177, "resnet152": 517, "efficientnetb0": 240}


def test_what_is_missing_comes_with_the_line_that_installs_it(monkeypatch):
    def build():
        raise ModuleNotFoundError("No module named 'transformers'", name="transformers")

    entry = FRAMEWORK_ENTRIES["torch_gpt2"]
    monkeypatch.setitem(
        FRAMEWORK_ENTRIES, "torch_gpt2", frameworks.FrameworkEntry(**{**_fields(entry), "build": build})
    )
    with pytest.raises(MissingExtraError) as caught:
        build_framework_model("torch_gpt2")
    assert caught.value.hint == 'pip install "dnnsplit-onnx[pytorch,zoo]"'


# Small enough for every run: two seconds each.
@pytest.mark.parametrize("name", [pytest.param("torch_lstm", marks=needs("pytorch", "cpu"))])
def test_a_small_one_converts(name, tmp_path):
    _convert(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", FRAMEWORK_ENTRIES)
def test_every_model_converts_and_matches_its_record(name, tmp_path):
    absent = [extra for extra in (*FRAMEWORK_ENTRIES[name].extras, "cpu") if missing(extra)]
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)}")
    _convert(name, tmp_path)


def _convert(name, folder):
    """Converts a model and holds it against its record."""
    entry = FRAMEWORK_ENTRIES[name]
    report = convert(f"zoo:{name}", folder / "m.onnx")
    assert report.max_rel_diff <= 1e-4
    assert (report.layers, report.parameters) == (entry.layers, entry.parameters)
    if report.route != "keras-tf":  # NASNet alone has no lighter way
        assert report.peak_nbytes < 4e9
    graph = load_graph(folder / "m.onnx")
    sizes = {d: SIZES.get(d, 1) for port in report.inputs for d in port.shape if isinstance(d, str)}
    analysis = measure(graph, bind_shapes(graph, sizes))
    assert (len(graph.nodes), int(analysis.macs.sum())) == (entry.nodes, entry.macs)
    for tiers in (2, 3):
        _split_bitwise(graph, analysis, tiers, folder / f"in_{tiers}")


def _split_bitwise(graph, analysis, tiers, folder):
    """Splits into parts of equal numbers of nodes, wherever those cuts fall."""
    table = [f'[[tier]]\nname = "t{at}"\ngflops = {10 ** (at + 1)}\nusd_per_hour = 1' for at in range(tiers)]
    link = "[[link]]\nbandwidth_mbps = 100\ndelay_ms = 1\nusd_per_hour = 0"
    toml = folder.with_suffix(".toml")
    toml.write_text("\n".join(table + [link] * (tiers - 1)))
    cuts = [len(graph.nodes) * (at + 1) // tiers for at in range(tiers - 1)]
    chosen = plan(analysis, load_topology(toml), cuts=cuts, pareto=False, bound=False)
    slice_model(graph, chosen, folder)
    assert verify(folder).bitwise


def _fields(entry):
    return {name: getattr(entry, name) for name in entry.__dataclass_fields__}


# PyTorch's counter knows no attention kernel of the CPU: layers x 2 x queries x keys x width.
ATTENTION = {
    "torch_alexnet": 0,
    "torch_vgg16": 0,
    "torch_resnet18": 0,
    "torch_mobilenetv2": 0,
    "torch_yolo": 0,
    "torch_vit_base16": 12 * 2 * 197 * 197 * 768,
    "torch_bert_base": 12 * 2 * 128 * 128 * 768,
    "torch_gpt2": 12 * 2 * 128 * 128 * 768,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=needs("pytorch", "zoo")) for name in ATTENTION])
def test_macs_are_those_that_pytorch_counts(name):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    entry = FRAMEWORK_ENTRIES[name]
    module, inputs, _ = entry.build()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(**inputs) if isinstance(inputs, dict) else module.eval()(*inputs)
    # Two FLOPs a multiply-add, and samples come in pairs.
    assert counter.get_total_flops() // 4 + ATTENTION[name] == entry.macs
