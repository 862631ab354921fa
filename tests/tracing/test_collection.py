"""What a trace leaves to Python's garbage collector."""

from __future__ import annotations

import gc
import weakref
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
    gc.enable()


def _trace() -> None:
    trace_step(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.empty(2, 3))


class _Link:
    itself: object


def _recorders() -> set[int]:
    return {id(o) for o in gc.get_objects() if type(o) is Recorder}


def test_what_recorded_a_step_goes_as_soon_as_the_step_is_traced() -> None:
    before = _recorders()
    _trace()
    assert _recorders() <= before


@pytest.fixture
def _nothing_set_aside() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.collect()
    gc.freeze()  # as the session did when it began


def test_what_a_trace_made_is_old(_nothing_set_aside: None) -> None:
    young = [[] for _ in range(1000)]
    take_for_old()
    assert not {id(o) for o in young} & {id(o) for k in (0, 1) for o in gc.get_objects(k)}
    assert gc.get_freeze_count() == 0


def test_garbage_is_still_collected_where_objects_are_set_aside() -> None:
    gc.freeze()
    link = _Link()
    link.itself, gone = link, weakref.ref(link)
    take_for_old()
    del link
    gc.collect()
    assert gone() is None
