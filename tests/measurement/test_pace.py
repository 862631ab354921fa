"""A sample taken while Python ran slowly is taken again, or what it would have been at full speed."""

from __future__ import annotations

import pytest

from pararev_hw.measurement import measure, pace
from pararev_hw.measurement.pace import PacedClock, pace_s

REFERENCE_S = 1e-4


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A machine that runs at each slowdown in turn, sample by sample; a run takes 10 ms at its own speed."""
    slowdowns: list[float] = []
    state = {"now": 1.0}

    def sample(run: object, count: int) -> tuple[float, float]:
        state["now"] = slowdowns.pop(0) if slowdowns else 1.0
        return 0.01 * state["now"], 0.01 * state["now"]

    monkeypatch.setattr(pace, "cpu_clock", sample)
    monkeypatch.setattr(pace, "pace_s", lambda: REFERENCE_S * state["now"])
    return slowdowns


def test_undisturbed_samples_are_as_measured(machine: list[float]) -> None:
    clock = PacedClock(REFERENCE_S)
    assert clock(lambda: None, 1) == (0.01, 0.01)


def test_slow_samples_do_not_count(machine: list[float]) -> None:
    """Half of the samples take twice as long: the median is that of the others."""
    machine += [1.0, 2.0, 2.0, 1.0, 2.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    timing = measure(lambda: None, PacedClock(REFERENCE_S), limit_s=1.0, min_samples=5)
    assert timing.median_s == pytest.approx(0.01)
    assert not timing.noisy


def test_a_machine_that_stays_slow_is_scaled_to_its_own_speed(machine: list[float]) -> None:
    machine += [2.0] * 200
    timing = measure(lambda: None, PacedClock(REFERENCE_S, exponent=1.0), limit_s=0.0, min_samples=5)
    assert timing.median_s == pytest.approx(0.01)
    assert timing.disturbed > 0


def test_the_pace_is_that_of_real_work() -> None:
    """Twenty small calls and forty views take more than 10 us and less than 50 ms anywhere."""
    assert all(1e-5 < pace_s() < 5e-2 for _ in range(3))
