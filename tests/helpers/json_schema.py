"""Documents held against the JSON schemas of docs/reference."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

SCHEMAS = Path(__file__).parents[2] / "docs" / "reference" / "schemas"


def wrong(value: Any, schema: Mapping[str, Any], at: str = "$") -> Iterator[str]:
    """Where a document differs from one of the schemas; a key that the schema does not know is wrong."""
    types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if not any(_IS[t](value) for t in types):
        yield f"{at} is {value!r:.60}, not {' or '.join(types)}"
    elif "const" in schema and value != schema["const"]:
        yield f"{at} is {value!r:.60}, not {schema['const']!r}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{at} is {value!r:.60}, not one of {schema['enum']}"
    elif isinstance(value, dict):
        known = schema.get("properties", {})
        yield from (f"{at} lacks {name}" for name in schema.get("required", ()) if name not in value)
        for name, inner in value.items():
            expected = known.get(name, schema.get("additionalProperties"))
            if isinstance(expected, Mapping):
                yield from wrong(inner, expected, f"{at}.{name}")
            else:
                yield f"{at}.{name} is not documented"
    elif isinstance(value, list):
        for k, inner in enumerate(value):
            yield from wrong(inner, schema["items"], f"{at}[{k}]")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_IS: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": _is_number,
    "null": lambda v: v is None,
}


def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    return found
