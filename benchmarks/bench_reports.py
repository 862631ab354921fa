"""What the parts of a report take, and sorting out a sweep's front, now and before in one run.

    python benchmarks/bench_reports.py parts [--network pararevsnn37] [--before FOLDER]
    python benchmarks/bench_reports.py write [--network pararevsnn165] [--timesteps 6] [--before FOLDER]
    python benchmarks/bench_reports.py front [--points 4000 16000 64000] [--before FOLDER]

`--before` is a checkout of an older version that has these parts. Each run is a process of its own on one thread, in
turns; processor seconds, the least of `--repeats`. `parts` are those of `report NETWORK --spikes 0.2`, imports of torch
apart; `write` writes the files of a step with one task per operation; `front` merges near copies and leaves out what
others equal with less, of three objectives on a sphere, and of a front all of whose points lie within 3 %.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=sorted(MEASURED))
    parser.add_argument("--network", default=None)
    parser.add_argument("--timesteps", type=int, default=6)
    parser.add_argument("--points", type=int, nargs="+", default=[4_000, 16_000, 64_000])
    parser.add_argument("--before", type=Path)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--here", action="store_true", help="measure in this process and print JSON")
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(MEASURED[asked.what](asked)))
        return
    checkouts = [ROOT] if asked.before is None else [asked.before.resolve(), ROOT]
    least: list[dict[str, float]] = [{} for _ in checkouts]
    for _ in range(asked.repeats):
        for measured, checkout in zip(least, checkouts, strict=True):
            for name, number in once(checkout).items():
                measured[name] = min(number, measured.get(name, number))
    for name in least[-1]:
        print(f"{name}: {' -> '.join(f'{measured[name]:.2f}' for measured in least)}")


def once(checkout: Path) -> dict[str, float]:
    """What this command measures with the package of a checkout."""
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment = {**inherited, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *sys.argv[1:], "--here"]
    ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    numbers: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return numbers


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def parts(asked: argparse.Namespace) -> dict[str, float]:
    """Seconds of each part of a report, in order."""
    from pararev_hw import pipeline, recommendation, reports
    from pararev_hw.trace_options import TraceOptions

    gc.set_threshold(500_000, 20, 20)  # as the command line does
    device, options = pipeline.find_device("h200"), TraceOptions(spikes="0.2")
    network = asked.network or "pararevsnn37"
    results: dict[str, float] = {}
    began = time.process_time()
    step = recommendation.traced(network, device, options)
    results["trace, s"] = time.process_time() - began
    bare = recommendation.Search(choices="none")
    results["study without rewrites, s"] = seconds(lambda: recommendation.study(step, device, bare))
    began = time.process_time()
    study = recommendation.study(step, device)
    results["study, s"] = time.process_time() - began
    with tempfile.TemporaryDirectory() as folder:
        results["files, s"] = seconds(lambda: reports.write_report(study, Path(folder)))
    return results


def write(asked: argparse.Namespace) -> dict[str, float]:
    """Seconds and megabytes of a large report's files."""
    from pararev_hw import pipeline, recommendation, reports, target_graph
    from pararev_hw.trace_options import TraceOptions

    gc.set_threshold(500_000, 20, 20)
    options = TraceOptions(timesteps=asked.timesteps, spikes="0.2", granularity="op")
    graph = target_graph.build_graph(asked.network or "pararevsnn165", options)
    began = time.process_time()
    study = recommendation.study(graph, pipeline.find_device("h200"), recommendation.Search(choices="none"))
    study_s = time.process_time() - began
    study_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory() as folder:
        took_s = seconds(lambda: reports.write_report(study, Path(folder)))
        sizes = {f"{p.name}, MB": p.stat().st_size / 1e6 for p in sorted(Path(folder).iterdir())}
    counts = {"tasks": float(len(graph.tasks)), "schedules": float(len(study.predictions))}
    took = {"study, s": study_s, "process up to then, MiB": study_mib, "files, s": took_s}
    return {**counts, **took, "all files, MB": sum(sizes.values()), **sizes}


def front(asked: argparse.Namespace) -> dict[str, float]:
    """Seconds for the points of each front; loops are compiled before."""
    import numpy as np

    from pararev_hw.sweeps.front import merged, stand_ins

    draw = np.random.default_rng(0)

    def sphere(points: int) -> list[np.ndarray]:
        directions = np.abs(draw.normal(size=(points, 3)))
        return list((2 - directions / np.linalg.norm(directions, axis=1)[:, None]).T)

    def close(points: int) -> list[np.ndarray]:
        along = draw.random(points)
        return [1 + 0.03 * along, 2 - 0.03 * along, 1 + 0.01 * draw.random(points)]

    def sorted_out(columns: list[np.ndarray]) -> None:
        merged(columns, draw.integers(0, 9, len(columns[0])).astype(np.float64))
        stand_ins(columns, [False] * 3)

    sorted_out(sphere(4_000))
    return {
        f"{points:,} points {where}, s": seconds(partial(sorted_out, shape(points)))
        for where, shape in (("on a sphere", sphere), ("within 3 %", close))
        for points in asked.points
    }


MEASURED = {"parts": parts, "write": write, "front": front}

if __name__ == "__main__":
    main()
