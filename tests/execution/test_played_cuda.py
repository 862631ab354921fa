"""Streams without a GPU: every call to CUDA is written down, and what it orders is held against the graph's edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pytest
import torch

from pararev_hw import execution
from pararev_hw.errors import StepFailed
from pararev_hw.execution import LaneRunner, LoopRunner
from pararev_hw.execution.lane_order import lane_slots
from pararev_hw.execution.played_cuda import Call, PlayedCuda
from pararev_hw.execution.streams import LaneStreams
from pararev_hw.trace_options import TraceOptions
from pararev_hw.types import BlockGraph
from tests.helpers.random_schedules import random_lanes

TINY = TraceOptions(granularity="block", batch=2, width=0.0625, timesteps=2, num_classes=10)


@pytest.fixture(scope="module")
def job() -> execution.Job:
    return execution.prepare("pararevsnn21", replace(TINY, dtype="float64", optimizer="sgd-foreach"))


def recorded(job: execution.Job, orders: Sequence[Sequence[int]]) -> list[Call]:
    """What one step asks of CUDA, each task of the step among it."""
    cuda = PlayedCuda()
    with LaneRunner(job, orders, cuda=cuda) as lanes:
        assert isinstance(lanes._lanes, LaneStreams)
        run_task = lanes._bound.run_task
        for task, run in list(run_task.items()):
            run_task[task] = lambda task=task, run=run: (cuda.calls.append(("task", task)), run())  # type: ignore[misc]
        lanes.step(next(execution.batches(job)))
    return cuda.calls


def unordered(graph: BlockGraph, orders: Sequence[Sequence[int]], calls: Sequence[Call]) -> set[tuple[int, int]]:
    """Edges of the graph that the calls do not order, by what each stream is known to come after."""
    stream_of_lane = {lane: lane + 1 for lane in range(len(orders))}  # stream 0 is the default one
    lane_of = {t: lane for lane, order in enumerate(orders) for t in order}
    passed: dict[int, set[int]] = {}  # stream -> tasks that are over before what it is given next
    at_event: dict[int, set[int]] = {}
    missing = set()
    into: dict[int, list[int]] = {}
    for e in graph.edges:
        into.setdefault(e.dst, []).append(e.src)
    for name, *numbers in calls:
        if name == "task":
            task = int(numbers[0])
            own = passed.setdefault(stream_of_lane[lane_of[task]], set())
            missing |= {(src, task) for src in into.get(task, ()) if src not in own}
            own.add(task)
        elif name == "record":
            at_event[int(numbers[0])] = set(passed.get(int(numbers[1]), ()))
        elif name == "wait_event":
            passed.setdefault(int(numbers[0]), set()).update(at_event.get(int(numbers[1]), ()))
        elif name == "wait_stream":
            passed.setdefault(int(numbers[0]), set()).update(passed.get(int(numbers[1]), ()))
    return missing


@pytest.mark.parametrize("lanes", [2, 3])
def test_streams_wait_for_every_edge_that_crosses_them(job: execution.Job, lanes: int) -> None:
    orders = random_lanes(job.graph, lanes, 1)
    calls = recorded(job, orders)
    assert unordered(job.graph, orders, calls) == set()
    waits = [c for c in calls if c[0] == "wait_event"]
    assert len(waits) == sum(len(slot.waits) for lane in lane_slots(job.graph, orders) for slot in lane) > 0
    assert any(c[0] == "lend" for c in calls)
    # a wait that is forgotten is seen, whichever it is
    for forgotten in waits[:: max(1, len(waits) // 5)]:
        assert unordered(job.graph, orders, [c for c in calls if c is not forgotten])


def test_the_order_of_calls_is_the_same_every_time(job: execution.Job) -> None:
    orders = random_lanes(job.graph, 2, 1)
    assert recorded(job, orders) == recorded(job, orders)


@pytest.mark.parametrize("launch", ["eager", "graph"])
def test_a_step_played_on_streams_is_that_of_the_plain_loop(
    job: execution.Job, launch: Literal["eager", "graph"]
) -> None:
    data = execution.batches(job)
    with (
        LaneRunner(job, random_lanes(job.graph, 3, 2), launch=launch, cuda=PlayedCuda()) as lanes,
        LoopRunner(job) as loop,
    ):
        for _ in range(3):
            batch = next(data)
            lanes.step(batch)
            loop.step(batch)
            assert execution.difference(lanes, loop) == 0


def test_a_capture_refuses_what_makes_the_host_wait() -> None:
    x = torch.ones(3)

    def reads_a_value() -> None:
        x.mul_(x.sum().item())

    def asks_for_a_size() -> None:
        x.nonzero()

    def picks_by_a_mask() -> None:
        x[x > 0]

    with pytest.raises(StepFailed, match="by a mask makes the host wait"):
        PlayedCuda().capture(picks_by_a_mask)
    with pytest.raises(StepFailed, match=r"_local_scalar_dense.* makes the host wait"):
        PlayedCuda().capture(reads_a_value)
    with pytest.raises(StepFailed, match=r"nonzero.* makes the host wait"):
        PlayedCuda().capture(asks_for_a_size)


def test_a_capture_refuses_to_move_what_it_did_not_make() -> None:
    x = torch.ones(3)

    def grows_within() -> None:
        torch.empty(0).resize_(4).fill_(1.0)

    PlayedCuda().capture(grows_within)
    with pytest.raises(StepFailed, match=r"resize_.* gives a tensor from outside other memory"):
        PlayedCuda().capture(lambda: x.resize_(100).fill_(1.0))


def test_a_capture_changes_nothing_and_a_replay_reads_what_its_inputs_hold_then() -> None:
    x, out, count = torch.arange(4.0).reshape(2, 2), torch.zeros(2), torch.zeros(())

    def step() -> None:
        out.copy_(x.t()[0] * 2)
        count.add_(1)

    replay = PlayedCuda().capture(step)
    assert (out.tolist(), count.item()) == ([0.0, 0.0], 0.0)
    x.fill_(3.0)
    replay()
    replay()
    assert (out.tolist(), count.item()) == ([6.0, 6.0], 2.0)
