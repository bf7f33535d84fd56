"""The networks of the paper and the zoo: as ONNX analyses, and as Keras's lists of layers.

The paper cuts between layers of Keras's list, so its tables are made from that list
(`layers`); what can be run is the converted ONNX model (`analysis`). Models and lists are
kept in the results folder (`$DNNSPLIT_PAPER_MODELS` names another) and made once.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.graph.layers import layer_of
from dnnsplit_onnx.graph.shapes import bind_shapes, free_dimensions
from dnnsplit_onnx.machines.topology import Topology
from dnnsplit_onnx.models import get_entry, model_path
from dnnsplit_onnx.models.frameworks import FRAMEWORK_ENTRIES
from dnnsplit_onnx.models.registry import ENTRIES
from dnnsplit_onnx.planning.costs import CostTable
from dnnsplit_onnx.planning.figures import Objective
from dnnsplit_onnx.planning.problem import Problem
from dnnsplit_onnx.work.analysis import Analysis, measure
from dnnsplit_onnx.work.cuts import Accounting, staircase
from dnnsplit_onnx.work.orders import in_order
from lib.keras_points import LayerCut, keras_cuts
from lib.output import results

#: The nine networks of the evaluation by their name in `keras.applications`, by rising work
#: (table 7).
KERAS = (
    "MobileNetV2", "EfficientNetB0", "DenseNet169", "ResNet50", "InceptionV3", "ResNet101", "Xception",
    "ResNet152", "VGG16",
)  # fmt: skip
#: Networks that the package holds, so that nothing has to be converted.
LIGHT = tuple(name for name in ENTRIES if name.startswith("light_"))
#: Those of the comparison with other systems (section VII-F).
LITERATURE = ("torch_resnet18", "torch_alexnet")
ACCOUNTINGS: tuple[Accounting, Accounting] = ("layer-input", "live")

_FLOAT_NBYTES = 4


def zoo_name(network: str) -> str:
    """The name in the zoo of a Keras network."""
    return f"keras_{network.lower()}"


@cache
def analysis(name: str, order: str = "envelope") -> Analysis:
    """A model of the zoo for one sample, converted on first use.

    Args:
        name: A name of the zoo, or one of `KERAS`.
        order: `envelope`, the toolkit's default, or `file`.

    Raises:
        ModelError: The zoo has no such model.
        MissingExtraError: What converts it is not installed.
    """
    graph = load_graph(onnx_file(zoo_name(name) if name in KERAS else name))
    types = bind_shapes(graph, dict.fromkeys(free_dimensions(graph, {}), 1))
    return in_order(measure(graph, types), order)


def onnx_file(name: str) -> Path:
    """The ONNX file of a model of the zoo; errors as for `analysis`."""
    if name in ENTRIES:
        return model_path(name)
    if name not in FRAMEWORK_ENTRIES:
        get_entry(name)  # raises, with the nearest names
    path = model_folder() / f"{name}.onnx"
    if not path.is_file():
        with _one_at_a_time():
            if not path.is_file():  # another script may have made it meanwhile
                from dnnsplit_onnx.converters import convert

                print(f"converting {name}: minutes, and up to 4 GB", file=sys.stderr)
                convert(f"zoo:{name}", path)
    return path


@dataclass(frozen=True)
class LayerModel:
    """A Keras network as the paper sees it: a list of n layers, cut before any of them.

    Attributes:
        name: Its name in `keras.applications`.
        cuts: The cut before each layer, priced both ways, in elements.
    """

    name: str
    cuts: tuple[LayerCut, ...]

    def elements(self, accounting: Accounting) -> NDArray[np.int64]:
        """Shape (n + 1,): elements that cross the cut before each layer, and 0 at the end."""
        live = accounting == "live"
        return np.array([*(cut.live if live else cut.layer_input for cut in self.cuts), 0], dtype=np.int64)

    def points(self, accounting: Accounting) -> tuple[int, ...]:
        """The split points, eq. 15: layers (from 0) before which fewer elements cross than before."""
        return staircase(self.elements(accounting))

    @cached_property
    def flops(self) -> NDArray[np.int64]:
        """Shape (n,): FLOPs of each layer, those of the ONNX nodes that it became.

        Raises:
            ValueError: A node of the converted model is of none of the layers.
        """
        model = analysis(self.name, "file")
        at = {cut.name: index for index, cut in enumerate(self.cuts)}
        flops = np.zeros(len(self.cuts), dtype=np.int64)
        for node, work in zip(model.graph.nodes, model.flops, strict=True):
            layer = layer_of(node.proto)
            if layer not in at:
                raise ValueError(f"{self.name}: node `{node.name}` is of layer `{layer}`, which Keras lacks")
            flops[at[layer]] += work
        return flops

    def problem(
        self, topology: Topology, objective: Objective = "latency", accounting: Accounting = "live"
    ) -> Problem:
        """What planners are asked: these layers on these tiers, fp32, outputs left where they are made.

        Args:
            topology: Tiers with `gflops`.
            objective: What is to be best.
            accounting: What a cut is charged.
        """
        below = np.concatenate(([0], np.cumsum(self.flops)))
        speeds = np.array([[(tier.gflops or np.nan) * 1e9] for tier in topology.tiers])
        up = self.elements(accounting) * _FLOAT_NBYTES
        costs = CostTable(below / speeds, below, up, np.zeros_like(up))
        return Problem(costs, topology, objective, accounting=accounting)


@cache
def layers(network: str) -> LayerModel:
    """The list of layers of one of `KERAS`.

    Raises:
        MissingExtraError: Keras is not installed.
    """
    path = model_folder() / f"{zoo_name(network)}.layers.json"
    if path.is_file():
        rows = json.loads(path.read_text(encoding="utf-8"))
        return LayerModel(network, tuple(LayerCut(**row) for row in rows))
    cuts = keras_cuts(_untrained(network))
    path.write_text(json.dumps([asdict(cut) for cut in cuts]), encoding="utf-8")
    return LayerModel(network, cuts)


def model_folder() -> Path:
    """Where models are kept, made if it is not there."""
    given = os.environ.get("DNNSPLIT_PAPER_MODELS")
    folder = Path(given) if given else results() / "models"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _untrained(network: str) -> Any:
    from dnnsplit_onnx.errors import MissingExtraError

    os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import keras
    except ImportError:
        hint = "pip install 'dnnsplit-onnx[keras]'"
        raise MissingExtraError("the paper's networks need keras and torch", hint=hint) from None
    keras.backend.clear_session()  # or layer names count on from the network before
    return getattr(keras.applications, network)(weights=None)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Conversions take gigabytes: scripts that run at once wait for each other."""
    with (model_folder() / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
