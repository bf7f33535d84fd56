"""Optional libraries: there, or an error with the one line that installs them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from dnnsplit_onnx.errors import MissingExtraError

# What each extra of the package must bring, by import name.
EXTRAS: dict[str, tuple[str, ...]] = {
    "cpu": ("onnxruntime",),
    "keras": ("keras", "torch", "onnxscript"),
    "keras-tf": ("keras", "tensorflow", "tf2onnx"),
    "pytorch": ("torch", "onnxscript"),
    "zoo": ("transformers",),
}

_DISTRIBUTIONS = {
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
}


def missing(extra: str) -> list[str]:
    """The modules of an extra that are not installed; none is imported to find out."""
    return [name for name in EXTRAS[extra] if find_spec(name) is None]


def has(extra: str) -> bool:
    """Whether all of an extra is installed."""
    return not missing(extra)


def require(extra: str, what: str) -> None:
    """Makes sure that an extra is installed.

    Args:
        extra: Its name.
        what: What needs it, for the message: "converting Keras models".

    Raises:
        MissingExtraError: It is not; the hint is the line that installs it.
    """
    absent = missing(extra)
    if absent:
        names = " and ".join(f"`{name}`" for name in absent)
        verb = "is" if len(absent) == 1 else "are"
        raise MissingExtraError(f"{what} needs {names}, which {verb} not installed", hint=install_line(extra))


def install_line(extra: str) -> str:
    """The command that installs an extra."""
    return f'pip install "dnnsplit-onnx[{extra}]"'


def versions(*modules: str) -> dict[str, str]:
    """Installed versions by module name; what is not installed is left out."""
    found = {}
    for module in modules:
        for distribution in _DISTRIBUTIONS.get(module, (module,)):
            try:
                found[module] = version(distribution)
                break
            except PackageNotFoundError:
                continue
    return found
