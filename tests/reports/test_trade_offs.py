"""Comparisons at equal time and at equal memory, the batch that fits, networks that do not differ: by hand."""

from __future__ import annotations

from dataclasses import replace

from pararev_hw.reports import comparison_lines, comparison_table
from pararev_hw.reports.shown_ways import FASTEST, SEQUENTIAL, shown_ways
from pararev_hw.reports.trade_offs import largest_batch, same_graphs, trade_offs
from pararev_hw.types import Comparison, MemoryCurve, Study
from tests.helpers import hand_built_study


def _study(model: str, *points: tuple[float, int]) -> Study:
    """A study whose ways take these times and bytes, the sequential one first."""
    study = hand_built_study.study((1,), model=model)
    ways = tuple(replace(study.sequential, latency_s=t, peak_bytes=b) for t, b in points)
    fastest = min(range(len(ways)), key=lambda k: ways[k].latency_s)
    return replace(study, predictions=ways, best=fastest)


def test_memory_at_equal_time_and_time_at_equal_memory() -> None:
    quick = _study("quick", (9.0, 100), (5.0, 300), (2.0, 900))
    small = _study("small", (8.0, 50), (4.0, 200))
    offs = trade_offs(Comparison(quick.device, (quick, small)))
    assert offs is not None
    assert (offs.equal_time_s, offs.equal_memory_bytes) == (4.0, 100)
    assert [o.memory_at_equal_time_bytes for o in offs.networks] == [900, 200]
    assert [o.time_at_equal_memory_s for o in offs.networks] == [9.0, 8.0]
    assert trade_offs(Comparison(quick.device, ())) is None


def test_the_largest_batch_scales_what_samples_make_and_nothing_else() -> None:
    study = _study("net", (1.0, 140))
    curve = MemoryCurve((0.0, 1.0, 2.0), {"parameter": (40, 40), "saved": (100, 20), "gradient": (0, 40)})
    study = replace(study, predictions=(replace(study.sequential, memory=curve),))
    assert study.graph.batch == 32
    # 40 stay and 100 grow: (340 - 40) / 100 times the batch of 32
    assert largest_batch(replace(study, memory_limit_bytes=340, limit_given=True)) == 96
    assert largest_batch(replace(study, memory_limit_bytes=39, limit_given=True)) == 0
    assert largest_batch(study) is None, "this device's memory is not known"


def test_the_largest_batch_is_named_also_where_batches_differ() -> None:
    curve = MemoryCurve((0.0, 1.0), {"parameter": (40,), "saved": (100,)})
    studies = []
    for model, batch in (("one", 32), ("other", 16)):
        study = _study(model, (1.0, 140))
        graph = replace(study.graph, batch=batch)
        ways = (replace(study.sequential, memory=curve),)
        studies.append(replace(study, graph=graph, predictions=ways, memory_limit_bytes=340, limit_given=True))
    lines = comparison_lines(Comparison(studies[0].device, tuple(studies)))
    assert lines[-1].startswith("Largest batch whose sequential step fits, scaled from this one (`pararev-hw")
    assert lines[-1].endswith(": one 96, other 48.")
    assert not any(line.startswith("Memory at equal time") for line in lines)  # of steps that do not do the same


def test_a_network_that_nothing_makes_faster_is_shown_once() -> None:
    still, quicker = _study("still", (1.0, 100)), _study("quicker", (2.0, 100), (1.0, 200))
    comparison = Comparison(still.device, (still, quicker))
    assert [way for study in comparison.studies for way, _ in shown_ways(study)] == [SEQUENTIAL, SEQUENTIAL, FASTEST]
    assert comparison_table(comparison).row_count == 3


def test_networks_of_one_graph_are_said_to_be_the_same() -> None:
    one, other = hand_built_study.study((2,), model="one"), hand_built_study.study((2,), model="other")
    third = hand_built_study.study((3,), model="third")
    comparison = Comparison(one.device, (one, other, third))
    assert same_graphs(comparison) == (("one", "other"),)
    lines = comparison_lines(comparison)
    assert any(line.startswith("one and other have the same graph here") for line in lines)
    chained = replace(other, graph=replace(other.graph, edges=()))
    assert same_graphs(Comparison(one.device, (one, chained))) == ()


def test_the_headline_names_memory_beside_time() -> None:
    slow, fast = _study("slow", (0.009, 1 << 20)), _study("fast", (0.002, 3 << 20))
    headline = comparison_lines(Comparison(slow.device, (slow, fast)))[0]
    assert "fast takes the least time: 2.00 ms per step with 3.00 MiB of memory" in headline
    assert "slow takes 9.00 ms per step with 1.00 MiB of memory" in headline
