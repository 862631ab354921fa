"""What a trace leaves to Python's garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from pararev_hw.tracing import trace_step
from pararev_hw.tracing.recorder import Recorder
from pararev_hw.training.collection import take_for_old


@pytest.fixture(autouse=True)
def _without_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


def _trace() -> None:
    trace_step(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.empty(2, 3))


def test_what_recorded_a_step_goes_as_soon_as_the_step_is_traced() -> None:
    _trace()
    assert not any(isinstance(o, Recorder) for o in gc.get_objects())


@pytest.mark.parametrize("set_aside", [False, True])
def test_what_a_trace_made_is_old_and_what_was_set_aside_stays_so(set_aside: bool) -> None:
    if set_aside:
        gc.freeze()
    young = [[] for _ in range(1000)]
    before = gc.get_freeze_count()
    take_for_old()
    assert not {id(o) for o in young} & {id(o) for k in (0, 1) for o in gc.get_objects(k)}
    assert (gc.get_freeze_count() >= before + 1000) if set_aside else gc.get_freeze_count() == 0
