"""JSON Schemas of the files that people and programs exchange, for editors and validators.

They are made from the types that read and write these files by `scripts/lib/schemas.py`, and
a test holds them against it. Readers of this package take no notice of a `$schema` key in a
JSON file; in `tiers.toml`, the schema stands in a comment: `#:schema ./tiers.schema.json`.
"""

from __future__ import annotations

from importlib.resources import files

from dnnsplit_onnx.errors import InputError

#: The files that have a schema.
NAMES = ("tiers", "plan", "manifest", "profile", "predictor")


def schema_text(name: str) -> str:
    """The JSON Schema (draft 7) of a kind of file.

    Args:
        name: One of `NAMES`.

    Raises:
        InputError: There is none of that name.
    """
    if name not in NAMES:
        raise InputError(f"no schema is named `{name}`", hint=f"known schemas: {', '.join(NAMES)}")
    return (files(__name__) / f"{name}.schema.json").read_text(encoding="utf-8")
