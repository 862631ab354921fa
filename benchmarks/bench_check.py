"""Has anything become slower? `make bench-check` compares ratios of times, taken in one run, with stored ones.

    python benchmarks/bench_check.py [--store]

A ratio is free of the machine's speed: what is measured, over a reference that does not change. References are plain
Python loops that stand here or in tests/helpers, and, for tracing, the same step on torch's fake tensors with nothing
recorded. Times are processor time, the least of several. The check fails where a ratio is more than 25 % above the one
in `ratios.json`; `--store` writes what it measures there instead.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from bench_schedulers import layered
from bench_trace import once

from pararev_hw import pipeline, target_graph
from pararev_hw.devices import bare_device
from pararev_hw.schedulers import heft, run
from pararev_hw.schedulers.job_shop import TabuSearch
from pararev_hw.sweeps.engine import Engine
from pararev_hw.task_graph_files import read_problem
from pararev_hw.trace_options import TraceOptions

STORED = Path(__file__).with_name("ratios.json")
TOLERANCE = 0.25
INSTANCES = Path(__file__).parents[1] / "tests" / "golden" / "instances"


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of what is watched, and of its reference."""

    seconds: float
    reference_s: float

    @property
    def ratio(self) -> float:
        return self.seconds / self.reference_s


def reference_loop() -> None:
    """200,000 steps of what list schedulers are made of, in plain Python: a heap and three lists."""
    n = 200_000
    heap: list[tuple[float, int]] = []
    starts, ends, lane = [0.0] * n, [0.0] * n, [0] * n
    for i in range(n):
        heapq.heappush(heap, ((i * 7919) % 10_007 / 10_007, i))
        if len(heap) > 64:
            at, j = heapq.heappop(heap)
            starts[j], ends[j], lane[j] = at, at + 1.0, j % 8


def least(work: Callable[[], object], repeats: int) -> float:
    work()  # warm up: loops are compiled or loaded
    samples = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        samples.append(time.process_time() - began)
    return min(samples)


def measured(repeats: int) -> dict[str, Measured]:
    """What is watched, by name."""
    results: dict[str, Measured] = {}

    def beside_loop(name: str, work: Callable[[], object]) -> None:
        results[name] = Measured(least(work, repeats), least(reference_loop, repeats))

    tasks = layered(10_000, 8)
    for scheduler in ("heft", "forward-backward", "memory-list"):  # a new problem each time: arrays are kept with one
        beside_loop(f"{scheduler}, 10,000 tasks", lambda s=scheduler: run(replace(tasks), s))  # type: ignore[misc]
    shop = read_problem(INSTANCES / "ft10.jsp")
    orders = heft.heft_orders(shop)
    beside_loop("job shop, 20,000 moves", lambda: TabuSearch(shop, orders, 0, compiled=True).move(20_000))
    graph = target_graph.build_graph("pararevsnn37", TraceOptions(batch=8, spikes="0.15"))
    engine = Engine(graph, bare_device(pipeline.find_device("edge8")), "heft")
    draw = np.random.default_rng(0)
    columns = {
        "sram_bytes_per_lane": 2.0 ** draw.integers(16, 23, 8192),
        "memory_bandwidth_bytes_per_s": 8.5e9 * 16 ** draw.random(8192),
        "pe_rows": draw.choice([8.0, 16.0, 32.0], 8192),
    }
    beside_loop("sweep, 8,192 configurations on 4 cores", lambda: engine(columns, 4, 8192))
    traced, plain = (min(once("pararevsnn69", kind, 4)["s"] for _ in range(repeats)) for kind in ("trace", "fake"))
    results["trace of pararevsnn69 beside plain fake tensors"] = Measured(traced, plain)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", action="store_true", help="write the ratios instead of comparing them")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    results = measured(asked.repeats)
    stored = {} if asked.store else json.loads(STORED.read_text(encoding="utf-8"))
    for name, result in results.items():
        change = f", stored {stored[name]:.3f} ({result.ratio / stored[name] - 1:+.0%})" if name in stored else ""
        print(f"{name}: {result.seconds * 1e3:.1f} ms, {result.ratio:.3f} of its reference{change}")
    if asked.store:
        ratios = {name: round(result.ratio, 4) for name, result in results.items()}
        STORED.write_text(json.dumps(ratios, indent=2) + "\n", encoding="utf-8")
        return 0
    wrong = list(faults({name: result.ratio for name, result in results.items()}, stored))
    for fault in wrong:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if wrong else 0


def faults(ratios: Mapping[str, float], stored: Mapping[str, float]) -> Iterator[str]:
    """Why the check fails, a line each: what became slower, and what is measured or stored alone."""
    for name in (*ratios, *(stored.keys() - ratios.keys())):
        if name not in ratios or name not in stored:
            yield f"{name} is {'stored' if name in stored else 'measured'} alone: run again with --store"
        elif not ratios[name] <= stored[name] * (1 + TOLERANCE):
            yield f"{name} is more than {TOLERANCE:.0%} slower than stored"


if __name__ == "__main__":
    sys.exit(main())
