"""Ops measured in their place: drawn networks, samples at the machine's own speed, and how kinds of ops slow down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pararev_hw.calibration import replays, session
from pararev_hw.calibration.drawn_networks import FAMILIES, DrawnNetwork, drawn_networks
from pararev_hw.calibration.replays import Replayed, op_samples, replayed_networks
from pararev_hw.calibration.residuals import typical_error
from pararev_hw.calibration.suite.entry import HELD_OUT_EVERY
from pararev_hw.costmodels import cost
from pararev_hw.costmodels.calibrated.features import family
from pararev_hw.costmodels.calibrated.fit import fits
from pararev_hw.costmodels.calibrated.pace_response import (
    at_own_speed,
    at_slowness,
    exponent,
    exponent_name,
    fitted_exponents,
    slowed,
)
from pararev_hw.execution import replay_timing
from pararev_hw.execution.replay_timing import OpTimes, op_times
from pararev_hw.measurement import pace
from pararev_hw.tracing import trace_step
from pararev_hw.types import BlockGraph, Estimate, OpSample, Profile
from tests.helpers.validation_helpers import cpu_profile

CAPACITIES = (1e6, 3e7)
FIRST = tuple(next(n for n in drawn_networks() if n.family is f) for f in dict.fromkeys(FAMILIES))
TRACED = tuple(n for n in FIRST if n.name.split(",")[0] in ("convolutions", "layers", "depthwise", "lstm"))


@pytest.fixture(scope="module")
def graphs() -> Mapping[DrawnNetwork, BlockGraph]:
    """The first networks of four families, traced."""
    return {network: network.traced() for network in TRACED}


@pytest.fixture(scope="module")
def profile(graphs: Mapping[DrawnNetwork, BlockGraph]) -> Profile:
    """A profile made of replays of four networks, whose ops take what a formula says instead of what they took."""
    replayed = [_played(network, graphs[network], [1.0, 1.0]) for network in TRACED]
    samples = tuple(op_samples(replayed, {}, CAPACITIES))
    host = {"pace_s": Estimate(1e-4), "modules_s": Estimate(1e-5), exponent_name("conv"): Estimate(0.25)}
    return replace(cpu_profile(), samples=samples, fits=fits(samples, CAPACITIES, 0.0), host=host)


def _played(network: DrawnNetwork, graph: BlockGraph, slowness: list[float], power: float = 0.5) -> Replayed:
    """A replay in which each op takes 5 us and 0.1 ns for each byte, times a power of the slowness."""
    types = [graph.op_types[op.type] for op in graph.ops]
    seconds = np.array([5e-6 + 1e-10 * (t.read_bytes + t.write_bytes) for t in types])
    return Replayed(network, graph, np.outer(np.array(slowness) ** power, seconds), np.array(slowness))


@pytest.mark.slow
@pytest.mark.parametrize("network", FIRST, ids=lambda n: n.name)
def test_every_family_draws_networks_that_train(network: DrawnNetwork) -> None:
    graph = network.traced()
    assert graph.mode == "train" and {op.phase for op in graph.ops} >= {"forward", "backward", "update"}
    assert not graph.unknown_ops


def test_a_network_is_the_same_whenever_it_is_drawn(graphs: Mapping[DrawnNetwork, BlockGraph]) -> None:
    first = TRACED[0]
    assert first.traced().op_types == graphs[first].op_types
    assert len({n.name for n, _ in zip(drawn_networks(), range(200), strict=False)}) == 200


def test_networks_with_channels_last_run_their_convolutions_so() -> None:
    network = next(n for n in FIRST if n.family_name == "channels last")
    types = [t for t in network.traced().op_types if t.kind == "conv"]
    assert types
    assert all(dict(t.attributes)["layout"][0] == 1 for t in types)


def test_every_family_is_held_out_in_its_turn() -> None:
    some = [n for n, _ in zip(drawn_networks(), range(HELD_OUT_EVERY * len(FAMILIES)), strict=False)]
    held_out = {n.family for n in some if n.held_out}
    assert sum(n.held_out for n in some) * HELD_OUT_EVERY == len(some)
    assert held_out == set(FAMILIES)
    assert any(n.held_out for n in some[:HELD_OUT_EVERY])


def test_a_replay_times_every_op_that_takes_time(graphs: Mapping[DrawnNetwork, BlockGraph]) -> None:
    graph = next(g for n, g in graphs.items() if "layers" in n.name)
    seconds, paces, _, faulted_bytes = op_times(graph, 2)
    assert seconds.shape == (2, len(graph.ops)) and paces.shape == (2,) and (paces > 0).all()
    assert faulted_bytes.shape == (len(graph.ops),)
    products = [k for k, op in enumerate(graph.ops) if graph.op_types[op.type].kind == "gemm"]
    assert (seconds[:, products] > 0).all()


def test_what_timestamps_take_is_no_op_s_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine at half its own speed, on which each op takes 2 us longer beside timestamps: ops of 5 and 1 us took 3
    us, and at least a fifth of what was seen. The long ones of the second step tell nothing."""
    seen = iter(((5e-6, 2e-6), (1e-3, 5e-5)))

    def op_times(graph: BlockGraph, count: int) -> OpTimes:
        seconds, longer_s = next(seen)
        row = np.full(len(graph.ops), seconds)
        row[0] = seconds / 5
        return OpTimes(np.tile(row, (count, 1)), np.full(count, 2e-4), longer_s, np.zeros(len(row)))

    monkeypatch.setattr(replays, "op_times", op_times)
    monkeypatch.setattr(replays, "drawn_networks", lambda: iter(TRACED[:2]))
    short, long = (one for one in replayed_networks(1e-4, lambda: False) if isinstance(one, Replayed))
    assert short.seconds.shape == (replays.REPLAYS, len(short.graph.ops))
    assert short.seconds[0, :3].tolist() == pytest.approx([0.2e-6, 3e-6, 3e-6])
    assert long.seconds[0, 1] == pytest.approx(1e-3 - 2e-6)


