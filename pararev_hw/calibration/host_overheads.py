"""What lies beside the ops: dispatch, views, autograd, fresh memory, cache sizes, and the curves that show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import least_squares

from pararev_hw.costmodels.calibrated.cache_model import miss_share
from pararev_hw.costmodels.traffic import Floats
from pararev_hw.measurement import Clock, measure, step_clock
from pararev_hw.types import Estimate

Points = tuple[tuple[float, float], ...]

_MATMUL = {"cpu": (128, 256, 512, 1024), "cuda": (512, 1024, 2048, 4096, 8192)}
_COPY_BYTES = tuple(1 << k for k in range(12, 28))
_FRESH_BYTES = 48 << 20  # above glibc's largest threshold: mapped anew every time
_SLOW_PRODUCT_S = 0.05  # a product after which no larger one is tried
_CHAIN = 200  # ops of a chain whose gradient is taken


@dataclass(frozen=True, slots=True)
class Found:
    """Overheads and capacities by name, and curves of (size, rate) points by name."""

    host: Mapping[str, Estimate]
    curves: Mapping[str, Points]


def overheads(device: str, clock: Clock) -> Mapping[str, Estimate]:
    """Seconds of the host per op: dispatch alone, a view, and what autograd adds forward and backward."""
    wall = step_clock(device)
    tiny = torch.ones(4, device=device)
    watched = torch.ones(4, device=device, requires_grad=True)

    def chain() -> torch.Tensor:
        value = watched
        for _ in range(_CHAIN):
            value = value.mul(1.0)
        return value.sum()

    def plain() -> torch.Tensor:
        value = tiny
        for _ in range(_CHAIN):
            value = value.mul(1.0)
        return value.sum()

    def there_and_back() -> None:
        chain().backward()
        watched.grad = None

    def estimate(run: Callable[[], object], over: int = 1) -> tuple[float, float]:
        timing = measure(run, wall, limit_s=0.2)
        return timing.median_s / over, timing.half_width / 1.96 * timing.median_s / over

    dispatch, view = estimate(lambda: torch.mul(tiny, tiny)), estimate(lambda: tiny.view(2, 2))
    bare, forward, both = estimate(plain, _CHAIN), estimate(chain, _CHAIN), estimate(there_and_back, _CHAIN)
    return {
        "dispatch_s": Estimate(*dispatch),
        "view_s": Estimate(*view),
        "autograd_forward_s": Estimate(max(0.0, forward[0] - bare[0]), float(np.hypot(forward[1], bare[1]))),
        "autograd_backward_s": Estimate(max(0.0, both[0] - forward[0]), float(np.hypot(both[1], forward[1]))),
    }


def matmul_peaks(device: str, clock: Clock) -> Mapping[str, Points]:
    """Rate of square matrix products by size, for each datatype; on a GPU float32 with and without TF32."""
    generator = torch.Generator().manual_seed(0)
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    peaks: dict[str, Points] = {}
    for name, dtype in dtypes.items():
        if device == "cpu" and name == "float16":
            continue  # no CPU library multiplies halves faster than floats
        for tf32 in (False, True) if device == "cuda" and name == "float32" else (False,):
            points = []
            allowed = torch.backends.cuda.matmul.allow_tf32
            torch.backends.cuda.matmul.allow_tf32 = tf32
            try:
                for n in _MATMUL[device]:
                    a = torch.rand(n, n, generator=generator).to(device=device, dtype=dtype)
                    timing = measure(lambda a=a: a @ a, clock, limit_s=0.1, most_s=0.2)  # type: ignore[misc]
                    points.append((float(n), 2 * n**3 / timing.median_s))
                    if timing.median_s > _SLOW_PRODUCT_S:
                        break  # an emulated datatype: larger products would take the time of the operations
            finally:
                torch.backends.cuda.matmul.allow_tf32 = allowed
            peaks[f"matmul_flops_per_s.{'tfloat32' if tf32 else name}"] = tuple(points)
    return peaks


def copy_curve(device: str, clock: Clock) -> tuple[Points, Points]:
    """Bytes per second, read and written, of copies by working set: warm, and after the caches were emptied."""
    filler = torch.zeros(16 << 20, device=device)
    warm, cold = [], []
    for size in _COPY_BYTES:
        source, target = torch.ones(size // 8, device=device), torch.ones(size // 8, device=device)

        def run(target: torch.Tensor = target, source: torch.Tensor = source) -> object:
            return target.copy_(source)

        warm.append((float(size), size / measure(run, clock, limit_s=0.05).median_s))
        before = measure(run, clock, limit_s=0.05, before=lambda: filler.add_(1.0))
        cold.append((float(size), size / before.median_s))
    return tuple(warm), tuple(cold)


def capacities(warm: Points, start: tuple[float, float]) -> Mapping[str, Estimate]:
    """Bytes of the second-level and of the last cache: where the copies' time per byte rises."""
    size = np.array([p[0] for p in warm])
    time_s = size / np.array([p[1] for p in warm])

    def predicted(p: Floats) -> Floats:
        overhead, a, b, c, l2, last = np.exp(p)
        time_s: Floats = overhead + size * (a + b * miss_share(size, l2) + c * miss_share(size, last))
        return time_s

    first = np.log([time_s[0], 1e-11, 1e-11, 3e-11, start[0], start[1]])
    span = np.array([3.0, 5.0, 5.0, 5.0, 0.7, 0.7])
    solution = least_squares(
        lambda p: np.log(predicted(p) / time_s), first, bounds=(first - span, first + span), loss="soft_l1", f_scale=0.1
    )
    return {
        "l2_capacity_bytes": Estimate(float(np.exp(solution.x[4]))),
        "last_capacity_bytes": Estimate(float(np.exp(solution.x[5]))),
    }


def fault_s_per_byte() -> Estimate:
    """Seconds per byte to map fresh memory in: filling a block that is new every time, less filling the same again."""
    fresh = measure(lambda: torch.empty(_FRESH_BYTES, dtype=torch.uint8).fill_(1), step_clock("cpu"), limit_s=0.5)
    same = torch.ones(_FRESH_BYTES, dtype=torch.uint8)
    again = measure(lambda: same.fill_(1), step_clock("cpu"), limit_s=0.5)
    mapped = max(fresh.faulted_bytes - again.faulted_bytes, 0)
    if mapped < _FRESH_BYTES // 2:
        return Estimate(0.0)  # the allocator keeps such blocks here, or pages are huge: nothing to pay
    return Estimate(max(0.0, fresh.median_s - again.median_s) / mapped, fresh.half_width * fresh.median_s / mapped)
