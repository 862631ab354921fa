"""A quick measurement of this machine's CPU, as a device: a few seconds, medians, no calibration.

A lane is one thread. Rates are those of one thread; the main memory's bandwidth is what all lanes get together.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from pararev_hw.atomic import write_file
from pararev_hw.devices import device_from_json, device_to_json
from pararev_hw.devices.instruction_sets import LIMIT_VARIABLE, instruction_set_here
from pararev_hw.errors import BadFile, BadInput
from pararev_hw.measurement.steps import computing_threads
from pararev_hw.sizes import counted
from pararev_hw.types import Device, DeviceParameter
from pararev_hw.versions import installed_version

if TYPE_CHECKING:
    import torch

_CORE_W = 10.0  # assumed: what one busy core of a server draws
_HALVES = ("bfloat16", "float16")  # where the processor has no instructions for them up to a hundred times slower
_FIGURES = 2  # in the cache's file names: counts up where another figure is measured


def quick_cpu_device(threads: int = 1, seconds: float = 3.0) -> Device:
    """This machine as a device with `threads` lanes, measured with torch in about `seconds`.

    Every probe is warmed up, repeated and reported by its median. Energies are assumed: a CPU gives no counter that
    every user may read. Raises BadInput for less than one thread or a time that is not positive.
    """
    if threads < 1:
        raise BadInput(f"threads is {threads}: at least 1 is needed")
    if not 0 < seconds < float("inf"):
        raise BadInput(f"seconds is {seconds}: it must be positive and finite")
    with computing_threads(1):
        probes = _probe(threads, seconds)
    source = f"torch {installed_version('torch')}, one thread per lane, {counted(threads, 'lane')}, {cpu_name()}"
    parameters = {
        name: DeviceParameter(value, f"{meaning}; {source}", "measured") for name, (value, meaning) in probes.items()
    }
    memory = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    parameters["memory_bytes"] = DeviceParameter(
        memory, "physical memory as the operating system reports it", "measured"
    )
    isa, allowed = instruction_set_here(), os.environ.get(LIMIT_VARIABLE, "")
    processor_source = f"what the processor has{f', as far as {LIMIT_VARIABLE}={allowed} allows' if allowed else ''}"
    parameters["instruction_set"] = DeviceParameter(float(isa), f"{processor_source}; {source}", "measured")
    if cache_bytes := second_level_cache_bytes():
        parameters["second_level_cache_bytes"] = DeviceParameter(
            float(cache_bytes), "as the operating system reports it", "measured"
        )
    parameters |= _assumed(parameters)
    return Device(
        name="cpu",
        kind="cpu",
        title=f"this machine's {cpu_name()}",
        lanes=threads,
        parameters=dict(sorted(parameters.items())),
        notes=("A lane is one thread: compare with torch.set_num_threads(1).",),
    )


def _assumed(measured: dict[str, DeviceParameter]) -> dict[str, DeviceParameter]:
    """Energies that nobody measured, each with its reason."""
    per_core = f"{_CORE_W:g} W per busy core"
    mac_j = 2 * _CORE_W / measured["matrix_flops_per_s.float32"].value
    vector_j = _CORE_W / measured["vector_flops_per_s.float32"].value
    return {
        "energy_per_mac_j.float32": DeviceParameter(mac_j, f"{per_core} at the measured matrix rate", "assumed"),
        "energy_per_vector_flop_j": DeviceParameter(vector_j, f"{per_core} at the measured vector rate", "assumed"),
        "dram_energy_j_per_byte": DeviceParameter(
            162.5e-12, "Horowitz, ISSCC 2014, 45 nm: DRAM 1.3-2.6 nJ per 64 bit, the lower end", "assumed"
        ),
        "static_power_w": DeviceParameter(20.0, "no measurement: idle power of a server's share", "assumed"),
        "lane_sync_s": DeviceParameter(20e-6, "no measurement: one thread wakes another", "assumed"),
    }


def _probe(threads: int, seconds: float) -> dict[str, tuple[float, str]]:
    """Figure name -> (value, what was run)."""
    import torch  # heavy, and only this function needs it
    from torch.nn.functional import conv2d

    share_s = seconds / 14  # ten probes, and two datatypes with half the time of four of them

    def median_s(run: Callable[[], object], inner: int = 1) -> float:
        return _median_s(run, share_s, inner)

    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=dtype)

    tiny = random(4).requires_grad_()
    op_s = median_s(lambda: tiny * tiny, inner=200)
    view_s = median_s(lambda: tiny.view(2, 2), inner=200)

    rates = _rates("float32", 512, 8, random, share_s, op_s)
    conv_rate, _ = rates["conv_flops_per_s.float32"]
    for name in _HALVES:
        rates |= _rates(name, 256, 2, random, share_s / 2, op_s)  # on little work: they may be slow
    small_x, small_w = random(1, 8, 4, 4), random(8, 8, 3, 3)
    small_s = median_s(lambda: conv2d(small_x, small_w, padding=1), inner=20)

    big = random(1 << 22)  # 16 MiB: beyond a core's cache, below glibc's mmap limit, where page faults take over
    copied = 2 * big.numel() * big.element_size()  # 1 read + 1 write
    lane_bandwidth = copied / median_s(big.clone)
    bandwidth = lane_bandwidth
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            together_s = median_s(lambda: [f.result() for f in [pool.submit(big.clone) for _ in range(threads)]])
        bandwidth = max(lane_bandwidth, threads * copied / together_s)
    return {
        **rates,
        "matrix_flops_per_s.float64": _product_rate(random, 512, torch.float64, share_s),
        "matrix_half_work_flops": (
            max(0.0, small_s - op_s) * conv_rate,
            "3x3 convolution, [1, 8, 4, 4]: its fixed time",
        ),
        "memory_bandwidth_bytes_per_s": (bandwidth, "16 MiB clones on all lanes at once, read + write"),
        "lane_bandwidth_bytes_per_s": (lane_bandwidth, "16 MiB clone into fresh memory, read + write"),
        "host_overhead_s": (op_s, "product of 4 elements, recorded for autograd"),
        "host_view_overhead_s": (view_s, "view of 4 elements, recorded for autograd"),
    }


def _rates(
    name: str, side: int, batch: int, random: Callable[..., torch.Tensor], share_s: float, op_s: float
) -> dict[str, tuple[float, str]]:
    """Figure name -> (value, what was run): matrix and vector rates in one datatype, measured in `share_s` each, on a
    product of matrices with `side` rows and columns and a convolution of `batch` images."""
    import torch
    from torch.nn.functional import conv2d

    dtype = getattr(torch, name)
    x, w = random(batch, 64, 16, 16, dtype=dtype), random(64, 64, 3, 3, dtype=dtype)
    backward = torch.ops.aten.convolution_backward.default
    how = (None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, False])
    conv_flops = 2 * 9 * 64 * x.numel()
    conv_s = _median_s(lambda: conv2d(x, w, padding=1), share_s, 1)
    back_s = _median_s(lambda: backward(x, x, w, *how), share_s, 1)
    cached, other = random(1 << 15, dtype=dtype), random(1 << 15, dtype=dtype)  # 128 KiB at most: stays in the cache
    vector_s = _median_s(lambda: torch.mul(cached, other, out=cached), share_s, 50)
    return {
        f"matrix_flops_per_s.{name}": _product_rate(random, side, dtype, share_s),
        f"conv_flops_per_s.{name}": (conv_flops / conv_s, f"3x3 convolution, [{batch}, 64, 16, 16]"),
        f"conv_backward_flops_per_s.{name}": (2 * conv_flops / back_s, "gradients of a 3x3 convolution"),
        f"vector_flops_per_s.{name}": (
            cached.numel() / max(vector_s - op_s, 0.1 * vector_s),
            "product of 32768 elements in the cache, without dispatch",
        ),
    }


def _product_rate(
    random: Callable[..., torch.Tensor], side: int, dtype: torch.dtype, share_s: float
) -> tuple[float, str]:
    a, b = random(side, side, dtype=dtype), random(side, side, dtype=dtype)
    return 2 * side**3 / _median_s(lambda: a @ b, share_s, 1), f"{side}^3 matmul"


def _median_s(run: Callable[[], object], budget_s: float, inner: int) -> float:
    """Median time of one run: a warm-up, then at least 5 samples of `inner` runs, more while the budget lasts."""
    run()
    samples: list[float] = []
    deadline = time.perf_counter() + budget_s
    while len(samples) < 5 or (time.perf_counter() < deadline and len(samples) < 1000):
        begin = time.perf_counter()
        for _ in range(inner):
            run()
        samples.append((time.perf_counter() - begin) / inner)
    return statistics.median(samples)


def cpu_name() -> str:
    """The processor as the operating system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def second_level_cache_bytes() -> int:
    """Of one core; 0 where the system does not tell."""
    name = "SC_LEVEL2_CACHE_SIZE"
    return max(0, os.sysconf(name)) if name in os.sysconf_names else 0


def cache_name(threads: int = 1) -> str:
    """File name for a measured device: another processor, torch, thread count or setting of its libraries is another
    measurement."""
    processor = re.sub(r"[^A-Za-z0-9]+", "-", cpu_name()).strip("-")
    settings = (instruction_set_here().name, os.environ.get("ATEN_CPU_CAPABILITY", ""))
    words = [
        processor,
        str(threads),
        str(_FIGURES),
        "torch",
        installed_version("torch"),
        *(s.lower() for s in settings if s),
    ]
    return f"cpu-{'-'.join(re.sub('[^A-Za-z0-9.+_-]', '', word) for word in words)}.json"


def read_cached(path: Path) -> Device | None:
    """The device that `write_cached` left there; None where there is none, or none that can be read."""
    try:
        return device_from_json(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError, BadFile):
        return None  # a cache may be lost at any time: measure again


def write_cached(path: Path, device: Device) -> None:
    """Keep the device for `read_cached`. Raises BadFile where the file cannot be written."""
    write_file(path, device_to_json(device))
