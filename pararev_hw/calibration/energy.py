"""Energy of a GPU's board by its own counter: what it draws idle, per flop and per byte."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import nnls

from pararev_hw.calibration.ops import Missed
from pararev_hw.measurement.energy import energy_counter
from pararev_hw.types import Device, DeviceParameter

_LONG_S = 1.5  # the counter moves every 20 to 100 ms
_PRICES = ("static_power_w", "energy_per_mac_j.float32", "energy_per_mac_j.bfloat16", "dram_energy_j_per_byte")


@dataclass(frozen=True, slots=True)
class PowerSample:
    """What ran for `seconds`, and the joules that the counter moved."""

    name: str
    seconds: float
    joules: float
    float32_macs: float
    bfloat16_macs: float
    dram_bytes: float


def measured_power() -> Iterator[PowerSample | Missed]:
    """The idle board, products and copies, each for a second or two. Missed where there is no counter."""
    with energy_counter("cuda") as counter:
        if isinstance(counter, str):
            yield Missed("energy", counter.removeprefix("energy: "))
        else:
            yield from _powers(counter)


def _powers(counter: Callable[[], float]) -> Iterator[PowerSample]:
    n = 4096
    single = torch.randn(n, n, device="cuda")
    half = single.to(torch.bfloat16)
    block = torch.randn(1 << 26, device="cuda")
    out = torch.empty_like(block)
    torch.cuda.synchronize()
    time.sleep(0.5)  # clocks fall
    begin, before = time.perf_counter(), counter()
    time.sleep(_LONG_S)
    yield PowerSample("idle", time.perf_counter() - begin, counter() - before, 0.0, 0.0, 0.0)
    for name, run, single_macs, half_macs, moved in (
        ("float32 products", lambda: single @ single, float(n**3), 0.0, 12.0 * n * n),
        ("bfloat16 products", lambda: half @ half, 0.0, float(n**3), 6.0 * n * n),
        ("copies", lambda: out.copy_(block), 0.0, 0.0, 8.0 * block.numel()),
    ):
        seconds, joules, count = _counted(run, counter)
        yield PowerSample(name, seconds, joules, count * single_macs, count * half_macs, count * moved)


def _counted(run: Callable[[], object], counter: Callable[[], float]) -> tuple[float, float, int]:
    """Seconds, joules and runs of a loop of about _LONG_S seconds."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(10):
        run()
    torch.cuda.synchronize()
    count = max(10, math.ceil(_LONG_S / max((time.perf_counter() - begin) / 10, 1e-6)))
    begin, before = time.perf_counter(), counter()
    for _ in range(count):
        run()
    torch.cuda.synchronize()
    return time.perf_counter() - begin, counter() - before, count


def fitted_power(device: Device, samples: Sequence[PowerSample]) -> Device:
    """The device with idle power and energies per MAC and byte as the counter showed them, by non-negative least
    squares of relative errors. Unchanged without samples."""
    if len(samples) < len(_PRICES):
        return device
    amounts = np.array([[s.seconds, s.float32_macs, s.bfloat16_macs, s.dram_bytes] for s in samples])
    joules = np.array([s.joules for s in samples])
    scaled = amounts / joules[:, None]
    size = scaled.max(0)
    price, _ = nnls(scaled / size, np.ones(len(samples)))
    source = f"fitted to the board's energy counter over {len(samples)} loads"
    parameters = {
        name: DeviceParameter(float(p / s), source, "measured") for name, p, s in zip(_PRICES, price, size, strict=True)
    }
    return replace(device, parameters={**device.parameters, **parameters})
