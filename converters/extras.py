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


def require(what: str, *extras: str) -> None:
    """Makes sure that extras are installed.

    Args:
        what: What needs them, for the message: "converting Keras models".
        extras: Their names.

    Raises:
        MissingExtraError: They are not; the hint is the line that installs them.
    """
    absent = list(dict.fromkeys(name for extra in extras for name in missing(extra)))
    if absent:
        names = " and ".join(f"`{name}`" for name in absent)
        verb = "is" if len(absent) == 1 else "are"
        raise MissingExtraError(
            f"{what} needs {names}, which {verb} not installed", hint=install_line(*extras)
        )


def install_line(*extras: str) -> str:
    """The command that installs these extras."""
    return f'pip install "dnnsplit-onnx[{",".join(extras)}]"'


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
