"""What lanes share comes back from pairs that were made of it; so do power and energies from a counter."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pararev_hw.calibration.energy import PowerSample, fitted_power
from pararev_hw.calibration.pairs import pair_cases, together_s, with_sharing
from pararev_hw.devices import load_device, needed_parameters
from pararev_hw.types import Device, DeviceParameter, OpType, PairSample

CACHE = 3e7
BANDWIDTH = "memory_bandwidth_bytes_per_s"


def cpu(**figures: float) -> Device:
    values = {
        n: DeviceParameter(1e-12 if n.endswith("_s") else 1e10, "a test", "measured") for n in needed_parameters("cpu")
    }
    return Device(
        "cpu", "cpu", "a test", 2, values | {n: DeviceParameter(v, "a test", "measured") for n, v in figures.items()}
    )


def add(elements: int) -> OpType:
    one, size = (elements,), 4 * elements
    return OpType(
        "aten.add.Tensor", "elementwise", "float32", (one, one), (one,), (), 0, elements, 2 * size, size
    )  # fmt: skip


def pair(elements: int, alone_s: float, together: float = 1.0) -> PairSample:
    return PairSample((add(elements), add(elements)), (alone_s, alone_s), together, (1, 1))


@given(st.integers(1, 10**8), st.floats(1e-6, 1.0), st.floats(1e9, 1e13), st.floats(1.0, 10.0))
def test_together_is_never_faster_than_alone_and_more_bandwidth_never_hurts(
    elements: int, alone_s: float, bandwidth: float, more: float
) -> None:
    found = pair(elements, alone_s)
    slow, fast = (together_s(cpu(), found, CACHE, {BANDWIDTH: b}) for b in (bandwidth, bandwidth * more))
    assert slow >= fast >= alone_s


def test_two_ops_that_only_dispatch_take_turns() -> None:
    found = pair(4, 1e-6)
    assert together_s(cpu(host_overhead_s=1e-6), found, CACHE, {BANDWIDTH: 1e12}) == pytest.approx(2e-6)
    assert together_s(cpu(host_overhead_s=1e-8), found, CACHE, {BANDWIDTH: 1e12}) == pytest.approx(1e-6)


def test_the_shared_bandwidth_comes_back_from_pairs() -> None:
    true = 2.5e10
    pairs = []
    for elements in (10**7, 2 * 10**7, 4 * 10**7):
        alone = pair(elements, 12 * elements / 2e10)
        pairs.append(replace(alone, together_s=together_s(cpu(), alone, CACHE, {BANDWIDTH: true})))
    found = with_sharing(cpu(**{BANDWIDTH: 1e10}), pairs, CACHE)
    assert found.value(BANDWIDTH) == pytest.approx(true, rel=0.05)
    assert found.parameters[BANDWIDTH].provenance == "measured"


def test_without_pairs_the_device_stays_as_it_is() -> None:
    assert with_sharing(cpu(), [], CACHE) == cpu()


def test_pairs_join_ops_of_one_kind_and_of_two() -> None:
    kinds = {tuple(case.op_type().kind for case in found) for found in pair_cases()}
    assert kinds == {("conv", "conv"), ("elementwise", "elementwise"), ("conv", "elementwise")}


def test_idle_power_and_energies_come_back_from_the_counter() -> None:
    idle_w, single_j, half_j, byte_j = 80.0, 5e-12, 1e-12, 6e-11
    loads = (("idle", 2.0, 0.0, 0.0, 0.0), ("float32", 1.5, 3e13, 0.0, 1e10), ("bfloat16", 1.5, 0.0, 4e14, 2e10))
    samples = [
        PowerSample(what, s, idle_w * s + single_j * a + half_j * b + byte_j * m, a, b, m)
        for what, s, a, b, m in (*loads, ("copies", 1.5, 0.0, 0.0, 6e12))
    ]
    found = fitted_power(load_device("h200"), samples)
    assert found.value("static_power_w") == pytest.approx(idle_w, rel=1e-6)
    assert found.value("energy_per_mac_j.float32") == pytest.approx(single_j, rel=1e-6)
    assert found.value("energy_per_mac_j.bfloat16") == pytest.approx(half_j, rel=1e-6)
    assert found.value("dram_energy_j_per_byte") == pytest.approx(byte_j, rel=1e-6)
    assert fitted_power(load_device("h200"), samples[:2]) == load_device("h200")
