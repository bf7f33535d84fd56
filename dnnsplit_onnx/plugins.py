"""What other packages add: found by the entry points that they declare, when they are asked for.

| group | what it names |
|---|---|
| `dnnsplit_onnx.planners` | a function `Problem -> Solution`, under the planner's name |
| `dnnsplit_onnx.flops` | a module that registers formulas when it is imported |
| `dnnsplit_onnx.codes` | a code of what crosses a cut |

Reading what is installed takes tens of milliseconds, and an import may take seconds: so names
of our own are looked up first, and nothing here runs until one is not among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from dnnsplit_onnx.errors import InputError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Group = Literal["dnnsplit_onnx.planners", "dnnsplit_onnx.flops", "dnnsplit_onnx.codes"]


@cache
def plugins(group: Group) -> dict[str, EntryPoint]:
    """The entry points of a group by their names, none of them loaded."""
    from importlib.metadata import entry_points

    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            _warn(
                f"`{entry.name}` of package `{package_of(entry)}` is left out: "
                f"package `{package_of(other)}` has one of this name"
            )
    return found


def package_of(entry: EntryPoint) -> str:
    """The package that declares an entry point, as it is installed and uninstalled."""
    return entry.dist.name if entry.dist is not None else entry.module


@cache
def load(entry: EntryPoint) -> Any:
    """What an entry point names.

    Raises:
        InputError: It cannot be loaded; the message names the package.
    """
    try:
        return entry.load()
    except (Exception, SystemExit) as error:
        package = package_of(entry)
        raise InputError(
            f"plug-in `{entry.name}` of package `{package}` cannot be loaded: "
            f"{type(error).__name__}: {error}",
            hint=f"update it, or remove it: pip uninstall {package}",
        ) from error


@cache
def is_usable(entry: EntryPoint) -> bool:
    """Whether an entry point can be loaded; one that cannot is told in one line, once."""
    try:
        load(entry)
    except InputError as error:
        _warn(error.message)
        return False
    return True


def load_all(group: Group) -> Iterator[tuple[str, Any]]:
    """All of a group that can be loaded, by name; a warning names each that cannot."""
    for name, entry in plugins(group).items():
        if is_usable(entry):
            yield name, load(entry)


def is_same_definition(one: object, other: object) -> bool:
    """Whether two functions come from the same place in the same module, as one defined again does."""
    names = [(getattr(x, "__module__", None), getattr(x, "__qualname__", None)) for x in (one, other)]
    return names[0] == names[1] and None not in names[0] and "<lambda>" not in str(names[0][1])


def _warn(message: str) -> None:
    """One line on stderr, unless the program has set up logging otherwise."""
    import logging  # only for what is broken

    logging.getLogger(__name__).warning("warning: %s", " ".join(message.split()))