def test_memory_that_is_mapped_in_is_no_op_s_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of 4 KiB costs 2 us: an op of 10 us that had two mapped in took 6 us, and one of 20 us with twenty of them
    at least a fifth of that. A machine at half its own speed maps in as fast as ever."""
    page, mapped_pages = 4096, (0, 2, 20)

    def op_times(graph: BlockGraph, count: int) -> OpTimes:
        seconds, faulted_bytes = np.full(len(graph.ops), 10e-6), np.zeros(len(graph.ops))
        seconds[2] = 20e-6
        faulted_bytes[:3] = [n * page for n in mapped_pages]
        return OpTimes(np.tile(seconds, (count, 1)), np.full(count, 2e-4), 0.0, faulted_bytes)

    monkeypatch.setattr(replays, "op_times", op_times)
    monkeypatch.setattr(replays, "drawn_networks", lambda: iter(TRACED[:1]))
    (one,) = (r for r in replayed_networks(1e-4, lambda: False, 2e-6 / page) if isinstance(r, Replayed))
    assert one.seconds[0, :3].tolist() == pytest.approx([10e-6, 6e-6, 4e-6])
    assert one.faulted_bytes is not None and one.faulted_bytes[:3].tolist() == [0, 2 * page, 20 * page]


def test_a_replay_counts_the_memory_that_each_op_has_mapped_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks above 32 MiB are never kept: an op that makes one of 40 MiB has all of it mapped in, the sum of it next to
    nothing. Allocators that do keep such blocks have nothing mapped in."""

    class Sum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.tanh().mean(0, keepdim=True)

    size = 40 << 20
    graph = trace_step(Sum(), torch.empty(size >> 2), loop=None).graph
    faulted_bytes = op_times(graph, 1).faulted_bytes
    made = [k for k, op in enumerate(graph.ops) if graph.op_types[op.type].name == "aten.tanh.default"]
    if faulted_bytes.sum():
        assert faulted_bytes[made].sum() == pytest.approx(size, rel=0.01)
        assert faulted_bytes.sum() - faulted_bytes[made].sum() < size / 100
    monkeypatch.setattr(replay_timing, "_NOTABLE_BYTES", size * 2)
    assert not op_times(graph, 1).faulted_bytes.any()


