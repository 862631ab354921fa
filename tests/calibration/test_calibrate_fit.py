"""Prices come back from times that were made of them, outliers and held-out shapes do not move them, and what nearby
shapes share is learnt."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pararev_hw as ph
from pararev_hw.costmodels.calibrated import gaussian_process
from pararev_hw.costmodels.calibrated.cache_model import miss_share
from pararev_hw.costmodels.calibrated.features import coefficient_names, group, work_terms
from pararev_hw.costmodels.calibrated.fit import fits
from pararev_hw.costmodels.calibrated.op_times import measured_rates, usable_fits
from pararev_hw.costmodels.cost import cost
from pararev_hw.devices import needed_parameters
from pararev_hw.types import Device, DeviceParameter, Environment, Estimate, Fit, OpSample, OpType, Profile

CACHES = (1e6, 3e7)
OVERHEAD_S, PER_BYTE_S, DRAM_S, COLD_S = 3e-6, 2e-11, 5e-11, 2e-5


def op(elements: int, name: str = "aten.relu.default") -> OpType:
    shape = ((elements,),)
    return OpType(name, "elementwise", "float32", shape, shape, (), 0, elements, 4 * elements, 4 * elements)


def true_s(elements: int, cold: bool) -> float:
    """What the sum of prices x amounts gives, written again."""
    moved = 8.0 * elements
    far = moved if cold else moved * float(miss_share(np.array(moved), CACHES[1]))
    return OVERHEAD_S + PER_BYTE_S * 4 * elements + DRAM_S * far + (COLD_S if cold else 0.0)


def samples(noise: Callable[[int], float] = lambda k: 1.0, count: int = 60, seed: int = 0) -> list[OpSample]:
    draw = random.Random(seed)
    found = []
    for k in range(count):
        elements = round(math.exp(draw.uniform(math.log(1e3), math.log(1e8))))
        for cold in (False, True):
            found.append(OpSample(op(elements), cold, k % 5 == 4, False, (true_s(elements, cold) * noise(k),)))
    return found


def of_group(found: tuple[Fit, ...]) -> Fit:
    return next(f for f in found if f.group == "aten.relu.default")


def test_prices_come_back_with_small_uncertainties() -> None:
    fit = of_group(fits(samples(), CACHES, 0.0))
    price = {n: e.value for n, e in fit.coefficients.items()}
    assert price["overhead_s"] == pytest.approx(OVERHEAD_S, rel=0.02)
    assert price["cold_s"] == pytest.approx(COLD_S, rel=0.02)
    assert price["dram_s_per_byte"] == pytest.approx(DRAM_S, rel=0.05)
    # reads and writes always go together here: only their sum can be told
    assert price["read_s_per_byte"] + price["write_s_per_byte"] == pytest.approx(PER_BYTE_S, rel=0.1)
    assert fit.residual_median is not None and fit.residual_median < 0.01
    sigma = fit.coefficients["overhead_s"].sigma
    assert sigma is not None and sigma < 0.05 * OVERHEAD_S


def test_uncertainty_grows_with_noise() -> None:
    draw = random.Random(1)
    factor = [math.exp(draw.gauss(0, 0.1)) for _ in range(60)]
    noisy, clean = of_group(fits(samples(lambda k: factor[k]), CACHES, 0.0)), of_group(fits(samples(), CACHES, 0.0))
    a, b = noisy.coefficients["overhead_s"].sigma, clean.coefficients["overhead_s"].sigma
    assert a is not None and b is not None and a > 3 * b


def test_outliers_move_prices_little() -> None:
    fit = of_group(fits(samples(lambda k: 20.0 if k % 11 == 0 else 1.0), CACHES, 0.0))
    assert fit.coefficients["overhead_s"].value == pytest.approx(OVERHEAD_S, rel=0.15)


def test_held_out_samples_never_enter_a_fit() -> None:
    once = samples()
    spoilt = [replace(s, seconds=(1e3 * s.seconds[0],)) if s.held_out else s for s in once]
    a, b = (of_group(fits(table, CACHES, 0.0)) for table in (once, spoilt))
    assert a.coefficients == b.coefficients
    assert b.bias is not None and b.bias == pytest.approx(-0.999, abs=1e-3)  # and they are judged


def test_memory_that_was_mapped_in_is_not_the_ops_own() -> None:
    fault = 1e-11
    faulted = [
        replace(s, seconds=(s.seconds[0] + fault * s.op.write_bytes,), faulted_bytes=s.op.write_bytes)
        for s in samples()
        if not s.cold
    ]
    plain = [s for s in samples() if not s.cold]
    a, b = (of_group(fits(table, CACHES, fault)) for table in (plain, faulted))
    for name in ("overhead_s", "write_s_per_byte"):
        assert a.coefficients[name].value == pytest.approx(b.coefficients[name].value, rel=1e-3, abs=1e-16)


def test_a_group_too_small_has_no_fit() -> None:
    assert fits(samples(count=1)[:1], CACHES, 0.0) == ()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.floats(0.1, 0.5), st.floats(1.0, 4.0))
def test_a_smooth_residual_is_learnt_and_vanishes_far_away(seed: int, size: float, length: float) -> None:
    generator = np.random.default_rng(seed)
    at = generator.uniform(0, 10, (120, 1))
    wave = size * np.sin(at[:, 0] / length)
    how = gaussian_process.fit_hyperparameters(at[:80], wave[:80])
    assert how is not None
    factor = gaussian_process.correction(at[:80], wave[:80], how, at[80:])
    assert np.median(np.abs(np.log(factor) - wave[80:])) < 0.25 * size
    far = gaussian_process.correction(at[:80], wave[:80], how, np.array([[1e4]]))
    assert far == pytest.approx(1.0)


def test_nothing_is_learnt_from_nothing() -> None:
    at = np.arange(20.0)[:, None]
    assert gaussian_process.fit_hyperparameters(at, np.zeros(20)) is None
    assert gaussian_process.fit_hyperparameters(at[:3], np.ones(3)) is None


def test_noise_is_not_learnt_as_shape() -> None:
    generator = np.random.default_rng(0)
    at, noise = generator.uniform(0, 10, (100, 2)), generator.normal(0, 0.1, 100)
    how = gaussian_process.fit_hyperparameters(at[:70], noise[:70])
    factor = np.ones(30) if how is None else gaussian_process.correction(at[:70], noise[:70], how, at[70:])
    assert np.abs(np.log(factor)).mean() < 0.1


# ---- what a short calibration must not do


def _profile(measured: list[OpSample]) -> Profile:
    figures = {
        n: DeviceParameter(1e9 if "_per_s" in n else 1e-6, "a test", "measured") for n in needed_parameters("cpu")
    }
    device = Device("cpu", "cpu", "a test's CPU", 1, figures)
    where = Environment("a test", "a test's CPU", "oneDNN, AVX2", "2", 1, {})
    return Profile(device, where, {}, fits(measured, CACHES, 0.0), {}, {}, tuple(measured), (), (), (), (), 0)


def test_a_fit_that_held_out_shapes_refute_is_not_used() -> None:
    once = samples()
    spoilt = [replace(s, seconds=(1e3 * s.seconds[0],)) if s.held_out else s for s in once]
    assert ("aten.relu.default", "float32") in usable_fits(_profile(once))
    assert ("aten.relu.default", "float32") not in usable_fits(_profile(spoilt))


def test_a_fit_of_few_samples_is_used_where_it_is_nearer_to_them_than_the_quick_look() -> None:
    """The quick look takes 1 us and 1 ns a byte; the samples take 20 times as long, or as long."""
    few = [OpSample(op(n), False, False, False, (20e-6 + 160e-9 * n,)) for n in (1_000, 30_000, 900_000)]
    assert ("elementwise", "float32") in usable_fits(_profile(few))  # of one group, which says no more than its kind
    as_quick = [replace(s, seconds=(s.seconds[0] / 20,)) for s in few]
    assert usable_fits(_profile(as_quick)) == {}


def test_a_fit_that_misses_held_out_shapes_is_used_where_the_quick_look_misses_them_by_more() -> None:
    once = samples()
    halved = [replace(s, seconds=(s.seconds[0] / 2,)) if s.held_out else s for s in once]
    assert of_group(_profile(halved).fits).residual_median == pytest.approx(1.0, abs=0.05)
    assert ("elementwise", "float32") in usable_fits(_profile(halved))


def _pooled(layout: tuple[int, ...]) -> OpType:
    shapes = ((2, 8, 4, 4),), ((2, 8, 2, 2), (2, 8, 2, 2))
    attributes = (("kernel_size", (2, 2)), ("layout", layout))
    return OpType("aten.max_pool2d_with_indices.default", "pool", "float32", *shapes, attributes, 0, 256, 1024, 768)


def test_pooling_starts_a_loop_for_each_window_or_for_all_channels_of_a_place() -> None:
    plain, last = _pooled((0,)), _pooled((1,))
    at = coefficient_names(plain).index("window_s")
    assert work_terms(plain)[at] == 2 * 8 * 2 * 2  # each pixel of the result
    assert work_terms(last)[at] == 2 * 2 * 2 * 4  # each of its places, and four of the image for each
    assert group(plain) != group(last)


def test_an_op_is_never_predicted_far_beyond_the_measured_rates_of_its_kind() -> None:
    """Times of 1 ns a byte, measured up to 1e6 bytes; overheads that a wild price would multiply by a thousand."""
    measured = [
        OpSample(op(n), False, False, False, (8e-9 * n,)) for n in (10_000, 20_000, 40_000, 80_000, 100_000, 125_000)
    ]
    profile = _profile(measured)
    wild = tuple(
        replace(f, coefficients={"write_s_per_byte": Estimate(1e-6)}) for f in profile.fits if f.group != "elementwise"
    )
    slowest, fastest, largest = measured_rates(profile)
    assert slowest["elementwise", "float32"] == pytest.approx(1e-9, rel=0.05)
    assert fastest["elementwise", "float32"] == pytest.approx(1e-9)
    assert largest["elementwise", "float32"] == pytest.approx(1e6)  # 4 bytes read and 4 written of 125,000 elements
    graph = ph.trace(nn.ReLU(), torch.empty(10_000_000, device="meta"), mode="infer", spikes="none")
    (seconds,) = cost(graph, replace(profile, fits=wild)).op_seconds
    assert seconds == pytest.approx(1.5 * 8e-2, rel=0.05)  # 8e7 bytes at 1 ns, and half as much again


def test_a_small_op_that_was_interrupted_makes_no_large_one_slow() -> None:
    """Ops of up to 2e4 bytes that end in 10 us, one of which was held up for 80: 4 ns a byte and more say nothing of
    one of 8e7 bytes, whose price is 0.01 ns a byte."""
    measured = [OpSample(op(n), False, False, False, (80e-6 if n == 1500 else 1e-5,)) for n in (500, 1500, 2500) * 3]
    profile = _profile(measured)
    cheap = tuple(replace(f, coefficients={"write_s_per_byte": Estimate(2e-11)}) for f in profile.fits)
    assert measured_rates(profile)[1]["elementwise", "float32"] == pytest.approx(1e-5 / 20_000)
    graph = ph.trace(nn.ReLU(), torch.empty(10_000_000, device="meta"), mode="infer", spikes="none")
    assert cost(graph, replace(profile, fits=cheap)).op_seconds == pytest.approx([4e7 * 2e-11])


def test_a_group_of_few_samples_costs_what_its_kind_does_times_a_factor() -> None:
    """Two shapes cannot tell seven terms apart: their op takes three times as long as its kind, at every size."""
    few = [
        OpSample(op(elements, "aten.exp.default"), cold, False, False, (3.0 * true_s(elements, cold),))
        for elements in (2_000, 3_000)
        for cold in (False, True)
    ]
    fitted = {f.group: f for f in fits([*samples(), *few], CACHES, 0.0)}
    group = fitted["aten.exp.default"].coefficients
    for name, price in (("overhead_s", OVERHEAD_S), ("dram_s_per_byte", DRAM_S), ("cold_s", COLD_S)):
        assert group[name].value == pytest.approx(3.0 * price, rel=0.1)
