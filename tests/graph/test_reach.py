"""Which tasks come after which: told pair by pair as sets of bits tell it."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pararev_hw import pipeline, recommendation, target_graph
from pararev_hw.costmodels.buffers import buffers
from pararev_hw.graph import reach
from pararev_hw.graph.reach import descendants, which_follow
from pararev_hw.reports.layered import reduced
from pararev_hw.rewrites import wait
from pararev_hw.rewrites.draft import Draft
from pararev_hw.trace_options import TraceOptions
from pararev_hw.tracing import Traced
from tests.helpers.bitset_buffers import bitset_buffers
from tests.helpers.bitset_waits import bitset_waits


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """Tasks and edges without a cycle, the numbers of the tasks in any order."""
    count = draw(st.integers(1, 25))
    numbers = draw(st.permutations(range(count)))
    ends = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda e: e[0] != e[1])
    drawn = draw(st.lists(ends, max_size=60)) if count > 1 else []
    return count, [(numbers[min(e)], numbers[max(e)]) for e in drawn]


@given(graphs())
@settings(max_examples=300, deadline=None)
def test_pairs_are_told_as_sets_tell_them(graph: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = graph
    pairs = [(a, b) for a in range(count) for b in range(count)]
    after = descendants(count, edges)
    assert which_follow(count, edges, pairs, few=0) == [bool(after[a] >> b & 1) for a, b in pairs]
    assert which_follow(count, edges, pairs) == [bool(after[a] >> b & 1) for a, b in pairs]


def unrolled(steps: int, layers: int) -> tuple[int, list[tuple[int, int]]]:
    """A network over time, forward and back: a layer follows the one below it and itself a step before; its gradient
    follows the layer, the gradient above it and its own a step later."""
    half = steps * layers
    edges = []
    for t in range(steps):
        for k in range(layers):
            i, back = t * layers + k, half + (steps - 1 - t) * layers + (layers - 1 - k)
            edges += [(i - 1, i)] * (k > 0) + [(i - layers, i)] * (t > 0) + [(i, back)]
            edges += [(back - 1, back)] * (k < layers - 1) + [(back - layers, back)] * (t < steps - 1)
    return 2 * half, edges


@pytest.mark.parametrize("compiled", [True, False])
def test_an_unrolled_network_is_told_alike_compiled_and_plain(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    count, edges = unrolled(40, 25)
    draw = random.Random(0)
    pairs = [(draw.randrange(count), draw.randrange(count)) for _ in range(3000)] + edges
    after = descendants(count, edges)
    if compiled and reach._answers.compile() is None:
        pytest.skip("there is no numba")
    if not compiled:
        monkeypatch.setattr(reach._answers, "compiled_for", lambda steps: None)
    assert which_follow(count, edges, pairs, few=0) == [bool(after[a] >> b & 1) for a, b in pairs]


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of tasks is many."""
    monkeypatch.setattr(which_follow, "__defaults__", (0,))


@pytest.mark.usefixtures("many")
@given(graphs(), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_edges_that_longer_paths_imply_are_those_that_sets_tell(
    graph: tuple[int, list[tuple[int, int]]], draw: random.Random
) -> None:
    count, drawn = graph
    edges = sorted({(min(e), max(e)) for e in drawn})
    keep = draw.sample(edges, min(2, len(edges)))
    after = descendants(count, edges)
    implied = {(i, j) for i, j in edges for k in range(count) if (i, k) in edges and after[k] >> j & 1}
    assert reduced(count, edges, keep) == [e for e in edges if e not in implied or e in keep]


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    ("name", "granularity"), [("pararevsnn21", "op"), ("revsresnet37", "block"), ("msresnet18", "op")]
)
def test_buffers_and_waits_are_those_that_sets_tell(name: str, granularity: str) -> None:
    options = TraceOptions(width=0.125, batch=1, timesteps=2, spikes="0.2", granularity=granularity)  # type: ignore[arg-type]
    graph = target_graph.build_graph(name, options)
    assert buffers(graph) == bitset_buffers(graph)
    traced = recommendation.traced(name, pipeline.find_device("edge8"), options)
    assert isinstance(traced, Traced)
    draft = Draft(traced, traced.tape)
    assert wait.find(draft) == bitset_waits(draft)
    assert bool(wait.find(draft)) == (name != "msresnet18")  # which recomputes nothing
