"""While a sweep runs it says how far it is, how long the rest takes and what room its rows and its front take."""

from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest

from pararev_hw import limits
from pararev_hw.errors import Infeasible
from pararev_hw.importers import free_memory
from pararev_hw.sweeps.run import _check_memory, _how_far
from pararev_hw.sweeps.sensitivity import AdditiveFit
from pararev_hw.sweeps.summary import Summary


def halfway(rows: int) -> Any:
    """Of so many rows in two parts, the first is written."""
    sweep = SimpleNamespace(rows=rows, span=lambda chunk: (chunk * rows // 2, (chunk + 1) * rows // 2))
    return cast(Any, SimpleNamespace(sweep=sweep, finished={0}))


def test_a_sweep_tells_time_left_and_much_room_on_the_disk() -> None:
    assert _how_far(halfway(1000), 0, 10.0, 50_000) == "500 of 1,000 configurations (50/s, 10 s left)"
    many = "1,000,000 of 2,000,000 configurations (100,000/s, 10 s left; 128 MiB on disk in all)"
    assert _how_far(halfway(2_000_000), 0, 10.0, 64 << 20) == many  # as much again for the other half


def test_rows_of_an_earlier_run_say_nothing_of_the_pace() -> None:
    assert _how_far(halfway(1000), 500, 10.0, 0) == "500 of 1,000 configurations (0/s)"


def test_memory_for_many_configurations_on_the_front_is_told_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    numbers = [float(k) for k in range(1000)]
    rows = pa.table({"row": range(1000), "up": numbers, "down": numbers[::-1]})
    summary = Summary((("up", False), ("down", False)), AdditiveFit({}))
    summary.extend((), rows)
    sweep = cast(Any, SimpleNamespace(name="all"))
    monkeypatch.setattr(limits, "FRONT_BYTES", 1 << 20)
    monkeypatch.setattr(free_memory, "available_bytes", lambda: (1000 << 20) - 1)
    _check_memory(sweep, summary, heard.append)  # too few to look
    assert not heard
    monkeypatch.setattr(limits, "MANY_FRONT_ROWS", 1000)
    refused = r"all: to sort out 1,000 configurations .* needs some 1000 MiB .* free: fewer objectives"
    with pytest.raises(Infeasible, match=refused):
        _check_memory(sweep, summary, heard.append)
    monkeypatch.setattr(free_memory, "available_bytes", lambda: 1000 << 20)
    _check_memory(sweep, summary, heard.append)
    assert len(heard) == 1 and heard[0].endswith("needs some 1000 MiB of memory here, 1000 MiB are free")
