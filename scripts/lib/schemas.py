"""Writes dnnsplit_onnx/schemas/*.schema.json, from the types that read and write the files.

.venv/bin/python scripts/lib/schemas.py

What a key means is said once, in the `Attributes:` of its type, and copied from there. The
schemas are of draft 7, which every editor knows. That of the tiers file has no references:
Taplo, which completes TOML in most editors, follows them least well.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from dnnsplit_onnx.machines import predictors, profiles, topology
from dnnsplit_onnx.machines import tiers as tiers_tables
from dnnsplit_onnx.planning import figures, plans
from dnnsplit_onnx.slicing import manifest as manifests

FOLDER = Path(__file__).resolve().parents[2] / "dnnsplit_onnx" / "schemas"
DRAFT = "http://json-schema.org/draft-07/schema#"

Schema = dict[str, Any]

# A plan writes null for what is unknown or infinite.
MAY_BE_NULL = ("seconds", "cost_usd", "latency_s", "throughput_per_s")


def texts() -> dict[str, str]:
    """The text of each schema, by the name of its file."""
    made = {
        "tiers": tiers(),
        "plan": plan(),
        "manifest": manifest(),
        "profile": profile(),
        "predictor": predictor(),
    }
    return {
        f"{name}.schema.json": json.dumps(plain({"$schema": DRAFT, **schema}), indent=2, ensure_ascii=False)
        + "\n"
        for name, schema in made.items()
    }


def tiers() -> Schema:
    """`tiers.toml`."""
    schema = of_type(topology.Topology, title="dnnsplit-onnx tiers file", mode="validation")
    schema = without_null(inlined(schema, schema.pop("definitions")))
    tier, link = schema["properties"]["tier"], schema["properties"]["link"]
    tier["description"] = "The machines, from where the input data is born to the top."
    link["description"] = "What joins each tier to the next: one less than there are tiers."
    tier["items"]["oneOf"] = [
        {"required": ["gflops"]},
        {"required": ["profile"], "not": {"required": ["memory_gb_per_s"]}},
    ]
    link["items"]["not"] = {"required": ["usd_per_hour", "usd_per_gb"]}
    return schema


def plan() -> Schema:
    """What `plan --json`, `plan -o` and `split --json` write."""
    whole = of_type(plans.Plan, title="dnnsplit-onnx plan")
    definitions = whole.pop("definitions")
    figures = definitions.pop("Figures")
    for schema in (*definitions.values(), figures):
        for key in set(schema["properties"]).intersection(MAY_BE_NULL):
            schema["properties"][key] = nullable(schema["properties"][key])
    link = definitions["Transfer"]
    ends = {"from": link["properties"].pop("source"), "to": link["properties"].pop("target")}
    link["properties"] = ends | link["properties"]
    for schema in definitions.values():
        schema["required"] = [key for key in schema["properties"] if key != "digest"]  # of old
    own = whole["properties"]
    del own["figures"]
    whole["properties"] = {
        "schema_version": {"const": plans.SCHEMA_VERSION},
        **own,
        **figures["properties"],
        "speedup_vs_best_single_tier": {
            "type": ["number", "null"],
            "description": "How many times better than the best single tier; 1 if the plan is one.",
        },
        **around_a_plan(),
    }
    whole["required"] = list(plans.NEEDED)
    return whole | {"definitions": definitions}


def around_a_plan() -> Schema:
    """What the commands add to a plan."""
    return {
        "output": {"type": "string", "description": "The folder that `split` made."},
        "slices": {"type": "array", "description": "What `split` wrote, as in the manifest."},
        "verification": {
            "type": ["object", "null"],
            "description": "What `verify` says of the slices, null with --no-verify.",
        },
    }


def manifest() -> Schema:
    """`manifest.json`, the plan in it included."""
    schema = of_type(manifests.Manifest, title="dnnsplit-onnx manifest")
    schema["properties"]["schema_version"] = {"const": manifests.SCHEMA_VERSION}
    inner = plan()
    said = schema["properties"]["plan"]["description"]
    schema["properties"]["plan"] = {"allOf": [{"$ref": "#/definitions/Plan"}], "description": said}
    schema["definitions"] |= inner.pop("definitions") | {"Plan": inner}
    return schema


def profile() -> Schema:
    """What `profile -o` writes."""
    schema = of_type(profiles.Profile, title="dnnsplit-onnx profile")
    schema["properties"]["schema_version"] = {"const": profiles.SCHEMA_VERSION}
    return schema


def predictor() -> Schema:
    """What `profile --predict -o` writes."""
    schema = of_type(predictors.Predictor, title="dnnsplit-onnx predictor")
    for name in ("median_error", "within_tenth"):  # summed up for people; readers take the trials
        said = one_line(inspect.getdoc(getattr(predictors.Predictor, name)) or "")
        schema["properties"][name] = {"type": ["number", "null"], "description": said}
    return schema


def of_type(kind: type, title: str, mode: Any = "serialization") -> Schema:
    """The schema of a type, with what its docstrings say of its keys, and `definitions`."""
    made = TypeAdapter(kind).json_schema(ref_template="#/definitions/{model}", mode=mode)
    definitions = made.pop("$defs", {})
    own = sys.modules[kind.__module__]
    for name, schema in definitions.items():
        homes = (module for module in (own, tiers_tables, figures) if hasattr(module, name))
        described(schema, getattr(next(homes), name))
    described(made, kind)
    return {"title": title, **made, "definitions": definitions}


def described(schema: Schema, kind: type) -> None:
    """Replaces generated titles with what the type's docstring says."""
    doc = inspect.cleandoc(kind.__doc__ or "")
    schema.pop("title", None)
    schema["description"] = one_line(doc.split("\n\n")[0])
    said = attributes(doc)
    for name, field in getattr(kind, "model_fields", {}).items():  # files may call a field otherwise
        if field.alias and name in said:
            said.setdefault(field.alias, said[name])
    for key, value in schema["properties"].items():
        value.pop("title", None)
        if key in said:
            value["description"] = said[key]


