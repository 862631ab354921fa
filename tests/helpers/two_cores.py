"""Two cores for tests that run lanes side by side: a machine with one core interleaves their threads."""

from __future__ import annotations

import pytest


def give_two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pararev_hw.measurement.environment", "pararev_hw.execution.machine"):
        monkeypatch.setattr(f"{module}.cores", lambda: 2)
