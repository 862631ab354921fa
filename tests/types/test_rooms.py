"""Rooms whose names are imported when they are first used."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from pararev_hw import reports, types


@pytest.mark.parametrize("room", [types, reports])
def test_every_name_that_a_room_lists_is_there_and_no_other(room: ModuleType) -> None:
    names = [n for n in dir(room) if not n.startswith("_")]
    assert len(names) > 40
    files = {path.stem for path in Path(str(room.__file__)).parent.glob("*.py")}
    listed = {w[3] for w in map(str.split, Path(str(room.__file__)).read_text().splitlines()) if w[:1] == ["from"]}
    assert not files & listed
    for name in names:
        value = getattr(room, name)
        place = getattr(value, "__module__", None)
        if place and place.startswith("pararev_hw"):
            assert getattr(import_module(place), name) is value
    with pytest.raises(AttributeError, match="has no attribute 'Blockgraph'"):
        room.Blockgraph  # noqa: B018
