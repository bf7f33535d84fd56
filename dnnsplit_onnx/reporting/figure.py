"""Pictures: what every plot shares. matplotlib is an extra, and loaded when one is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from dnnsplit_onnx.errors import InputError, MissingExtraError
from dnnsplit_onnx.files import written_whole
from dnnsplit_onnx.planning.figures import Objective

#: What areas carry besides a colour, once colours come again.
HATCHES = ("", "///", "...", "xxx", "---", "|||", "ooo", "\\\\\\")

#: What the axis of an objective's values says.
VALUE_LABELS: dict[Objective, str] = {
    "latency": "latency (s)",
    "cost": "cost (USD per request)",
    "throughput": "throughput (requests/s)",
    "energy": "energy (J per request)",
    "weighted": "weighted sum",
    "custom": "own objective",
    "ttft": "time to the first token (s)",
    "tpot": "time of each token (s)",
}

#: Ends of an axis this far apart are drawn on a logarithmic scale.
_FAR_APART = 50.0
_FORMATS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}
# Dates that a format would write, left out so that the same picture is the same file.
_DATES = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
_WORDS = {
    "bandwidth_mbps": "bandwidth", "down_mbps": "bandwidth back", "delay_ms": "delay", "max_mb": "most bytes",
    "gflops": "speed", "memory_gb_per_s": "memory bandwidth", "overhead_us": "time of an operator",
    "usd_per_hour": "price", "usd_per_gb": "price", "usd_per_request": "price of a request, USD",
    "memory_gb": "memory", "watts": "power", "idle_watts": "idle power", "deadline_ms": "deadline",
    "budget_usd": "budget", "energy_j": "energy limit", "requests_per_s": "requests, 1/s",
    "throughput_per_s": "least throughput, 1/s", "prompt_tokens": "tokens of a prompt",
    "new_tokens": "new tokens", "conversations": "conversations",
    "ttft_ms": "limit on the first token", "tpot_ms": "limit on a token",
}  # fmt: skip
_UNITS = {
    "_mbps": "Mbit/s", "_ms": "ms", "_usd": "USD", "_per_hour": "USD/h", "_per_gb": "USD/GB", "_gb": "GB",
    "gflops": "GFLOP/s", "watts": "W", "_gb_per_s": "GB/s", "_us": "µs", "_mb": "MB", "_j": "J",
}  # fmt: skip


@contextmanager
def picture(path: Path, *, force: bool, width: float = 7.0, height: float = 4.5) -> Iterator[Any]:
    """Axes to draw on, written to a file when the block ends well.

    Args:
        path: A name that ends in `.png`, `.svg` or `.pdf`.
        force: Whether an existing file may be replaced.
        width: Inches.
        height: Inches.

    Yields:
        matplotlib's `Axes`.

    Raises:
        InputError: The name ends in something else.
        MissingExtraError: matplotlib is not installed.
        OutputError: The file exists, or cannot be written.
    """
    with panels(path, force=force, width=width, height=height) as axes:
        yield axes[0]


@contextmanager
def panels(
    path: Path, *, force: bool, width: float = 7.0, height: float = 4.5, **layout: Any
) -> Iterator[list[Any]]:
    """Several axes of one picture, written to a file when the block ends well.

    Args:
        path: As for `picture`.
        force: As for `picture`.
        width: Inches.
        height: Inches.
        **layout: What matplotlib's `Figure.subplots` takes: `nrows`, `ncols`, `sharex`, ...

    Yields:
        matplotlib's `Axes`, row by row.

    Raises:
        InputError, MissingExtraError, OutputError: As for `picture`.
    """
    kind = picture_format(path)
    matplotlib = need_matplotlib()
    # The same picture is the same file: no dates, no random names inside.
    with matplotlib.rc_context({"svg.hashsalt": "dnnsplit-onnx", "svg.fonttype": "none"}):
        # Its own object: no windows, and nothing global.
        figure = import_module("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
        yield list(figure.subplots(squeeze=False, **layout).flat)
        with written_whole(path, force=force) as file:
            figure.savefig(file, format=kind, dpi=150, metadata=_DATES.get(kind))


def picture_format(path: Path) -> str:
    """The format that a file's name asks for.

    Raises:
        InputError: It is none that can be drawn.
    """
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        raise InputError(f"cannot draw `{path.name}`", hint="name it .png, .svg or .pdf") from None


def with_unit(key: str) -> str:
    """The label of an axis: what a key of the tiers file is, of which tier or link, and its unit."""
    place, _, leaf = key.rpartition(".")
    what = _WORDS.get(leaf, leaf.replace("_", " "))
    kind, _, name = place.partition(".")
    where = f" of {'link ' if kind == 'link' else ''}{name}" if name else ""
    best = max((end for end in _UNITS if leaf.endswith(end)), key=len, default=None)
    return f"{what}{where}" if best is None else f"{what}{where}, {_UNITS[best]}"


def scale(set_scale: Any, values: Sequence[float]) -> None:
    """Makes an axis logarithmic if its values are far apart."""
    if is_log(values):
        set_scale("log")


def is_log(values: Sequence[float]) -> bool:
    """Whether values are drawn on a logarithmic scale: all above 0, and far apart."""
    known = [value for value in values if math.isfinite(value)]
    return bool(known) and min(known) > 0 and max(known) / min(known) >= _FAR_APART


def plain(text: str) -> str:
    """A name as it is: a dollar would start a formula."""
    return "".join(c if c.isprintable() else "?" for c in text).replace("$", r"\$")


def need_matplotlib() -> Any:
    """The library.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        return import_module("matplotlib")
    except ImportError:
        raise MissingExtraError(
            "plots need matplotlib, which is not installed", hint="pip install 'dnnsplit-onnx[plot]'"
        ) from None
