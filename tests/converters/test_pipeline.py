"""A whole conversion, with a framework that is three lines of numpy."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from dnnsplit_onnx.converters import finishing, pipeline
from dnnsplit_onnx.converters.conversion import Conversion, Options, Port
from dnnsplit_onnx.converters.divergence import first_divergence
from dnnsplit_onnx.converters.pipeline import run_conversion
from dnnsplit_onnx.converters.routes import Route
from dnnsplit_onnx.converters.samples import sample_inputs
from dnnsplit_onnx.errors import OutputError, VerificationError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.layers import layer_positions
from tests.converters.support import Numpy, needs

pytestmark = needs("cpu")
ROUTE = Route("pytorch", "asked for")


def convert(output, **options):
    adapter = Numpy(options.pop("broken", None), options.pop("scale", 1.0))
    return run_conversion(adapter, "three lines", output, ROUTE, Options(**options))


def test_the_report_says_what_was_done(tmp_path):
    report = convert(tmp_path / "m.onnx")
    assert report.checked
    assert report.max_rel_diff < 1e-6
    assert report.inputs == (Port("x", "float", ("batch", 4)),)
    assert report.outputs == (Port("y", "float", ("batch", 3)),)
    assert (report.nodes, report.layers, report.parameters, report.layers_named) == (3, 3, 56, 1.0)
    assert report.peak_nbytes > 1 << 20
    assert report.notes == ("a note",)
    assert Conversion.from_dict(report.to_dict()) == report


def test_the_file_carries_the_layers(tmp_path):
    convert(tmp_path / "m.onnx")
    assert layer_positions(load_graph(tmp_path / "m.onnx")) == {"dense1": 1, "act": 2, "dense2": 3}


@pytest.mark.parametrize(("broken", "node"), [("dense1", "node_a"), ("act", "node_b"), ("dense2", "node_y")])
def test_a_wrong_export_names_its_first_wrong_node_and_leaves_nothing(tmp_path, broken, node):
    with pytest.raises(VerificationError, match="differs from the framework") as caught:
        convert(tmp_path / "m.onnx", broken=broken)
    assert f"`{node}`" in caught.value.context
    assert f"`{broken}`" in caught.value.context
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_difference_within_the_tolerance_passes(tmp_path):
    report = convert(tmp_path / "m.onnx", broken="dense2", tolerance=0.02)
    assert 1e-3 < report.max_rel_diff < 0.02


def test_a_framework_that_draws_at_random_is_told_apart_from_a_wrong_export(tmp_path):
    class Drawing(Numpy):
        def run(self, feeds):
            self.w2 = self.w2 * np.float32(1.5)  # another model at each run
            return super().run(feeds)

    with pytest.raises(VerificationError, match="the framework itself differs from one run to the next"):
        run_conversion(Drawing(), "three lines", tmp_path / "m.onnx", ROUTE, Options())
    assert list(tmp_path.iterdir()) == []


def test_another_opset_than_asked_for_is_noted(tmp_path):
    report = convert(tmp_path / "m.onnx", opset=99)
    assert "opset 17, not 99: the exporter writes no other here" in report.notes
    assert len(convert(tmp_path / "n.onnx", opset=17).notes) == 1


def test_a_check_that_proves_nothing_fails(tmp_path):
    with pytest.raises(VerificationError, match="proves nothing"):
        convert(tmp_path / "m.onnx", scale=0.0)
    assert list(tmp_path.iterdir()) == []


def test_without_a_check_nothing_is_run_but_the_file_is_loaded(tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(pipeline, "OnnxRun", loaded.append)
    report = convert(tmp_path / "m.onnx", check=False, broken="act")
    assert (report.checked, report.max_rel_diff, report.checked_at) == (False, None, ())
    assert [path.name for path in loaded] == ["m.onnx"]


def test_large_weights_lie_beside_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(finishing.finish, "__defaults__", (100,))
    monkeypatch.setattr("dnnsplit_onnx.graph.modelfile.INLINE_BELOW", 16)
    report = convert(tmp_path / "m.onnx")
    assert report.max_rel_diff < 1e-6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    onnx.checker.check_model(str(tmp_path / "m.onnx"))


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        convert(tmp_path / "nowhere" / "m.onnx")


def test_layers_in_another_layout_are_compared_all_the_same(tmp_path):
    class Moved(Numpy):
        def layer_outputs(self, feeds):
            for name, value in super().layer_outputs(feeds):
                yield name, np.asfortranarray(value[..., None].repeat(5, axis=-1)) if name == "act" else value

    adapter = Moved()
    feeds = sample_inputs(adapter.inputs, {"batch": 2})
    adapter.export(tmp_path / "raw.onnx", feeds)
    finishing.finish(tmp_path / "raw.onnx", tmp_path / "m.onnx", adapter.layer_of, {})
    # Of another shape altogether: it says nothing, and is passed over.
    assert first_divergence(adapter, tmp_path / "m.onnx", feeds, 1e-4) is None
