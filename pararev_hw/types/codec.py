"""Every noun as JSON and back: `from_json(to_json(x)) == x`.

The document names its noun and the version of its schema; everything in it is checked when it is read. What the verbs
print for other people's scripts stands beside this (`graph.files`, `schedulers.document`, `reports.document`): those
keys are contracts, chosen by hand; these follow from the nouns themselves.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, TypeVar

from pararev_hw.documents import fault_in_words, first_fault, parse_json, shown, unknown_key
from pararev_hw.errors import BadFile
from pararev_hw.types.base import SCHEMA_VERSION
from pararev_hw.types.graph import InMemory

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Noun = TypeVar("Noun")

_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}  # made once: each takes milliseconds


def to_json(noun: Any) -> str:
    """The noun, a dataclass, as one line of JSON."""
    fields = _with_infinity_as_text(_adapter(type(noun)).dump_python(noun))
    document = {"noun": type(noun).__name__, "schema_version": SCHEMA_VERSION, "fields": fields}
    return json.dumps(document, separators=(",", ":"), allow_nan=False)


def from_json(text: str, noun: type[Noun], where: str = "the document") -> Noun:
    """The noun of that type in a JSON text. Raises BadFile, one line that begins with `where`."""
    document = parse_json(text, where)
    if not isinstance(document, dict) or "fields" not in document:
        raise BadFile(f"{where}: holds no {noun.__name__}: an object with noun, schema_version and fields is expected")
    if document.get("noun") != noun.__name__:
        raise BadFile(f"{where}: holds a {shown(document.get('noun'))}, not a {noun.__name__!r}")
    version = document.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise BadFile(f"{where}: schema_version is {shown(version)}: this release reads {SCHEMA_VERSION}")
    names = tuple(noun.__dataclass_fields__)  # type: ignore[attr-defined]
    unknown = sorted(set(document["fields"]) - set(names)) if isinstance(document["fields"], dict) else []
    if unknown:
        raise BadFile(f"{where}: {unknown_key(unknown[0], names)}")
    return from_fields(document["fields"], noun, where)


def from_fields(fields: object, noun: type[Noun], where: str) -> Noun:
    """The noun with these fields, JSON data. Raises BadFile, one line that begins with `where`."""
    from pydantic import ValidationError

    try:
        return _adapter(noun).validate_python(fields)
    except ValidationError as error:
        fault = first_fault(error)
        raise BadFile(f"{where}: {fault_in_words(fault, '.'.join(map(str, fault['loc'])) or noun.__name__)}") from None


def _adapter(noun: type[Noun]) -> TypeAdapter[Noun]:
    from pydantic import TypeAdapter  # heavy, and only files need it

    if noun not in _ADAPTERS:
        _ADAPTERS[noun] = TypeAdapter(noun)
    return _ADAPTERS[noun]


def _with_infinity_as_text(value: Any) -> Any:
    """Infinity marks a lane on which a task may not run, and JSON has no number for it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {k: _with_infinity_as_text(v) for k, v in value.items() if not isinstance(v, InMemory)}
    return [_with_infinity_as_text(v) for v in value] if isinstance(value, list | tuple) else value
