"""Writes the JSON schemas beside this file from the tool's own values, or into another folder:

    python docs/schema/make.py [FOLDER]

Needs the extra `test`, for pydantic.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from floatllm_build import values
from floatllm_build.record import RECORD_SHAPE
from floatllm_build.values import SCHEMA_VERSION, Host, Lack, Plan

HERE = Path(__file__).resolve().parent
VERSION = {"type": "integer", "const": SCHEMA_VERSION}
# A count of these cannot be 0.
AT_LEAST_ONE = {("CpuFacts", "usable"), ("Plan", "jobs")}
ABOUT_RECORDS = (
    "A machine's answers to the questions that were asked, and no facts made from them. {home}, {cache}, "
    "{user}, {uuid-1} and the like stand for what would tell whose machine it is. What was never asked is "
    "not there, and a kind of answers without any may be left out. The file is UTF-8, at most 4 MiB, names "
    "each thing once and has whole numbers only."
)


def definitions() -> dict[str, Any]:
    """JSON schema of each value, its docstrings among it."""
    kinds = [kind for kind in vars(values).values() if dataclasses.is_dataclass(kind)]
    for kind in kinds:
        kind.__pydantic_config__ = ConfigDict(use_attribute_docstrings=True)
    found: dict[str, Any] = {}
    for kind in (Host, Plan, Lack):
        schema = TypeAdapter(kind).json_schema(mode="serialization")
        found |= {**schema.pop("$defs", {}), kind.__name__: schema}
    for name, schema in found.items():
        for field, shape in schema["properties"].items():
            tighten(shape, minimum=1 if (name, field) in AT_LEAST_ONE else 0)
        schema |= {"required": list(schema["properties"]), "additionalProperties": False}
        schema.pop("title", None)
    return dict(sorted(found.items()))


def tighten(shape: dict[str, Any], minimum: int) -> None:
    """Numbers are sizes, counts and versions: none is negative. Titles only repeat the names."""
    shape.pop("title", None)
    if shape.get("type") == "integer":
        shape["minimum"] = minimum
    items = shape.get("items")
    for inner in (*shape.get("anyOf", ()), *shape.get("prefixItems", ()), *([items] if items else ())):
        tighten(inner, minimum)


def widened(shape: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """An object with properties of its own before and after those that it has."""
    properties = {**before, **shape["properties"], **after}
    return {**shape, "properties": properties, "required": list(properties)}


def document(name: str, title: str, shape: dict[str, Any]) -> dict[str, Any]:
    about = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:floatllm:{name}:{SCHEMA_VERSION}",
    }
    return {**about, "title": title, **shape}


def needed(shape: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """`shape` with the definitions that it refers to, directly or not."""
    wanted: set[str] = set()
    text = json.dumps(shape)
    while more := {name for name in known if f'"#/$defs/{name}"' in text} - wanted:
        wanted |= more
        text += json.dumps([known[name] for name in more])
    return {**shape, "$defs": {name: known[name] for name in known if name in wanted}}


def schemas() -> dict[str, dict[str, Any]]:
    """File name -> schema."""
    known = definitions()
    missing = {
        "missing": {
            "description": "What the plan needs and the machine lacks.",
            "type": "array",
            "items": {"$ref": "#/$defs/Lack"},
        }
    }
    known["Plan"] = widened(known["Plan"], {"schema_version": VERSION}, {})
    no_plan = {
        "plan": {
            "description": "What `install` would build, null where nothing can be built.",
            "anyOf": [{"$ref": "#/$defs/Plan"}, {"type": "null"}],
        },
        "problem": {
            "description": "Why there is no plan, and what to do; null where there is one.",
            "type": ["string", "null"],
        },
    }
    detect = widened(known["Host"], {"schema_version": VERSION}, {**no_plan, **missing})
    plan = widened(known["Plan"], {}, missing)
    return {
        "detect.schema.json": document(
            "detect", "What `floatllm-build detect --json` prints", needed(detect, known)
        ),
        "plan.schema.json": document("plan", "What `floatllm-build plan --json` prints", needed(plan, known)),
        "host-record.schema.json": document(
            "host-record",
            "A recorded host: what `floatllm-build detect --save` writes",
            {"description": ABOUT_RECORDS, **RECORD_SHAPE},
        ),
    }


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for name, schema in schemas().items():
        (folder / name).write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
