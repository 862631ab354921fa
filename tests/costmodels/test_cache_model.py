"""Bytes are lost to a cache by how much traffic lay in between: against distances counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pararev_hw.costmodels.calibrated.cache_model import MMAP_BYTES, miss_bytes, miss_share
from pararev_hw.costmodels.traffic import traffic
from pararev_hw.types import BlockGraph
from tests.helpers.hand_built_graphs import Step, chain


@given(st.floats(1, 1e12), st.floats(1, 1e12), st.floats(1, 1e12))
def test_more_traffic_or_a_smaller_cache_lose_more(distance: float, more: float, capacity: float) -> None:
    near, far = miss_share(np.array([distance, distance + more]), capacity)
    assert 0 <= near <= far <= 1
    assert miss_share(np.array([distance]), capacity + more)[0] <= near


def test_half_is_lost_at_the_capacity_and_all_of_what_was_never_touched() -> None:
    assert miss_share(np.array([0.0, 5e6, np.inf]), 5e6) == pytest.approx([0.0, 0.5, 1.0])


def two_ops_apart(between: int) -> BlockGraph:
    """x is read, `between` other ops run on tensors of their own, x is read again."""
    step = Step()
    x = step.storage(step.image, "input")
    others = [step.storage(step.image, "input") for _ in range(between)]
    step.task("a", "", "forward")
    step.op("elementwise", (x,), (x,))
    for other in others:
        step.op("elementwise", (other,), (other,))
    step.op("elementwise", (x,), (x,))
    return step.graph("apart")


@pytest.mark.parametrize("between", [0, 1, 5, 20])
def test_the_distance_is_the_traffic_in_between(between: int) -> None:
    graph = two_ops_apart(between)
    size = graph.storages[0].bytes
    # the first op and those in between move 2 x size each; the write of the same op is not apart from its read
    distance = 2 * size * (1 + between)
    capacity = 8.0 * size
    (found,) = miss_bytes(graph, traffic(graph), (capacity,))
    expected = 1 / (1 + (capacity / distance) ** 4)
    assert found[-1] == pytest.approx(size * expected + size * float(miss_share(np.array(0.0), capacity)), rel=1e-9)


def test_a_cache_that_holds_everything_loses_only_fresh_memory() -> None:
    graph = chain(3)
    flow = traffic(graph)
    (endless,) = miss_bytes(graph, flow, (1e15,))
    (none,) = miss_bytes(graph, flow, (1e-3,))
    types = [graph.op_types[op.type] for op in graph.ops]
    # what an op writes in place it has just read
    fetched = np.array(
        [
            t.read_bytes + (0 if set(op.writes) & set(op.reads) else t.write_bytes)
            for t, op in zip(types, graph.ops, strict=True)
        ]
    )
    assert (endless <= fetched + 1e-6).all()
    assert none == pytest.approx(fetched)
    born = {s.born for s in graph.storages}
    assert all(endless[k] == pytest.approx(0.0, abs=1e-3) for k in range(len(graph.ops)) if k not in born)


def test_a_block_that_was_let_go_is_warm_for_the_next_of_its_size() -> None:
    step = Step()
    step.task("a", "", "forward")
    first = step.storage(step.image, "transient", 0)
    step.op("fill", (), (first,))
    second = step.storage(step.image, "transient", 1)
    step.op("fill", (), (second,))
    graph = step.graph("reused")
    size = graph.storages[0].bytes
    (found,) = miss_bytes(graph, traffic(graph), (4.0 * size,))
    assert found[0] == pytest.approx(size)  # nothing was let go before it
    assert found[1] == pytest.approx(size / (1 + 4.0**4))  # size bytes were written since
    assert size <= MMAP_BYTES
