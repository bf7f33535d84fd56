"""The facts about Keras's own models, from the list of their layers."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.converters.support import needs

SCRIPTS = Path(__file__).parents[1] / "scripts" / "paper"

# Layers, and the candidates as (0-based layer, elements), both ways of pricing.
FACTS = {
    "ResNet50": (
        177,
        [(0, 150528), (40, 100352), (82, 50176), (144, 25088), (176, 2048)],
        [(0, 150528), (150, 125440), (154, 100352), (176, 2048)],
    ),
    "ResNet152": (
        517,
        [(0, 150528), (40, 100352), (122, 50176), (484, 25088), (516, 2048)],
        [(0, 150528), (490, 125440), (494, 100352), (516, 2048)],
    ),
    "EfficientNetB0": (
        240,
        [(0, 150528), (11, 32), (13, 8), (27, 4)],
        [(0, 150528), (30, 75264), (59, 31360), (88, 15680), (175, 9408), (238, 1280)],
    ),
}

CODE = """
import json, sys, keras
sys.path.insert(0, sys.argv[2])
from lib.keras_points import keras_cuts
model = getattr(keras.applications, sys.argv[1])(weights=None)
cuts = keras_cuts(model)
sizes = [[cut.layer_input for cut in cuts], [cut.live for cut in cuts]]
print(json.dumps([len(model.layers), *sizes]))
"""


def candidates(sizes: list[int]) -> list[tuple[int, int]]:
    """The (index, size) at which a size is smaller than every one before it."""
    return [(at, size) for at, size in enumerate(sizes) if size < min(sizes[:at], default=math.inf)]


def test_candidates_are_what_no_earlier_cut_undercuts():
    assert candidates([9, 9, 10, 4, 5, 4, 1]) == [(0, 9), (3, 4), (6, 1)]
    assert candidates([]) == []


# The smallest always; the others take minutes.
@pytest.mark.parametrize(
    "model",
    ["EfficientNetB0", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ResNet50", "ResNet152"))],
)
@pytest.mark.parametrize(
    "backend",
    [pytest.param("torch", marks=needs("keras")), pytest.param("tensorflow", marks=needs("keras-tf"))],
)
def test_layers_and_candidates_of_the_published_models(model, backend):
    done = subprocess.run(
        [sys.executable, "-c", CODE, model, str(SCRIPTS)],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=True,
    )
    layers, layer_input, live = json.loads(done.stdout.splitlines()[-1])
    expected = FACTS[model]
    assert layers == expected[0]
    assert candidates(layer_input) == expected[1]
    assert candidates(live) == expected[2]
