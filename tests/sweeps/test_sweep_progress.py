"""While a sweep runs it says how far it is, how long the rest takes and what room its rows take."""

from types import SimpleNamespace
from typing import Any, cast

from pararev_hw.sweeps.run import _how_far


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
