"""Schedulers as tests run them: with budgets that every machine can afford, on the instances with known optima."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pararev_hw import schedulers
from pararev_hw.schedulers import names
from pararev_hw.types import Schedule, SchedulingProblem

INSTANCES = Path(__file__).parents[1] / "golden" / "instances"
EVERY = pytest.mark.parametrize("name", names())

# What every test can afford, and what gives the same on every machine.
BUDGETS: dict[str, dict[str, Any]] = {
    "exact": {"workers": 1, "seconds": 0.05},
    "local-search": {"iterations": 30},
    "pareto": {"points": 4},
}


def run(costs: SchedulingProblem, name: str, **options: Any) -> Schedule:
    return schedulers.run(costs, name, **{**BUDGETS.get(name, {}), **options})


def rows(file: str) -> list[dict[str, str]]:
    header, *lines = (line.split(",") for line in (INSTANCES / file).read_text().split())
    return [dict(zip(header, line, strict=True)) for line in lines]


def tight(costs: SchedulingProblem, share: float) -> SchedulingProblem:
    """The limit at a share of the way from the sequential peak to the one that no limit holds back."""
    low, high = (run(costs, s).peak_bytes or 0 for s in ("sequential", "heft"))
    return replace(costs, memory_limit_bytes=int(low + share * (high - low)))
