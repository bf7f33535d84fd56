"""Which route a model takes, and what happens when it is not installed."""

from __future__ import annotations

import json
import zipfile

import pytest

from dnnsplit_onnx.converters import extras, routes
from dnnsplit_onnx.converters.routes import choose_route
from dnnsplit_onnx.converters.sources import Source, parse_source
from dnnsplit_onnx.errors import InputError, MissingExtraError

EVERYTHING = {"keras", "torch", "onnxscript", "tensorflow", "tf2onnx", "transformers", "onnxruntime"}
LIGHT = EVERYTHING - {"tensorflow", "tf2onnx"}


@pytest.fixture
def installed(monkeypatch):
    """Pretends that exactly these modules are installed."""
    return lambda *modules: monkeypatch.setattr(
        extras, "find_spec", lambda name: object() if name in modules else None
    )


@pytest.fixture
def keras_file(tmp_path):
    """A `.keras` file with these layers; nothing else of it is read."""

    def write(*layers):
        path = tmp_path / "m.keras"
        config = {"class_name": "Functional", "config": {"layers": [{"class_name": name} for name in layers]}}
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", json.dumps(config))
        return parse_source(path)

    return write


def test_keras_takes_the_light_route(installed, keras_file):
    installed(*EVERYTHING)
    assert choose_route(keras_file("Conv2D", "Dense"), None).name == "keras-torch"


def test_recurrent_layers_take_tf2onnx_where_it_is(installed, keras_file):
    source = keras_file("Dense", "LSTM")
    installed(*EVERYTHING)
    route = choose_route(source, None)
    assert (route.name, "LSTM" in route.reason) == ("keras-tf", True)
    installed(*LIGHT)
    route = choose_route(source, None)
    assert (route.name, "unrolled" in route.reason) == ("keras-torch", True)


def test_without_torch_keras_takes_tensorflow(installed, keras_file):
    installed("keras", "tensorflow", "tf2onnx")
    assert choose_route(keras_file("Dense"), None).name == "keras-tf"


def test_the_user_may_choose(installed, keras_file):
    installed(*EVERYTHING)
    route = choose_route(keras_file("Dense"), "keras-tf")
    assert (route.name, route.reason) == ("keras-tf", "asked for")


@pytest.mark.parametrize(
    ("kind", "wanted", "could"),
    [
        ("saved-model", "keras-torch", "keras-tf"),
        ("exported-program", "keras-tf", "pytorch"),
        ("keras-file", "pytorch", "keras-torch"),
    ],
)
def test_a_route_that_cannot_be_is_refused(installed, kind, wanted, could):
    installed(*EVERYTHING)
    with pytest.raises(InputError, match=wanted) as caught:
        choose_route(Source("m", kind), wanted)
    assert could in caught.value.hint


@pytest.mark.parametrize(
    ("source", "extra"),
    [
        (Source("m.keras", "keras-file"), "keras"),
        (Source("folder", "saved-model"), "keras-tf"),
        (Source("m.pt2", "exported-program"), "pytorch"),
        (Source("a:b", "callable"), "pytorch"),
        (Source("zoo:torch_yolo", "zoo"), "pytorch"),
        (Source("zoo:torch_resnet18", "zoo"), "pytorch,zoo"),
        (Source("zoo:keras_vgg16", "zoo"), "keras"),
    ],
)
def test_what_is_missing_comes_with_the_line_that_installs_it(installed, source, extra):
    installed()
    with pytest.raises(MissingExtraError) as caught:
        choose_route(source, None)
    assert caught.value.hint == f'pip install "dnnsplit-onnx[{extra}]"'


def test_the_zoo_says_by_which_framework(installed):
    installed(*EVERYTHING)
    taken = {
        name: choose_route(Source(f"zoo:{name}", "zoo"), None).name
        for name in ("keras_resnet50", "keras_lstm", "keras_nasnetlarge", "torch_gpt2")
    }
    assert list(taken.values()) == ["keras-torch", "keras-tf", "keras-tf", "pytorch"]


def test_a_name_the_zoo_does_not_have_gets_the_nearest(installed):
    installed(*EVERYTHING)
    with pytest.raises(InputError) as caught:
        choose_route(Source("zoo:keras_resnet5", "zoo"), None)
    assert "zoo:keras_resnet50" in caught.value.hint


def test_routes_know_their_extras():
    assert set(routes._EXTRA.values()) <= set(extras.EXTRAS)
