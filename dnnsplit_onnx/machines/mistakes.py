"""What is wrong in a tiers file, where, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from dnnsplit_onnx.errors import TopologyError, close_names

_LONGEST_VALUE = 100

#: What people call a key here that has another name, table by table.
_OTHER_NAMES = {
    "tier": {
        "flops": "gflops",
        "gflop": "gflops",
        "gflops_per_s": "gflops",
        "speed": "gflops",
        "tflops": "gflops",
        "power": "watts",
        "power_w": "watts",
        "idle": "idle_watts",
        "idle_power": "idle_watts",
        "price": "usd_per_hour",
        "cost": "usd_per_hour",
        "cost_per_hour": "usd_per_hour",
        "ram": "memory_gb",
        "ram_gb": "memory_gb",
    },
    "link": {
        "mbps": "bandwidth_mbps",
        "mbit_s": "bandwidth_mbps",
        "speed": "bandwidth_mbps",
        "uplink_mbps": "bandwidth_mbps",
        "downlink_mbps": "down_mbps",
        "latency": "delay_ms",
        "latency_ms": "delay_ms",
        "rtt_ms": "delay_ms",
        "ping_ms": "delay_ms",
        "price_per_gb": "usd_per_gb",
    },
    "limits": {"latency_ms": "deadline_ms", "max_latency_ms": "deadline_ms", "budget": "budget_usd"},
}
#: Keys that have another unit here, and how many of ours make one of theirs.
_OTHER_UNITS = {
    "flops": ("gflops", 1e-9),
    "mflops": ("gflops", 1e-3),
    "tflops": ("gflops", 1e3),
    "memory_mb": ("memory_gb", 1e-3),
    "ram_mb": ("memory_gb", 1e-3),
    "memory_bytes": ("memory_gb", 1e-9),
    "bandwidth_kbps": ("bandwidth_mbps", 1e-3),
    "bandwidth_gbps": ("bandwidth_mbps", 1e3),
    "bandwidth_mb_per_s": ("bandwidth_mbps", 8.0),
    "delay_s": ("delay_ms", 1e3),
    "delay_us": ("delay_ms", 1e-3),
    "latency_s": ("delay_ms", 1e3),
    "deadline_s": ("deadline_ms", 1e3),
    "milliwatts": ("watts", 1e-3),
    "kilowatts": ("watts", 1e3),
}
#: Under which people name a machine that is known.
_DEVICES = ("device", "preset", "hardware", "gpu", "cpu", "model", "type")
#: What is asked on the command line, and not in the file.
_OPTIONS = ("objective", "planner", "weight", "bind")
_OTHER_VALUES = {
    "gpu": "cuda",
    "trt": "tensorrt",
    "directml": "dml",
    "nvidia": "cuda",
    "cudaexecutionprovider": "cuda",
    "cpuexecutionprovider": "cpu",
    "tensorrtexecutionprovider": "tensorrt",
    "openvinoexecutionprovider": "openvino",
    "coremlexecutionprovider": "coreml",
    "dmlexecutionprovider": "dml",
    "xnnpackexecutionprovider": "xnnpack",
    "rocmexecutionprovider": "rocm",
    "browser": "web",
    "wasm": "web",
}
_FIX = {
    "missing": "this key is required",
    "greater_than": "give a number above 0",
    "less_than_equal": "is the unit right? units stand in the names of the keys",
    "finite_number": "give a finite number",
    "float_type": "give a number",
    "int_type": "give a whole number",
    "tuple_type": "give a list",
    "bool_type": "give true or false",
    "string_type": "give text in quotes",
    "too_short": "give one or more",
    "string_pattern_mismatch": "use letters, digits, `-`, `_` and `.`",
}
_LISTS = ("tier", "link", "machine")


def first_mistake(error: ValidationError) -> Mapping[str, Any]:
    """The mistake that says most: a misspelt key is both unknown and missing."""
    return sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")[0]


def explained(
    first: Mapping[str, Any], source: str, root: str, keys: Mapping[str, Sequence[str]], smallest: float
) -> TopologyError:
    """A mistake as an error with a hint.

    Args:
        first: As pydantic tells it.
        source: Where, such as the name of the file.
        root: The table that was read, empty for a whole file.
        keys: The keys of every table, by its name.
        smallest: The least that counts as above 0.
    """
    loc = tuple(part for part in first["loc"] if part not in ("str", "Profile"))
    key, kind = ".".join(map(str, loc)), first["type"]
    what = first["msg"].removeprefix("Value error, ")
    what = what[0].lower() + what[1:]
    if not key:
        return TopologyError(f"{source}: {what}", hint=_whole_hint(what))
    given = first["input"]
    value = f" = {shortened(given)}" if not isinstance(given, dict | tuple) and kind != "missing" else ""
    if kind == "greater_than_equal" and first["ctx"]["ge"] == smallest:
        kind, what = "greater_than", "input should be greater than 0"
    hint = f"give {first['ctx']['ge']:g} or more" if kind == "greater_than_equal" else _FIX.get(kind)
    if kind == "extra_forbidden":
        what, hint = "unknown key", _unknown_key(loc, given, _table_of(loc, root, keys), keys)
    elif kind == "missing" and loc == ("tier",):
        hint = "start one with `dnnsplit-onnx tiers new --edge raspberry-pi-4 --cloud a100`"
    elif isinstance(given, dict | tuple):
        hint = _brackets(str(loc[-1]), given) or hint
    elif kind in ("float_type", "int_type") and isinstance(given, str):
        hint = _number_in(given, str(loc[-1])) or hint
    elif kind == "literal_error":
        hint = _one_of(given, first["ctx"]["expected"])
    elif kind == "string_pattern_mismatch" and (
        plain := re.sub(r"[^A-Za-z0-9._-]+", "-", given).strip("-._")
    ):
        hint = f'{hint}: {loc[-1]} = "{plain[:64]}"'
    return TopologyError(f"{source}: `{key}`{value}: {what.replace('tuple', 'list')}", hint=hint)


def shortened(value: object) -> str:
    """A value as an error shows it."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**_LONGEST_VALUE else "..."
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _table_of(loc: Sequence[int | str], root: str, keys: Mapping[str, Sequence[str]]) -> str:
    """The name of the table in which a key stands."""
    inner = [str(part) for part in loc[:-1] if part in keys]
    return inner[-1] if inner else root


