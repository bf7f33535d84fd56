"""The tiers file that a plan was made with, written again from what the plan records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from dnnsplit_onnx.machines.topology import Topology


def tiers_toml(topology: Topology) -> str:
    """A tiers file that reads as this topology."""
    data = topology.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return "\n\n".join("\n".join(table) for table in _tables(data)) + "\n"


def _tables(data: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield [f"[{name}]", *_pairs(value)]
        elif isinstance(value, list):
            for row in value:
                yield [f"[[{name}]]", *_pairs(row)]


def _pairs(row: Mapping[str, Any]) -> Iterator[str]:
    for key, value in row.items():
        yield f"{key if key.isidentifier() and key.isascii() else _text(key)} = {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(_pairs(value))} }}"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return _text(value) if isinstance(value, str) else repr(value)


def _text(value: str) -> str:
    """A basic string: JSON's escapes are TOML's, and TOML wants DEL escaped too."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
