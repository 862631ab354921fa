"""What a scheduler holds in memory beside what a report counts."""

from __future__ import annotations

import pytest

import pararev_hw as ph


@pytest.mark.parametrize("scheduler", ["memory-list", "memory-min"])
@pytest.mark.parametrize("name", ["pararevsnn21", "msresnet18"])
def test_a_schedule_on_planned_memory_has_the_peak_that_is_predicted(name: str, scheduler: str) -> None:
    """A chip without an allocator: what the scheduler keeps within a limit is what the report counts."""
    graph = ph.trace(name, width=0.125, batch=2, timesteps=2, spikes="none")
    plan = ph.schedule(graph, "edge8", scheduler=scheduler)
    assert plan.schedule.peak_bytes == plan.predict().peak_bytes
