"""Text files that a user gives: regular files of bounded size, strict JSON and YAML, faults told in one line.

Nothing is kept in silence: a key given twice, a number that is not finite, half a character or a file that never ends
is refused. Every message begins with `where`, the file or the part of it that is at fault.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Hashable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pararev_hw import limits
from pararev_hw.errors import BadFile

if TYPE_CHECKING:
    from pydantic import ValidationError

_SHOWN = 60  # characters of a value that a message quotes
_PRINTED_BITS = 256  # of an integer whose digits are shown


def read_bytes(path: Path, most_bytes: int, holds: str) -> bytes:
    """The bytes of a regular file. `holds` says what such a file is: "a device file is YAML or JSON".

    Raises BadFile where it is missing, unreadable, larger than `most_bytes`, or no regular file: a pipe or a device
    may never end.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise BadFile(f"{path}: cannot be read: is no regular file: {holds}")
        _check_size(path, status.st_size, most_bytes, holds)
        # a pipe may have taken its place meanwhile: opening one would wait for a writer
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            data = file.read(most_bytes + 1)
    except BadFile:
        raise
    except OSError as error:
        raise BadFile(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError:  # a path with a NUL in it
        raise BadFile(f"{str(path)!r}: cannot be read: a path holds no NUL") from None
    _check_size(path, len(data), most_bytes, holds)
    return data


def _check_size(path: Path, size: int, most_bytes: int, holds: str) -> None:
    if size > most_bytes:
        raise BadFile(f"{path}: larger than {most_bytes} bytes: {holds}")


def check_size(path: Path, most_bytes: int, holds: str) -> None:
    """Raises BadFile for a file that has been read and is larger than what it turned out to hold may be."""
    _check_size(path, path.stat().st_size, most_bytes, holds)


def read_text(path: Path, most_bytes: int, holds: str) -> str:
    """The text of a regular file in UTF-8, a byte order mark left out. Raises BadFile as `read_bytes` does."""
    try:
        text = read_bytes(path, most_bytes, holds).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(f"{path}: byte {error.start} is not UTF-8 text: {holds}") from None
    if not text.strip():
        raise BadFile(f"{path}: the file is empty")
    return text


def parse_json(text: str, where: str) -> Any:
    """The JSON document in a text. Raises BadFile, one line that begins with `where`."""
    try:
        document = json.loads(
            text.removeprefix("\ufeff"),
            parse_constant=_no_constant,
            object_pairs_hook=_unique,
        )
    except json.JSONDecodeError as error:
        raise BadFile(
            f"{where}: not valid JSON in line {error.lineno}, column {error.colno} ({error.msg}): "
            "was the file cut short, half written?"
        ) from None
    except RecursionError:
        raise BadFile(f"{where}: not valid JSON: nested too deeply") from None
    except _Refused as error:
        raise BadFile(f"{where}: {error}") from None
    except ValueError:  # an integer of more digits than Python reads
        raise BadFile(f"{where}: holds a number of thousands of digits") from None
    if "\\ud" in text or "\\uD" in text:
        _check_characters(document, where)
    return document


class _Refused(ValueError):
    """What is valid to the parser and refused all the same."""


def _no_constant(word: str) -> float:
    raise _Refused(f"holds {word}, which is no JSON number: numbers are finite")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys: set[str] = set()
        again = next(key for key, _ in pairs if key in keys or keys.add(key))  # type: ignore[func-returns-value]
        raise _Refused(f"key {shown(again)} is given twice")
    return mapping


def _check_characters(document: Any, where: str) -> None:
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            check_characters(value, where)


def check_characters(text: str, where: str) -> None:
    """Refuse half a character, which no file and no terminal can take. Raises BadFile."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadFile(f"{where}: {shown(text)} holds half a character (a lone surrogate)") from None


_LIBYAML_FAULTS = {
    "exceeded maximum nesting depth": "nested too deeply",
    "found invalid Unicode character escape code": "an escape stands for no character, or for half a character",
}


def parse_yaml(text: str, where: str) -> Any:
    """The YAML document in a text: plain data, no key twice (a merged key may be overridden), aliases bounded.

    Raises BadFile, one line that begins with `where`.
    """
    import yaml

    from pararev_hw.strict_yaml import StrictLoader, TooLarge

    try:
        document = StrictLoader.load(text.removeprefix("\ufeff"), limits.YAML_NODES)
    except TooLarge as error:
        raise BadFile(f"{where}: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = str(error.problem or error.context)
        raise BadFile(f"{where}: not valid YAML{line}: {_LIBYAML_FAULTS.get(problem, problem)}") from None
    except RecursionError:
        raise BadFile(f"{where}: not valid YAML: nested too deeply") from None
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        # PyYAML's constructors raise what they like for a tag that does not suit its value: `!!bool maybe`
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadFile(f"{where}: not valid YAML: {first[:200]}") from None
    _check_characters(document, where)
    return document


def shown(value: object) -> str:
    """A value as a message quotes it: short, on one line."""
    if isinstance(value, int) and value.bit_length() > _PRINTED_BITS:  # Python refuses to print thousands of digits
        return f"a number of {value.bit_length()} bits"
    text = repr(value) if isinstance(value, str | int | float | bool | type(None)) else f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def unknown_key(key: str, valid: Sequence[Hashable], at: str = "") -> str:
    """What to say of a key that nobody knows, at a place in the document: the nearest one, or all of them."""
    names = [str(name) for name in valid]
    near = get_close_matches(key, names, n=1, cutoff=0.5)
    place = f" at {at}" if at else ""
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    return f"unknown key {shown(key)}{place}: {hint}"


def first_fault(error: ValidationError) -> dict[str, Any]:
    """The fault to speak of first: a key that is unknown explains one that is missing."""
    return dict(sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")[0])


_EXPECTED = {  # by pydantic's type of fault: what there should be
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    "finite_number": "a finite number",
    "string_type": "text",
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
}


def fault_in_words(fault: dict[str, Any], at: str) -> str:
    """What pydantic found wrong at the place `at`, in one line; unknown keys are the caller's, who knows the others."""
    match fault["type"]:
        case "missing":
            return f"{at} is missing"
        case "literal_error":
            return f"{at} is {shown(fault['input'])}: it must be {fault['ctx']['expected']}"
        case "model_type" | "dict_type":
            return f"{at} is {shown(fault['input'])}: it must be a mapping"
        case "value_error":
            message = str(fault["ctx"]["error"])
            return f"{at} {message}" if message.startswith("is ") else f"{at}: {message}"
        case kind if kind in _EXPECTED:
            return f"{at} is {shown(fault['input'])}: it must be {_EXPECTED[kind].format(**fault.get('ctx', {}))}"
        case _:
            message = fault["msg"]
            return f"{at} is {shown(fault['input'])}: {message[0].lower()}{message[1:]}"
