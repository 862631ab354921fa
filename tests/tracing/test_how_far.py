"""How far a trace is: the time and the memory that it says are left are those of a step that goes on as it began."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from pararev_hw import limits
from pararev_hw.errors import Infeasible
from pararev_hw.tracing import Loop, StepDescription, trace_step
from pararev_hw.tracing.how_far import EVERY, StepWatch


def _watch(lines: list[str], **options: int | None) -> StepWatch:
    clock: Iterator[float] = iter(range(0, 1000, 10))  # ten seconds from one look to the next
    watch = StepWatch(
        "net", **{"passes": 1, "modules": 10, **options}, progress=lines.append, clock=lambda: next(clock)
    )
    watch.begin()
    return watch


def test_half_of_the_modules_are_half_of_the_forward_pass() -> None:
    lines: list[str] = []
    _watch(lines).recorded(1000, 5, 5, backward=False)
    # 1,000 of 2,000 in 10 s; the step has 3.2 times as many, 6.25 shares of 10 s, and building takes 0.6 as long again
    assert lines[-1].startswith("tracing net: 1,000 of some 6,000 operations, which need some 38 MiB of memory, ")
    assert lines[-1].endswith(f" {64 * 1.6 - 10:.0f} s left")


def test_networks_that_walk_through_time_call_each_module_once_a_step() -> None:
    lines: list[str] = []
    # 25 of 40 calls: 1,000 of 1,600 operations, without gradients 16 s and 9.6 s of building, of which 10 s are over
    _watch(lines, passes=0, timesteps=4).recorded(1000, 25, 10, backward=False)
    assert "1,000 of some 2,000 operations" in lines[-1] and lines[-1].endswith(" 16 s left")
    # layer by layer each module is called once, whatever the time steps
    _watch(lines, passes=0, timesteps=4).recorded(1000, 10, 10, backward=False)
    assert "1,000 of some 1,000 operations" in lines[-1] and lines[-1].endswith(" 6 s left")


def test_the_backward_pass_tells_the_length_of_the_forward_one() -> None:
    lines: list[str] = []
    watch = _watch(lines, passes=2)
    watch.recorded(1000, 5, 5, backward=True)  # 10 s
    watch.recorded(3200, 5, 5, backward=True)  # 20 s: half of two passes of 3,200 operations each
    assert "3,200 of some 6,000 operations" in lines[-1] and lines[-1].endswith(" 44 s left")
    watch.recorded(9000, 5, 5, backward=True)  # 30 s: more than was expected, so only building is left
    assert "9,000 of some 9,000 operations" in lines[-1] and lines[-1].endswith(" 18 s left")
    watch.building(9000)
    assert lines[-1] == "building the graph of net from 9,000 operations, 24 s left"


def test_steps_that_memory_does_not_hold_are_refused() -> None:
    lines: list[str] = []
    watch = StepWatch("net", 0, 10, free_bytes=1000 * limits.TRACE_BYTES, progress=lines.append)
    watch.begin()
    watch.recorded(1000, 0, 0, backward=False)
    assert lines == ["tracing net: 1,000 operations"]
    with pytest.raises(
        Infeasible, match=r"net: to trace a step of 1,001 operations or more needs some 6 MiB, 6 MiB of memory.*"
    ):
        watch.recorded(1001, 0, 0, backward=False)


class Counting(nn.Module):
    """Adds one as often as it is told."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times, self.scale = times, nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.scale(x)
        for _ in range(self.times):
            x = x + 1.0
        return x


def test_a_trace_tells_how_far_it_is_and_ends_when_memory_does() -> None:
    lines: list[str] = []
    model, x = Counting(3 * EVERY), torch.zeros(1, 2)
    graph = trace_step(model, x, loop=None, description=StepDescription("net", progress=lines.append)).graph
    assert [line.split(" of ")[0] for line in lines[:3]] == [f"tracing net: {k * EVERY:,}" for k in (1, 2, 3)]
    assert lines[3].startswith(f"building the graph of net from {len(graph.ops):,} operations, ")
    free = int(1.5 * EVERY * limits.TRACE_BYTES)
    with pytest.raises(Infeasible, match=f"net: to trace a step of {2 * EVERY:,} operations or more"):
        trace_step(model, x, loop=None, description=StepDescription("net", free_bytes=free))
    with pytest.raises(Infeasible):  # what follows from its forward pass does not fit
        trace_step(Counting(EVERY), x, loop=Loop(), description=StepDescription("net", free_bytes=free))
