"""Configurations per second of the sweep engine, on one core, for a training step, beside one at a time.

    python benchmarks/bench_sweep.py [--network pararevsnn37] [--configurations 20000] [--device edge8]
                                     [--zigzag PYTHON] [--compute cpu|cuda]

Prints, from one run on one thread, in seconds of its processor time:

- `vectorised`: the whole engine (cost model, list-scheduled lane orders replayed with shared bandwidth, energy, peak
  memory), in batches as a sweep takes them, for each number of cores;
- `PyTorch`, with `--compute`: the same as batches of PyTorch on that device, in seconds by the clock;
- `one at a time`: the same configurations through the pipeline, as `report` does it;
- `order`: how much faster a schedule made anew for each configuration is than the order of its class;
- `memory`: the most memory that the process held;
- `ZigZag`: its seconds per layer, where an environment that has it is given.

What one configuration is: forward, recompute, backward and update of the network, per layer the cycles of the array, an
exact tiling for its memory, traffic of every level, energy; then the schedule of all tasks over the cores. ZigZag
(benchmarks/bench_zigzag.py) searches the mapping of single layers of a forward pass on one core, deeper than this
model does: its seconds per layer and these microseconds per step answer different questions.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from bench_zigzag import zigzag

from pararev_hw import pipeline, target_graph
from pararev_hw.devices import bare_device
from pararev_hw.sweeps.chips import configured
from pararev_hw.sweeps.engine import Engine
from pararev_hw.trace_options import TraceOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="pararevsnn37")
    parser.add_argument("--configurations", type=int, default=20_000)
    parser.add_argument("--device", default="edge8")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone", type=int, default=20, help="configurations that are evaluated one at a time")
    parser.add_argument("--compute", choices=("cpu", "cuda"), help="PyTorch too, on this device")
    parser.add_argument("--zigzag", type=Path, help="Python of an environment with zigzag-dse")
    asked = parser.parse_args()
    if asked.zigzag is not None:
        layers = zigzag(asked.zigzag, weight_words=8)
        each = sum(x["seconds"] for x in layers) / len(layers)
        print(f"ZigZag: {each:.2f} s per layer (forward, one core, {len(layers)} layers)")
    graph = target_graph.build_graph(asked.network, TraceOptions(batch=8, spikes="0.15"))
    device = bare_device(pipeline.find_device(asked.device))
    engine = Engine(graph, device, "heft")
    print(f"{asked.network}, training step, batch 8: {len(graph.ops)} ops, {len(graph.tasks)} tasks, on {device.name}")
    columns = drawn(engine, asked.configurations)
    for lanes in (1, 2, 4, 8):
        engine.prepare(lanes)
        engine({n: v[:2048] for n, v in columns.items()}, lanes, 2048)  # tables for the SRAM sizes that occur
        seconds = []
        for _ in range(asked.repeats):
            began = time.process_time()  # of this one thread: the same, whatever else the machine does
            engine(columns, lanes, asked.configurations)
            seconds.append(time.process_time() - began)
        rates = sorted(asked.configurations / s for s in seconds)
        print(
            f"vectorised, {lanes} cores: {statistics.median(rates):9,.0f} configurations/s "
            f"({rates[0]:,.0f} to {rates[-1]:,.0f})"
        )
        if asked.compute is not None:
            by_pytorch(Engine(graph, device, "heft", compute=asked.compute), columns, lanes, asked.configurations)
    one_by_one(engine, columns, asked.alone)
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB at most")


def by_pytorch(engine: Engine, columns: dict[str, np.ndarray], lanes: int, count: int) -> None:
    engine(columns, lanes, count)  # tables, and what the device loads
    began = time.perf_counter()
    engine(columns, lanes, count)
    print(f"PyTorch on {engine.compute}, {lanes} cores: {count / (time.perf_counter() - began):9,.0f} configurations/s")


def drawn(engine: Engine, count: int) -> dict[str, np.ndarray]:
    """Configurations over the ranges of examples/sweeps/edge.yaml, bandwidth without steps."""
    rng = np.random.default_rng(0)
    return {
        "sram_bytes_per_lane": 2.0 ** rng.integers(16, 23, count),
        "memory_bandwidth_bytes_per_s": 8.5e9 * 16 ** rng.random(count),
        "pe_rows": rng.choice([8.0, 16.0, 32.0], count),
        "noc_bandwidth_bytes_per_s": rng.choice([6.4e9, 12.8e9, 25.6e9], count),
    }


def one_by_one(engine: Engine, columns: dict[str, np.ndarray], count: int) -> None:
    lanes, worst, anew = 4, 0.0, []
    rows = engine({n: v[:count] for n, v in columns.items()}, lanes, count)
    began = time.process_time()
    studies = [engine.study({n: float(v[k]) for n, v in columns.items()}, lanes) for k in range(count)]
    seconds = (time.process_time() - began) / count
    for k, study in enumerate(studies):
        worst = max(worst, abs(rows.latency_s[k] / study.chosen.latency_s - 1))
        device = configured(engine.device, {n: float(v[k]) for n, v in columns.items()}, lanes, "benchmark")
        best = pipeline.study(engine.graph, device, scheduler="heft").chosen.latency_s
        anew.append(rows.latency_s[k] / best - 1)
    print(f"one at a time, {lanes} cores: {1 / seconds:.1f} configurations/s; largest difference {worst:.1e}")
    print(f"order of the class against one made anew: median {statistics.median(anew):+.2%}, worst {max(anew):+.2%}")


if __name__ == "__main__":
    main()
