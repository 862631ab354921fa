"""Rooms whose names are imported when they are first used: a light verb does not pay for what it never looks at."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path


def names_when_used(room: str) -> Callable[[str], object]:
    """The `__getattr__` of a package whose `__init__.py` imports its names for type checkers alone.

    Which module holds which name is read from there, so it stands in one place. No module of the package may bear such
    a name: whoever imports it would put it in the name's place.
    """
    lines = Path(str(sys.modules[room].__file__)).read_text(encoding="utf-8").splitlines()
    imports = [line.split() for line in lines if line.startswith("    from ")]  # from PLACE import NAME as NAME
    place_by_name = {words[3]: words[1] for words in imports}

    def value(name: str) -> object:
        if name not in place_by_name:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        result: object = getattr(import_module(place_by_name[name]), name)
        setattr(sys.modules[room], name, result)
        return result

    sys.modules[room].__dict__["__dir__"] = lambda: sorted({*vars(sys.modules[room]), *place_by_name})
    return value
