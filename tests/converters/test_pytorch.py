"""PyTorch modules and exported programs."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.converters import convert
from dnnsplit_onnx.converters.parity import OnnxRun
from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.layers import layer_positions
from tests.converters.support import needs
from tests.converters.test_finishing import every_text

pytestmark = [needs("pytorch", "cpu"), pytest.mark.filterwarnings("ignore")]

NET = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
    def forward(self, x):
        return x + self.norm(self.conv(x)).relu()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(4, 5)
    def forward(self, image):
        return self.head(self.blocks(self.stem(image)).mean((2, 3)))

def net():
    torch.manual_seed(0)
    return Net()

def build():
    return net(), (torch.zeros(1, 3, 10, 10),)
"""

NESTED = """
import torch
from torch import nn

class Step(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(4, 4)
    def forward(self, x, past):
        grown = {at: {"key": torch.cat([cache["key"], self.dense(x)], dim=1)} for at, cache in past.items()}
        return {"sum": sum(cache["key"].sum(1) for cache in grown.values()), "present": grown}

def build():
    torch.manual_seed(0)
    past = {at: {"key": torch.randn(2, 3, 4)} for at in "01"}
    dynamic = {"x": {0: "batch", 1: "new"}}
    dynamic.update({f"past.{at}.key": {0: "batch", 1: "old"} for at in "01"})
    return Step(), {"x": torch.randn(2, 2, 4), "past": past}, dynamic
"""


def ports(entries):
    return [(port.name, port.shape) for port in entries]


def test_a_module_keeps_its_paths_and_an_open_batch(importable, tmp_path):
    report = convert(f"{importable('net', NET)}:build", tmp_path / "m.onnx")
    assert report.route == "pytorch"
    assert report.max_rel_diff < 1e-5
    assert ports(report.inputs) == [("image", ("batch", 3, 10, 10))]
    assert ports(report.outputs) == [("output", ("batch", 5))]
    ends = layer_positions(load_graph(tmp_path / "m.onnx"))
    order = ["stem", "blocks.0", "blocks.1", "head"]
    assert [name for name in ends if name in order] == order
    assert report.layers_named >= 0.8
    for batch in (1, 5):
        image = np.random.default_rng(batch).standard_normal((batch, 3, 10, 10)).astype(np.float32)
        assert OnnxRun(tmp_path / "m.onnx")({"image": image})["output"].shape == (batch, 5)


def test_nothing_of_this_machine_is_in_the_file(importable, tmp_path):
    convert(f"{importable('net_paths', NET)}:build", tmp_path / "m.onnx")
    texts = every_text(onnx.load(tmp_path / "m.onnx"))
    assert not [text for text in texts if re.search(r"/tmp|/home|site-packages|\.py\b|^pkg\.", text)]


def test_a_fixed_batch_is_a_number(importable, tmp_path):
    report = convert(f"{importable('net_fixed', NET)}:build", tmp_path / "m.onnx", batch=3)
    assert ports(report.inputs) == [("image", (3, 3, 10, 10))]
    assert ports(report.outputs) == [("output", (3, 5))]


def test_nested_inputs_and_outputs_become_dotted_names(importable, tmp_path):
    report = convert(f"{importable('nested', NESTED)}:build", tmp_path / "m.onnx")
    assert ports(report.inputs) == [
        ("x", ("batch", "new", 4)),
        ("past.0.key", ("batch", "old", 4)),
        ("past.1.key", ("batch", "old", 4)),
    ]
    assert [port.name for port in report.outputs] == ["sum", "present.0.key", "present.1.key"]


def test_a_live_module_converts_in_this_process(tmp_path):
    import torch

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    report = convert((module, torch.randn(1, 4)), tmp_path / "m.onnx")
    assert report.source == "Sequential"
    assert report.checked


def test_a_module_may_carry_its_example(importable, tmp_path):
    source = (
        NET
        + "\nclass Own(Net):\n    example_inputs = (torch.zeros(1, 3, 10, 10),)\ndef own(): return Own()\n"
    )
    module = importable("owning", source)
    assert convert(f"{module}:own", tmp_path / "m.onnx").checked
    with pytest.raises(InputError, match="without example inputs") as caught:
        convert(f"{module}:net", tmp_path / "n.onnx")
    assert "(module, example_inputs)" in caught.value.hint


def test_an_exported_program_converts(tmp_path):
    import torch

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
    shapes = {"input": {0: torch.export.Dim("rows")}}
    program = torch.export.export(module, (torch.randn(2, 4),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "m.pt2")
    report = convert(tmp_path / "m.pt2", tmp_path / "m.onnx")
    assert ports(report.inputs) == [("input", ("batch", 4))]
    assert report.outputs[0].shape == ("batch", 2)
    assert set(layer_positions(load_graph(tmp_path / "m.onnx"))) == {"0", "1", "2"}


def test_what_torch_cannot_export_is_one_line(importable, tmp_path):
    source = (
        NET
        + """
class Branches(Net):
    def forward(self, image):
        return self.stem(image) if image.sum() > 0 else image
def branches(): return Branches(), (torch.zeros(1, 3, 10, 10),)
"""
    )
    with pytest.raises(InputError, match="torch cannot export the model") as caught:
        convert(f"{importable('branches', source)}:branches", tmp_path / "m.onnx")
    assert "\n" not in caught.value.message
    assert list(tmp_path.glob("*.onnx*")) == []


def test_a_file_that_is_not_a_program_is_an_error(tmp_path):
    (tmp_path / "m.pt2").write_text("not a program")
    with pytest.raises(InputError, match="exported program"):
        convert(tmp_path / "m.pt2", tmp_path / "m.onnx")