def test_samples_are_at_the_machines_own_speed_and_hold_all_of_the_step(
    graphs: Mapping[DrawnNetwork, BlockGraph],
) -> None:
    network, graph = next(iter(graphs.items()))
    slowness = [1.0, 2.0, 4.0]
    kinds = {family(t) for t in graph.op_types}
    host = {exponent_name(kind): Estimate(0.5) for kind in kinds}
    samples = list(op_samples([_played(network, graph, slowness)], host, CAPACITIES))
    for s in samples:
        truth = 5e-6 + 1e-10 * (s.op.read_bytes + s.op.write_bytes)
        assert s.seconds == pytest.approx([truth] * 3, rel=1e-3)
        assert s.fetched_bytes is not None and not s.cold
        assert all(b <= s.op.read_bytes + s.op.write_bytes + 1 for b in s.fetched_bytes)
        assert s.held_out == network.held_out
    assert {s.op for s in samples} == set(graph.op_types)


def test_a_group_of_ops_has_as_many_samples_as_tell_something_new(
    graphs: Mapping[DrawnNetwork, BlockGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "_ENOUGH", 3)
    network, graph = next(iter(graphs.items()))
    samples = list(op_samples([_played(network, graph, [1.0])] * 5, {}, CAPACITIES))
    assert sum(s.op.name == "aten.mul_.Tensor" for s in samples) == 3


def test_a_network_that_raises_is_missed_and_the_next_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(graph: BlockGraph, replays: int) -> OpTimes:
        raise RuntimeError("this kernel refuses")

    monkeypatch.setattr(replays, "op_times", fails)
    monkeypatch.setattr(replays, "drawn_networks", lambda: iter(FIRST[:2]))
    missed = list(replayed_networks(1e-4, lambda: False))
    assert [(m.case, m.reason) for m in missed] == [(n.name, "RuntimeError: this kernel refuses") for n in FIRST[:2]]


@given(
    slopes=st.dictionaries(st.sampled_from(["conv", "gemm", "view"]), st.floats(0.0, 1.1), min_size=1),
    slowness=st.lists(st.floats(0.5, 4.0), min_size=4, max_size=8),
)
def test_exponents_are_those_by_which_kinds_slowed_down(slopes: Mapping[str, float], slowness: list[float]) -> None:
    x = np.array(slowness)
    steps = [({kind: 1e-3 * x**slope for kind, slope in slopes.items()}, x) for _ in range(40)]
    fitted = fitted_exponents(steps)
    varied = 40 * float(((np.log(x) - np.log(x).mean()) ** 2).sum())
    for kind, slope in slopes.items():
        # drawn to the usual 0.4 as strongly as 0.3 of squared logarithm
        expected = (slope * varied + 0.4 * 0.3) / (varied + 0.3)
        assert exponent(fitted, kind) == pytest.approx(expected, abs=1e-6)
    assert exponent(fitted, "softmax") == 0.4


def test_a_machine_that_is_slower_takes_longer_each_kind_to_its_power(
    profile: Profile, graphs: Mapping[DrawnNetwork, BlockGraph]
) -> None:
    graph = graphs[TRACED[1]]
    slower = slowed(profile, 4.0)
    assert slower.host["modules_s"].value == pytest.approx(4e-5)
    bare = [replace(p, host={n: e for n, e in p.host.items() if n != "modules_s"}) for p in (profile, slower)]
    before, after = (np.array(cost(graph, p).op_seconds) for p in bare)
    kinds = [family(graph.op_types[op.type]) for op in graph.ops]
    conv = [k for k, kind in enumerate(kinds) if kind == "conv"]
    view = [k for k, kind in enumerate(kinds) if kind == "view"]
    call = 1e-4 / 20  # a round of the fixed piece of Python: slows down as it does, what is beyond it to the power
    assert after[conv] == pytest.approx(4.0 * call + (before[conv] - call) * 4.0**0.25, rel=0.02)
    few = np.minimum(before[view], call)
    assert after[view] == pytest.approx(4.0 * few + (before[view] - few) * 4.0**0.4, rel=0.02)
    assert slowed(profile, 1.0) == profile


@given(
    st.floats(1e-7, 1e-2),
    st.floats(0.5, 4.0),
    st.floats(0.0, 1.2),
)
def test_what_a_slower_machine_took_leads_back_to_its_own_speed(own_s: float, slowness: float, power: float) -> None:
    host = {"pace_s": Estimate(1e-4)}
    taken = at_slowness(np.array([own_s]), slowness, power, host)
    assert at_own_speed(taken, slowness, power, host) == pytest.approx([own_s], rel=1e-6)


def test_bytes_cost_no_more_than_any_machine_takes_for_them(graphs: Mapping[DrawnNetwork, BlockGraph]) -> None:
    """Many small ops whose times follow their bytes by chance: a large one must not cost seconds."""
    network, graph = next(iter(graphs.items()))
    replayed = _played(network, graph, [1.0])
    samples = [s for s in op_samples([replayed], {}, CAPACITIES) if s.op.read_bytes + s.op.write_bytes < 4096]
    steep = [replace(s, seconds=(1e-6 + 1e-7 * (s.op.read_bytes + s.op.write_bytes),)) for s in samples]
    for fit in fits(steep, CAPACITIES, 0.0):
        dearest = [e.value for n, e in fit.coefficients.items() if n.endswith("_s_per_byte")]
        assert max(dearest, default=0.0) <= 2e-9 * (1 + 1e-9)


def test_a_clock_divides_by_what_the_kind_slows_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "pace_s", lambda: 4e-4)
    monkeypatch.setattr(pace, "cpu_clock", lambda run, count: (1.0, 1.0))
    _, busy = pace.PacedClock(1e-4, exponent=0.5)(lambda: None, 1)
    assert busy == pytest.approx(0.5)
    _, busy = pace.PacedClock(1e-4, exponent=0.0)(lambda: None, 1)
    assert busy == pytest.approx(1.0)


