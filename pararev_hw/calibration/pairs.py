"""Two ops at the same time, on two threads or two streams, beside the same two alone: what the lanes share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch

from pararev_hw.calibration.cases import Case
from pararev_hw.calibration.ops import Missed
from pararev_hw.calibration.suite import SEED
from pararev_hw.calibration.suite.convolutions import conv_case
from pararev_hw.calibration.suite.elementwise import sum_case
from pararev_hw.costmodels.calibrated.cache_model import miss_share
from pararev_hw.measurement import Clock, measure
from pararev_hw.torch_private import occupy_gpu
from pararev_hw.types import Device, DeviceParameter, OpType, PairSample

_BANDWIDTH = "memory_bandwidth_bytes_per_s"
_TOGETHER_S = 2e-3  # of each of the two loops: long beside what it takes to start a thread
_REPEATS = 9

# Compute-bound with compute-bound, memory-bound with memory-bound, and one of each, from small to large.
_SIZES = ((4, 16, 16), (8, 32, 16), (8, 64, 16), (16, 64, 32))  # batch, channels, side


def pair_cases() -> tuple[tuple[Case, Case], ...]:
    """Pairs of ops as the two branches of a block would run them."""
    pairs = []
    for batch, channels, side in _SIZES:
        conv, add = conv_case(batch, channels, side), sum_case((batch, channels, side, side))
        pairs += [(conv, conv), (add, add), (conv, add)]
    large = sum_case((64, 64, 32, 32))
    return (*pairs, (large, large))


def measured_pairs(device: str, clock: Clock, until: Callable[[], bool]) -> Iterator[PairSample | Missed]:
    """Pairs in turn while the time lasts; on a CPU each op on a thread of its own."""
    if device == "cpu" and torch.get_num_threads() > 1:
        yield Missed("pairs", "each op already uses several threads")
        return
    generator = torch.Generator().manual_seed(SEED)
    with ThreadPoolExecutor(2) as pool, torch.no_grad():
        for left, right in pair_cases():
            if until():
                return
            runs = left.call(device, generator), right.call(device, generator)
            alone = tuple(measure(run, clock, limit_s=0.1).median_s for run in runs)
            # each loops until it has run as long as the other: so many times that both loops last alike
            counts = tuple(max(1, round(_TOGETHER_S / a)) for a in alone)
            both = _streams(runs, counts) if device == "cuda" else _threads(pool, runs, counts)
            apart = tuple(a * n for a, n in zip(alone, counts, strict=True))
            yield PairSample((left.op_type(), right.op_type()), (apart[0], apart[1]), both, (counts[0], counts[1]))


def _threads(pool: ThreadPoolExecutor, runs: Sequence[Callable[[], object]], counts: Sequence[int]) -> float:
    """Median seconds until both loops on two threads are done."""

    def loop(run: Callable[[], object], count: int) -> None:
        torch.set_num_threads(1)
        with torch.no_grad():  # a thread's own setting
            for _ in range(count):
                run()

    samples = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        waiting = [pool.submit(loop, run, count) for run, count in zip(runs, counts, strict=True)]
        for future in waiting:
            future.result()
        samples.append(time.perf_counter() - begin)
    return float(np.median(samples))


def _streams(runs: Sequence[Callable[[], object]], counts: Sequence[int]) -> float:
    """Median seconds until both loops on two streams are done, the host's launches hidden."""
    streams = [torch.cuda.Stream() for _ in runs]
    samples = []
    for _ in range(_REPEATS):
        torch.cuda.synchronize()
        occupy_gpu(2_000_000)  # cycles, ~1 ms: the host gets ahead of both streams
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for stream in streams:
            stream.wait_event(begin)
        for k in range(max(counts)):
            for stream, run, count in zip(streams, runs, counts, strict=True):
                if k < count:
                    with torch.cuda.stream(stream):
                        run()
        for stream in streams:
            torch.cuda.current_stream().wait_stream(stream)
        end.record()
        end.synchronize()
        samples.append(begin.elapsed_time(end) / 1e3)
    return float(np.median(samples))


def with_sharing(device: Device, pairs: Sequence[PairSample], last_capacity_bytes: float) -> Device:
    """The device with the figures under which the fluid model explains the pairs best: the bandwidth that lanes share,
    and on a GPU how many output elements keep a unit busy. Unchanged where no pair was measured."""
    if not pairs:
        return device
    names = [_BANDWIDTH]
    if device.kind == "gpu":
        names += ["matrix_elements_per_unit", "vector_elements_per_unit"]
    best = {name: device.value(name) for name in names}
    for _ in range(2):  # each figure in turn, twice: they hardly depend on each other
        for name in names:
            candidates = best[name] * np.geomspace(0.25, 4.0, 41)
            best[name] = float(
                min(candidates, key=lambda v: _misfit(device, pairs, last_capacity_bytes, best | {name: v}))
            )
    source = f"fitted to {len(pairs)} pairs of ops at the same time"
    return replace(
        device, parameters={**device.parameters, **{n: DeviceParameter(v, source, "measured") for n, v in best.items()}}
    )


def _misfit(device: Device, pairs: Sequence[PairSample], capacity: float, parameters: Mapping[str, float]) -> float:
    """Sum of |log(predicted / measured)| of the time together."""
    return sum(abs(float(np.log(together_s(device, p, capacity, parameters) / p.together_s))) for p in pairs)


def together_s(device: Device, pair: PairSample, capacity: float, parameters: Mapping[str, float]) -> float:
    """The fluid model's time until both loops are done: while both run, each is slowed by their total demand.

    Streams share the chip, threads the interpreter's lock while an op is dispatched, both the main memory.
    """
    demands = []
    both = np.array(float(sum(t.read_bytes + t.write_bytes for t in pair.ops)))  # the last cache is shared too
    for t, alone, count in zip(pair.ops, pair.alone_s, pair.counts, strict=True):
        fetched = count * (t.read_bytes + t.write_bytes) * float(miss_share(both, capacity))
        host_share = count * device.get("host_overhead_s", 0.0) / alone
        busy = _occupied(device, t, parameters) if device.kind == "gpu" else min(1.0, host_share)
        demands.append((busy, fetched / parameters[_BANDWIDTH] / alone))
    slow = max(1.0, *(sum(d[k] for d in demands) for k in (0, 1)))
    short, long = sorted(pair.alone_s)
    return slow * short + (long - short)


def _occupied(device: Device, t: OpType, parameters: Mapping[str, float]) -> float:
    """The share of a GPU that an op keeps busy."""
    per_unit = parameters["matrix_elements_per_unit" if t.flops else "vector_elements_per_unit"]
    return min(1.0, sum(map(math.prod, t.output_shapes)) / (device.value("parallel_units") * per_unit))
