"""Ways in which people hand over models: files, functions with arguments, lists, types, names."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.converters import convert
from dnnsplit_onnx.converters.conversion import Options
from dnnsplit_onnx.converters.loading import convert_here
from dnnsplit_onnx.converters.routes import Route
from dnnsplit_onnx.converters.sources import parse_source
from dnnsplit_onnx.errors import InputError
from tests.converters.support import needs

pytestmark = [needs("pytorch", "cpu"), pytest.mark.filterwarnings("ignore")]

NETS = """
import torch
from torch import nn

def net(width, kind="relu"):
    torch.manual_seed(0)
    middle = {"relu": nn.ReLU(), "tanh": nn.Tanh()}[kind]
    return nn.Sequential(nn.Linear(4, width), middle, nn.Linear(width, 3))
def build(width, kind="relu"):
    return [net(width, kind), torch.randn(1, 4)]
ready = (net(5), torch.randn(1, 4))
"""


def here(source, output, **options):
    """Converts in this process: a child that imports a framework takes seconds."""
    return convert_here(parse_source(source), output, Route("pytorch", "asked for"), Options(**options))


def net(dtype=None):
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).to(dtype)


@pytest.mark.parametrize(("call", "nodes"), [("build(7, 'tanh')", 3), ("build(9)", 3), ("ready", 3)])
def test_functions_take_arguments_and_objects_are_taken(importable, tmp_path, call, nodes):
    report = here(f"{importable('nets_' + call[:3], NETS)}:{call}", tmp_path / "m.onnx")
    assert report.nodes == nodes


def test_arguments_that_are_code_are_refused(importable, tmp_path):
    with pytest.raises(InputError, match="arguments"):
        here(f"{importable('nets_code', NETS)}:build(open('x'))", tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("dtype", "given", "got"), [("float16", 2e-2, "float16"), ("bfloat16", 1e-4, "float")]
)
def test_half_precision_is_held_to_what_it_can(tmp_path, dtype, given, got):
    import torch

    kind = getattr(torch, dtype)
    report = convert((net(kind), torch.randn(2, 4, dtype=kind)), tmp_path / "m.onnx")
    assert report.tolerance == given
    assert report.inputs[0].dtype == got
    assert len(report.notes) == (1 if dtype == "bfloat16" else 0)


def test_a_script_needs_inputs_and_takes_them(tmp_path):
    import torch

    torch.jit.script(net()).save(str(tmp_path / "m.pt"))
    with pytest.raises(InputError, match="no example") as caught:
        here(tmp_path / "m.pt", tmp_path / "m.onnx")
    assert "input=array" in caught.value.hint
    np.savez(tmp_path / "X.npz", input=np.random.default_rng(0).standard_normal((5, 4), np.float32))
    report = here(tmp_path / "m.pt", tmp_path / "m.onnx", inputs=str(tmp_path / "X.npz"))
    assert report.inputs[0].shape == ("batch", 4)
    assert report.checked_at[1] == "the example"


class Log:
    """Builds a module that takes logarithms of its input, so that made-up numbers fail."""

    def __new__(cls):
        import torch

        class Net(torch.nn.Module):
            def forward(self, chances, step):
                return {"score": chances.log() * step, "step": step + 1}

        return Net(), {"chances": torch.zeros(1, 3), "step": torch.tensor(2.0)}


def test_given_inputs_are_taken_where_made_up_ones_make_no_sense(tmp_path):
    chances = np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]], np.float32)
    np.savez(tmp_path / "X.npz", chances=chances)
    report = convert(
        Log(), tmp_path / "m.onnx", inputs=tmp_path / "X.npz", opened=["chances.1=classes"], opset=20
    )
    assert report.inputs[0].shape == ("batch", "classes")
    assert [port.name for port in report.outputs] == ["score", "step_out"]
    assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == 20
    np.savez(tmp_path / "Y.npz", chances=chances.astype(np.int64))
    for name, message in (("Y", "the model takes float32"), ("Z", "cannot read")):
        with pytest.raises(InputError, match=message):
            convert(Log(), tmp_path / "n.onnx", inputs=tmp_path / f"{name}.npz")
    with pytest.raises(InputError, match=r"`chances\.2`"):
        convert(Log(), tmp_path / "n.onnx", opened=["chances.2=n"])


def test_code_that_decides_by_values_says_where(tmp_path):
    import torch

    class Branch(torch.nn.Module):
        def forward(self, x):
            return x + 1 if x.sum() > 0 else x - 1

    with pytest.raises(InputError, match="cannot export") as caught:
        convert((Branch(), torch.randn(2, 4)), tmp_path / "m.onnx")
    assert "torch.where" in caught.value.hint
    assert "test_styles.py" in caught.value.context


def test_versions_of_keras_files(tmp_path):
    h5py = pytest.importorskip("h5py", reason="needs h5py, which comes with keras")
    from dnnsplit_onnx.converters.keras_model import _unreadable

    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["keras_version"] = "2.15.0"
    assert "tf_keras" in _unreadable(tmp_path / "old.h5", ValueError("no")).hint
    unknown = _unreadable(tmp_path / "old.h5", TypeError("Could not locate class 'Gate'. Make sure"))
    assert "`Gate`" in unknown.message
    assert "--import MODULE" in unknown.hint
    # A layer of Keras 2's own: no module of the author's could register it.
    own = _unreadable(tmp_path / "old.h5", TypeError("Could not locate class 'TFOpLambda'. Make sure"))
    assert "tf_keras" in own.hint