def test_replays_come_into_a_calibration_with_their_exponents(monkeypatch: pytest.MonkeyPatch) -> None:
    network = next(n for n in TRACED if "layers" in n.name)
    monkeypatch.setattr(replays, "drawn_networks", lambda: iter([network]))
    measured = session.Measured("cpu", cpu_profile().device, session.THIS_MACHINE)
    activities = list(session._replaying(measured, lambda: False))
    assert len(activities) == 1 and network.name in activities[0]
    assert measured.samples and all(s.fetched_bytes is not None for s in measured.samples)
    assert exponent_name("gemm") in measured.overheads and "pace_s" in measured.overheads


def test_a_calibration_says_its_error_so_far_at_every_doubling(monkeypatch: pytest.MonkeyPatch) -> None:
    network = next(n for n in TRACED if not n.held_out)
    steps = [network, replace(network, held_out=True), network]
    monkeypatch.setattr(replays, "drawn_networks", lambda: iter(steps))
    monkeypatch.setattr(session, "_FEWEST_JUDGED", 2)
    judged: list[OpSample] = []

    def typical_error_of(errors: Iterable[tuple[OpSample, float]]) -> float:
        judged.extend(sample for sample, _ in errors)
        return 0.125

    monkeypatch.setattr(session, "typical_error", typical_error_of)
    measured = session.Measured("cpu", cpu_profile().device, session.THIS_MACHINE)
    first, second, third = session._replaying(measured, lambda: False)
    assert "error" not in first
    assert second.endswith("expected error of an operation so far 12%") and third.endswith(second.split("; ")[1])
    assert judged and all(s.held_out for s in judged)


def test_the_typical_error_is_that_of_half_the_time(graphs: Mapping[DrawnNetwork, BlockGraph]) -> None:
    network, graph = next(iter(graphs.items()))
    op = next(iter(op_samples([_played(network, graph, [1.0])], {}, CAPACITIES)))
    errors = [(0.01, 1.0), (-0.3, 3.0), (0.2, 2.0), (2.0, 0.5)]
    samples = [(replace(op, seconds=(s / 2, s, 3 * s)), error) for error, s in errors]
    assert typical_error(samples) == 0.3  # 1 % for 1 s, 20 % for 2 s more, 30 % for 3 s more, of 6.5 s
    assert typical_error([]) is None