def _unknown_key(
    loc: Sequence[int | str], given: object, table: str, keys: Mapping[str, Sequence[str]]
) -> str:
    name, known = str(loc[-1]), keys.get(table, ())
    listed = f"known keys here: {', '.join(known)}"
    lower = name.lower().replace("-", "_")
    ours, factor = _OTHER_UNITS.get(lower, ("", 0.0))
    if ours in known and isinstance(given, int | float) and not isinstance(given, bool):
        return f"write {ours} = {given * factor:.12g}; {listed}"
    if table == "tier" and lower in _DEVICES and isinstance(given, str):
        return (
            "figures of known devices are written by `dnnsplit-onnx tiers new --edge raspberry-pi-4 --cloud "
            f"l4`, and listed by `dnnsplit-onnx tiers list`; {listed}"
        )
    if table == "link" and lower in ("from", "to", "between", "source", "target", "name"):
        return f"leave it out: the first [[link]] joins the first two tiers, and so on; {listed}"
    other = _OTHER_NAMES.get(table, {}).get(lower)
    close = [other] if other else close_names(lower, known, n=1)
    if close:
        meant = close[0]
        if not table:  # a key of the file is a table or a list of them
            meant = f"[[{meant}]]" if meant in _LISTS else f"[{meant}]"
        return f"did you mean `{meant}`? {listed}"
    if not table and lower in _OPTIONS:
        value = given if isinstance(given, str) else "..."
        return f"say it on the command line: --{lower} {value}"
    homes = [home for home in ("tier", "link", "limits", "workload", "lan") if lower in keys.get(home, ())]
    if homes:
        header = {"lan": "[tier.lan]", "limits": "[limits]", "workload": "[workload]"}.get(
            homes[0], f"[[{homes[0]}]]"
        )
        return f"`{lower}` belongs under {header}; {listed}"
    return listed


def _brackets(name: str, given: object) -> str | None:
    """What to do about one table where several may be, and the other way round."""
    if isinstance(given, dict) and name in _LISTS:
        header = "tier.machine" if name == "machine" else name
        return f"write [[{header}]], in two pairs of brackets: there may be several"
    if isinstance(given, tuple) and name in ("limits", "workload", "lan"):
        header = "tier.lan" if name == "lan" else name
        return f"write [{header}], in one pair of brackets: there is one"
    return None


def _number_in(text: str, name: str) -> str | None:
    """How to write a number that stands in quotes, with a comma or with its unit."""
    found = re.fullmatch(r"\s*([+-]?[0-9]+(?:[.,][0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([^\d\s].*)?", text)
    if found is None or len(text) > _LONGEST_VALUE:
        return None
    without = "quotes and unit" if found[2] else "quotes"
    return f"give the number without {without}: {name} = {found[1].replace(',', '.')}"


def _one_of(given: object, expected: str) -> str:
    known = re.findall(r"'([^']*)'", expected)
    lower = str(given).lower()
    close = [_OTHER_VALUES[lower]] if _OTHER_VALUES.get(lower) in known else close_names(lower, known, n=1)
    listed = f"known: {', '.join(known)}"
    return f"did you mean `{close[0]}`? {listed}" if close else listed


def _whole_hint(what: str) -> str | None:
    if "need" in what and "between them" in what:
        return "a [[link]] with bandwidth_mbps joins each tier to the next"
    return "give each tier a name of its own" if what.startswith("two tiers are named") else None
