"""Of a large task graph `schedule` says what memory it takes and about how long the rest will."""

from pathlib import Path

import pytest

from pararev_hw.cli import schedule


def test_a_large_file_tells_its_memory_and_a_small_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "graph.json"
    file.write_bytes(b" " * 1024)
    assert schedule._memory_needed(str(file), "json") == ""
    monkeypatch.setattr(schedule, "LARGE_BYTES", 1024)
    assert schedule._memory_needed(str(file), "json") == " (some 14.0 KiB of memory)"  # 14 bytes for each of 1024
    assert schedule._memory_needed("pararevsnn37", None) == ""


def test_what_is_left_goes_by_how_long_reading_took() -> None:
    assert schedule._left(1_000_000, "json", "memory-list", 100.0) == ", 3 min left"  # 1.6 times 100 s
    assert schedule._left(1_000_000, "json", "heft", 100.0) == ", 70 s left"
    assert schedule._left(100, "json", "heft", 100.0) == ""
    assert schedule._left(1_000_000, "json", "exact", 100.0) == ""
