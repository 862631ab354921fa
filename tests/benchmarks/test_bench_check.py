"""`make bench-check` fails where something became slower; the times of a run are given here, none is taken."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_check

STORED = json.loads(bench_check.STORED.read_text(encoding="utf-8"))


def run(ratios: dict[str, float], patch: pytest.MonkeyPatch, *options: str) -> int:
    results = {name: bench_check.Measured(2.0 * ratio, 2.0) for name, ratio in ratios.items()}
    patch.setattr(bench_check, "measured", lambda repeats: results)
    patch.setattr(sys, "argv", ["bench_check.py", *options])
    return bench_check.main()


def test_what_is_as_fast_as_stored_passes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run({name: 1.24 * ratio for name, ratio in STORED.items()}, monkeypatch) == 0
    shown = capsys.readouterr()
    assert shown.err == "" and shown.out.count("(+24%)") == len(STORED)


@pytest.mark.parametrize("spoilt", STORED)
def test_each_ratio_can_make_the_check_fail(
    spoilt: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run({**STORED, spoilt: 1.26 * STORED[spoilt]}, monkeypatch) == 1
    assert capsys.readouterr().err == f"error: {spoilt} is more than 25% slower than stored\n"


def test_a_ratio_without_its_other_half_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *others = STORED
    assert run({**{name: STORED[name] for name in others}, "new": 1.0}, monkeypatch) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" is ")[0] for line in lines] == ["error: new", f"error: {first}"]


def test_stored_ratios_are_those_that_the_next_run_is_held_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench_check, "STORED", tmp_path / "ratios.json")
    assert run({"loop": 0.5}, monkeypatch, "--store") == 0
    assert run({"loop": 0.62}, monkeypatch) == 0
    assert run({"loop": 0.63}, monkeypatch) == 1
