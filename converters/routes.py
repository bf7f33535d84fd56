"""Which route converts a model.

The rule is the speed of the resulting model in onnxruntime, within 4 GB of memory for the
conversion. Both Keras routes give models of equal speed (docs and `scripts/bench/convert`
hold the figures), so memory decides, and the torch backend needs a third of it. A SavedModel
is TensorFlow's own format: nothing else reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from dnnsplit_onnx.converters.adapter import RouteName
from dnnsplit_onnx.converters.extras import has, require
from dnnsplit_onnx.converters.sources import ZOO, Source
from dnnsplit_onnx.errors import InputError

_EXTRA: dict[RouteName, str] = {"keras-torch": "keras", "keras-tf": "keras-tf", "pytorch": "pytorch"}


@dataclass(frozen=True, slots=True)
class Route:
    """A route and why it was taken.

    Attributes:
        name: The route.
        reason: One line for the user.
    """

    name: RouteName
    reason: str


def choose_route(source: Source, wanted: str | None) -> Route:
    """Chooses the route for a source, and makes sure that it is installed.

    Args:
        source: What to convert.
        wanted: The route the user asked for, None to choose.

    Raises:
        InputError: The source cannot take the route that was asked for.
        MissingExtraError: The route's libraries are not installed.
    """
    possible, default = _options(source)
    if wanted is not None:
        name = next((route for route in possible if route == wanted), None)
        if name is None:
            raise InputError(
                f"`{source.text}` cannot take the route `{wanted}`",
                hint="it can take " + " or ".join(f"`{route}`" for route in possible),
            )
        default = Route(name, "asked for")
    require(f"converting `{source.text}`", _EXTRA[default.name], *_also(source))
    return default


def _also(source: Source) -> tuple[str, ...]:
    """What a model of the zoo is built with, besides what its route needs."""
    if source.kind == "hugging-face":
        return ("zoo",)
    if source.kind != "zoo":
        return ()
    from dnnsplit_onnx.models.frameworks import FRAMEWORK_ENTRIES

    entry = FRAMEWORK_ENTRIES[source.text.removeprefix(ZOO)]
    return tuple(extra for extra in entry.extras if extra not in _EXTRA.values())


def _options(source: Source) -> tuple[tuple[RouteName, ...], Route]:
    """The routes a source can take, and the one it takes by default."""
    both: tuple[RouteName, ...] = ("keras-torch", "keras-tf")
    if source.kind == "keras-file":
        return both, _for_keras()
    if source.kind == "saved-model":
        return ("keras-tf",), Route("keras-tf", "a SavedModel is TensorFlow's own format")
    if source.kind == "keras-model":
        return _for_live_keras(source)
    if source.kind in ("exported-program", "torch-script", "torch-module", "hugging-face"):
        return ("pytorch",), Route("pytorch", "a PyTorch model")
    if source.kind == "zoo":
        return _for_zoo(source)
    # A callable may return either framework's model, known only once it has run.
    if has("pytorch"):
        return ("pytorch", *both), Route("pytorch", "the function says which framework it is")
    return ("pytorch", *both), Route(
        "keras-tf" if has("keras-tf") else "pytorch", "only TensorFlow is installed"
    )


def _for_zoo(source: Source) -> tuple[tuple[RouteName, ...], Route]:
    """By the framework that builds the model.

    Raises:
        InputError: The zoo has no such model, or has it as ONNX already.
    """
    from dnnsplit_onnx.models.frameworks import FRAMEWORK_ENTRIES

    entry = FRAMEWORK_ENTRIES.get(source.text.removeprefix(ZOO))
    if entry is None:
        near = get_close_matches(source.text.removeprefix(ZOO), FRAMEWORK_ENTRIES, n=1)
        raise InputError(
            f"no framework builds `{source.text}`",
            hint=f"did you mean `{ZOO}{near[0]}`?"
            if near
            else "`dnnsplit-onnx zoo list` shows what there is",
        )
    if entry.framework == "pytorch":
        return ("pytorch",), Route("pytorch", "a PyTorch model")
    if entry.extras == ("keras-tf",):
        return ("keras-tf",), Route("keras-tf", "Keras builds it on TensorFlow only")
    return ("keras-torch", "keras-tf"), _for_keras()


def _for_keras() -> Route:
    if not has("keras") and has("keras-tf"):
        return Route("keras-tf", "torch is not installed")
    return Route("keras-torch", "equal speed in onnxruntime, least memory, every layer's name kept")


def _for_live_keras(source: Source) -> tuple[tuple[RouteName, ...], Route]:
    import keras  # the caller's model comes from it: it is imported already

    backend = keras.backend.backend()
    if backend == "torch":
        return ("keras-torch",), Route("keras-torch", "the model lives on Keras's torch backend")
    if backend == "tensorflow":
        return ("keras-tf",), Route("keras-tf", "the model lives on Keras's TensorFlow backend")
    raise InputError(
        f"the Keras model `{source.text}` lives on the {backend} backend",
        hint="save it with model.save('model.keras') and convert that file",
    )