def attributes(doc: str) -> dict[str, str]:
    """The entries of a docstring's `Attributes:`."""
    _, _, section = doc.partition("Attributes:\n")
    section = section.split("\n\n")[0]
    found: dict[str, str] = {}
    for match in re.finditer(r"^    (\w[\w, ]*): (.*(?:\n {8,}.*)*)", section, flags=re.MULTILINE):
        for name in match[1].split(", "):
            found[name] = one_line(match[2])
    return found


def plain(schema: Any) -> Any:
    """A schema without what it would mean anyway, which some releases of pydantic say."""
    if isinstance(schema, list):
        return [plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {k: plain(v) for k, v in schema.items() if (k, v) != ("additionalProperties", True)}


def one_line(text: str) -> str:
    """Text without its line breaks."""
    return " ".join(text.split())


def nullable(schema: Schema) -> Schema:
    """A schema that takes null too."""
    if "anyOf" in schema:
        return schema  # a type that has None already
    return {**schema, "type": [schema["type"], "null"]}


def inlined(schema: Any, definitions: Schema) -> Any:
    """A schema with its references replaced by what they refer to."""
    if isinstance(schema, list):
        return [inlined(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target = definitions[schema["$ref"].rpartition("/")[2]]
        rest = {key: value for key, value in schema.items() if key not in ("$ref", "default")}
        return inlined({**target, **rest}, definitions)
    return {key: inlined(value, definitions) for key, value in schema.items()}


def without_null(schema: Any) -> Any:
    """A schema for a format that has no null: TOML."""
    if isinstance(schema, list):
        return [without_null(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = [part for part in schema.get("anyOf", ()) if part != {"type": "null"}]
    if len(parts) == 1:
        schema = {**{k: v for k, v in schema.items() if k != "anyOf"}, **parts[0]}
    return {key: without_null(value) for key, value in schema.items() if (key, value) != ("default", None)}


if __name__ == "__main__":
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
