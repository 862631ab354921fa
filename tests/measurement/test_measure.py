"""Clocks and steps keep every sample and notice noise; the quick CPU device is plausible, and cached whole or not."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
import torch

from pararev_hw.costmodels.datatypes import figure_for
from pararev_hw.devices import describe, device_from_json, device_to_json, load_device, needed_parameters
from pararev_hw.errors import BadInput
from pararev_hw.measurement import (
    cache_name,
    computing_threads,
    cpu_clock,
    measure,
    measure_step,
    quick_cpu_device,
    read_cached,
    write_cached,
)
from pararev_hw.measurement.clock import SPREAD_LIMIT, spread


@pytest.mark.parametrize("threads", [1, 2])
def test_measured_cpu_is_a_complete_device(threads: int) -> None:
    before = torch.get_num_threads()
    device = quick_cpu_device(threads, seconds=0.2)
    assert torch.get_num_threads() == before
    assert device.lanes == threads
    assert set(needed_parameters("cpu")) <= set(device.parameters)
    assert device_from_json(device_to_json(device), "cpu.json") == device
    assert len(describe(device)) == len(device.parameters)
    assert all(type(figure.value) is float for figure in device.parameters.values())  # as they are when read back
    for name, figure in device.parameters.items():
        if figure.provenance == "measured" and name != "memory_bytes":
            assert metadata.version("torch") in figure.source and "one thread" in figure.source
        # energies cannot be measured here, and must not look as if they were
        assert figure.provenance == (
            "assumed" if "_j" in name or name.endswith("_w") or name == "lane_sync_s" else "measured"
        )


def test_measured_rates_are_those_of_a_computer_of_our_time() -> None:
    device = quick_cpu_device(seconds=0.2)
    assert 1e9 < device.value("matrix_flops_per_s.float32") < 1e13
    assert 1e8 < device.value("memory_bandwidth_bytes_per_s") < 1e12
    assert 1e-8 < device.value("host_overhead_s") < 1e-3


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_have_rates_of_their_own(dtype: str) -> None:
    """They are not those of float32, which a processor without instructions for them is far from."""
    device = quick_cpu_device(seconds=0.2)
    for stem in ("matrix", "conv", "conv_backward", "vector"):
        name = f"{stem}_flops_per_s.{dtype}"
        assert 1e6 < device.value(name) < 1e13
        assert figure_for(device, f"{stem}_flops_per_s", dtype) == name


def test_measuring_draws_no_random_numbers_of_the_user() -> None:
    before = torch.random.get_rng_state()
    quick_cpu_device(seconds=0.2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_nonsense_is_refused() -> None:
    with pytest.raises(BadInput, match="threads is 0"):
        quick_cpu_device(0)
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(BadInput, match="seconds is"):
            quick_cpu_device(seconds=seconds)


def test_cache_gives_back_what_was_written_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path, device = tmp_path / "deep" / cache_name(), load_device("h200")
    assert read_cached(path) is None
    write_cached(path, device)
    assert read_cached(path) == device
    assert list(path.parent.iterdir()) == [path]


def test_damaged_cache_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "cpu.json"
    whole = device_to_json(load_device("edge8")).encode()
    for data in (b"", b"{", b"\xff", whole[: len(whole) // 2], b"[1]"):
        path.write_bytes(data)
        assert read_cached(path) is None
    path.write_bytes(whole)
    assert read_cached(path) == load_device("edge8")


def test_interrupted_write_keeps_the_old_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, old = tmp_path / "cpu.json", load_device("edge8")
    write_cached(path, old)

    def interrupted(_from: str, _to: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_cached(path, load_device("h200"))
    assert read_cached(path) == old
    assert list(tmp_path.iterdir()) == [path]


def _busy(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_a_step_is_warmed_up_before_it_is_timed_and_every_sample_is_kept() -> None:
    calls: list[int] = []

    def clock(run: Callable[[], object], count: int) -> tuple[float, float]:
        calls.append(count)
        for _ in range(count):
            run()
        return 1.0 + len(calls) / 1000, 2.0

    steps: list[int] = []
    timing = measure_step(lambda: steps.append(0), clock, limit_s=0.0, warm_up=4, min_steps=6)
    # 4 of the warm-up, 2 that tell how long a step is, 6 that count
    assert len(steps) == 4 + 2 + 6
    assert timing.seconds == tuple(1.0 + k / 1000 for k in range(3, 9))
    assert timing.min_s == 1.003
    assert not timing.noisy


def test_the_clock_tells_twice_the_work_from_once() -> None:
    once, twice = (measure(lambda s=s: _busy(s), cpu_clock, limit_s=0.2).min_s for s in (2e-4, 4e-4))
    assert 1.5 < twice / once < 2.6


def test_a_spread_above_the_limit_is_called_noisy() -> None:
    times = itertools.cycle((1.0, 1.5, 2.0, 1.2))
    timing = measure(lambda: None, lambda run, count: (t := next(times), t), limit_s=0.0)
    assert timing.noisy
    assert spread(timing.seconds) > SPREAD_LIMIT


def test_samples_during_which_another_process_had_the_core_do_not_count() -> None:
    taken = itertools.count()

    def clock(run: Callable[[], object], count: int) -> tuple[float, float]:
        disturbed = next(taken) % 2 == 1
        return (9.0 if disturbed else 1.0, 1.0)

    timing = measure(lambda: None, clock, limit_s=10.0)
    assert set(timing.seconds) == {1.0}
    assert timing.disturbed > 0


def test_computing_threads_are_put_back_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), computing_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_a_slow_run_is_sampled_within_its_time() -> None:
    """Each run takes one second by the clock: three fit into 3.5 s, and one is taken where none fits."""
    calls: list[int] = []

    def clock(run: Callable[[], object], count: int) -> tuple[float, float]:
        run()
        return 1.0, 1.0

    assert len(measure(lambda: calls.append(0), clock, limit_s=0.0, most_s=3.5).seconds) == 3
    calls.clear()
    assert len(measure(lambda: calls.append(0), clock, limit_s=0.0, most_s=0.5).seconds) == 1
    assert len(calls) == 2  # one that tells how long a run is


def test_a_run_that_is_always_disturbed_still_gets_a_time() -> None:
    timing = measure(lambda: None, lambda run, count: (9.0 * count, 1.0 * count), limit_s=0.0, most_s=0.5)
    assert timing.seconds == (1.0,)  # what the thread had for itself
