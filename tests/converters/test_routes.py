"""Which route a model takes, and what happens when it is not installed."""

from __future__ import annotations

import pytest

from dnnsplit_onnx.converters import extras, routes
from dnnsplit_onnx.converters.routes import choose_route
from dnnsplit_onnx.converters.sources import Source
from dnnsplit_onnx.errors import InputError, MissingExtraError

EVERYTHING = {"keras", "torch", "onnxscript", "tensorflow", "tf2onnx", "transformers", "onnxruntime"}
LIGHT = EVERYTHING - {"tensorflow", "tf2onnx"}


@pytest.fixture
def installed(monkeypatch):
    """Pretends that exactly these modules are installed."""
    return lambda *modules: monkeypatch.setattr(
        extras, "find_spec", lambda name: object() if name in modules else None
    )


KERAS = Source("m.keras", "keras-file")


def test_keras_takes_the_light_route(installed):
    installed(*EVERYTHING)
    assert choose_route(KERAS, None).name == "keras-torch"


def test_without_torch_keras_takes_tensorflow(installed):
    installed("keras", "tensorflow", "tf2onnx")
    assert choose_route(KERAS, None).name == "keras-tf"


def test_the_user_may_choose(installed):
    installed(*EVERYTHING)
    route = choose_route(KERAS, "keras-tf")
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
    assert list(taken.values()) == ["keras-torch", "keras-torch", "keras-tf", "pytorch"]


def test_a_name_the_zoo_does_not_have_gets_the_nearest(installed):
    installed(*EVERYTHING)
    with pytest.raises(InputError) as caught:
        choose_route(Source("zoo:keras_resnet5", "zoo"), None)
    assert "zoo:keras_resnet50" in caught.value.hint


def test_routes_know_their_extras():
    assert set(routes._EXTRA.values()) <= set(extras.EXTRAS)
