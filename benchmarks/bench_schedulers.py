"""How long scheduling takes and how near the optimum it comes: `python benchmarks/bench_schedulers.py [PART ...]`.

Parts, all by default except the last two: `lists` (list schedulers on 10,000 tasks), `stg` and `jsp` (public instances
with known optima), `memory` (schedules within a memory limit), `step` (the training step of pararevsnn37; traces it
first), `seconds` (by how much searches miss `--seconds`, beside a process that keeps the same core busy; with
`--before CHECKOUT` that of an older version, in turns).
Problems are random and seeded. A line of `lists` is the median of the repeats with the fastest and the slowest, in
processor time, which other work on the machine disturbs least; the problem is built outside the clock. The other parts
give wall time, since their searches end by the clock.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pararev_hw import target_graph
from pararev_hw.check import check_schedule
from pararev_hw.schedulers import run
from pararev_hw.schedulers.bounds.makespan import lower_bound
from pararev_hw.simulate import play
from pararev_hw.task_graph_files import read_problem
from pararev_hw.trace_options import TraceOptions
from pararev_hw.types import CommEdge, Schedule, SchedulingProblem, TaskCost

INSTANCES = Path(__file__).parents[1] / "tests" / "golden" / "instances"
LISTS = ("sequential", "asap", "heft", "forward-backward")
SEARCHES: tuple[tuple[str, dict[str, float]], ...] = (
    *(("heft", {}), ("forward-backward", {}), ("local-search", {})),
    ("exact", {"seconds": 60.0}),
)
VARIANTS: dict[str, dict[str, float]] = {
    "plain": {},
    "delays": {"delay_s": 1e-4},
    "uneven lanes": {"uneven": 1.0},
    "sharing": {"demand": 0.5},
    "host clock": {"host_s": 1e-5},
}


def layered(
    n: int,
    lanes: int,
    *,
    demand: float = 0.0,
    host_s: float = 0.0,
    delay_s: float = 0.0,
    uneven: float = 0.0,
    width: int = 100,
) -> SchedulingProblem:
    """`n` tasks in layers; `uneven` is how far, relative, times on the lanes of one task differ."""
    rng = random.Random(0)
    tasks, edges = [], []
    for i in range(n):
        time_s = rng.uniform(1e-5, 1e-4)
        times_s = tuple(time_s * (1 + uneven * rng.random()) for _ in range(lanes))
        tasks.append(
            TaskCost(f"t{i}", times_s, demand * rng.random(), demand * rng.random(), host_s, rng.randrange(1000))
        )
        first = (i // width - 1) * width
        for p in rng.sample(range(first, first + width), rng.randint(1, 5)) if first >= 0 else ():
            edges.append(CommEdge(p, i, delay_s * rng.random()))
    return SchedulingProblem("layered", lanes, tuple(tasks), tuple(edges))


def tree(n: int, lanes: int) -> SchedulingProblem:
    """A random tree of reductions: every task but the last has one consumer, which needs all of its inputs at once."""
    rng = random.Random(0)
    tasks = tuple(
        TaskCost(f"t{i}", (rng.uniform(1.0, 10.0),) * lanes, memory_bytes=rng.randint(1, 1000)) for i in range(n)
    )
    edges = [CommEdge(i, rng.randrange(i + 1, min(n, i + 1 + n // 4))) for i in range(n - 1)]
    return SchedulingProblem("tree", lanes, tasks, tuple(edges))


def ladders(n: int, lanes: int) -> SchedulingProblem:
    """Forward chains whose outputs a backward chain reads again, last first: training steps side by side."""
    rng = random.Random(0)
    depth = 25
    tasks: list[TaskCost] = []
    edges: list[CommEdge] = []
    for _ in range(n // (2 * depth)):
        first = len(tasks)
        for k in range(2 * depth):
            tasks.append(
                TaskCost(f"t{len(tasks)}", (rng.uniform(1.0, 10.0),) * lanes, memory_bytes=rng.randint(100, 1000))
            )
            if k:
                edges.append(CommEdge(first + k - 1, first + k))
            if k >= depth:
                edges.append(CommEdge(first + 2 * depth - 1 - k, first + k))
    return SchedulingProblem("ladders", lanes, tuple(tasks), tuple(edges))


def limited(costs: SchedulingProblem) -> SchedulingProblem:
    """The limit 15 % of the way from the sequential peak to the one of HEFT without a limit."""
    low, high = (run(costs, s).peak_bytes or 0 for s in ("sequential", "heft"))
    return replace(costs, memory_limit_bytes=int(low + 0.15 * max(0, high - low)))


def timed(work: Callable[[], object], repeats: int) -> str:
    work()  # warm up
    samples = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        samples.append(time.process_time() - begin)
    return f"{statistics.median(samples):8.3f} s  [{min(samples):.3f}, {max(samples):.3f}]"


def lists(tasks: int, lanes: int, repeats: int) -> None:
    print(f"{tasks} tasks, {lanes} lanes, {repeats} repeats; Python {platform.python_version()}")
    print(f"{'problem':14}{'scheduler':18}{'median  [fastest, slowest]':34}{'gap':>10}{'speedup':>9}  bound by")
    for variant, options in VARIANTS.items():
        costs = layered(tasks, lanes, **options)  # type: ignore[arg-type]
        for name in LISTS:
            schedule = run(costs, name)
            check_schedule(costs, schedule)
            took = timed(lambda costs=costs, name=name: run(costs, name), repeats)  # type: ignore[misc]
            print(f"{variant:14}{name:18}{took:34}{schedule.gap:10.4%}{schedule.speedup:9.2f}  {schedule.bound_by}")
        print(f"{variant:14}{'lower_bound':18}{timed(lambda costs=costs: lower_bound(costs), repeats)}")  # type: ignore[misc]
    for variant, options in VARIANTS.items():
        costs = layered(5 * tasks, lanes, **options)  # type: ignore[arg-type]
        orders = [range(k, 5 * tasks, lanes) for k in range(lanes)]
        took = timed(lambda costs=costs, orders=orders: play(costs, orders), repeats)  # type: ignore[misc]
        print(f"{variant:14}{f'play {5 * tasks}':18}{took}")


def clocked(costs: SchedulingProblem, name: str, **options: float) -> tuple[Schedule, float]:
    """A checked schedule and the seconds that it took."""
    begin = time.perf_counter()
    schedule = run(costs, name, **options)
    took_s = time.perf_counter() - begin
    check_schedule(costs, schedule)
    return schedule, took_s


def _rows(folder: Path, file: str) -> list[dict[str, str]]:
    with (folder / file).open() as lines:
        return list(csv.DictReader(lines))


def _find(folder: Path, *names: str) -> Path:
    return next(
        p for name in names for p in (folder / name, folder / "stg" / name, folder / "jsp" / name) if p.is_file()
    )


def stg(folder: Path) -> None:
    """Standard task graphs on 2, 4, 8 and 16 lanes."""
    for name, options in (*SEARCHES[:-1], ("exact", {"seconds": 20.0})):
        above, proved, best, took = [], 0, 0, []
        for row in _rows(folder, "stg_optimum.csv"):
            for lanes in (2, 4, 8, 16):
                optimum = int(row[f"opt_m{lanes}"])
                schedule, took_s = clocked(read_problem(_find(folder, row["file"]), lanes=lanes), name, **options)
                above.append(schedule.makespan_s / optimum - 1)
                proved, best = proved + schedule.optimal, best + (schedule.makespan_s == optimum)
                took.append(took_s)
        print(
            f"stg {name:18} {len(above)} problems: {statistics.mean(above):.3%} above the optimum, {best} optimal, "
            f"{proved} proved; {statistics.median(took):.3f} s, at most {max(took):.2f} s"
        )


def jsp(folder: Path) -> None:
    """Job shops, 60 s each."""
    for row in _rows(folder, "jsp_optimum.csv"):
        costs = read_problem(_find(folder, row["file"], f"{row['file']}.jsp"), format="jsp")
        results = []
        for name, options in (
            ("heft", {}),
            ("forward-backward", {}),
            ("local-search", {}),
            ("exact", {"seconds": 60.0}),
        ):
            schedule, took_s = clocked(costs, name, **options)
            results.append(f"{name} {schedule.makespan_s:.0f}{' proved' if schedule.optimal else ''} {took_s:.1f} s")
        print(f"jsp {row['file']:6} optimum {row['optimum']:>5}: {', '.join(results)}")


def memory() -> None:
    """Within the sequential peak + 15 % of the way to HEFT's: how far from the bound, in how long."""
    for n in (300, 1000, 10_000):
        for build in (layered, tree, ladders):
            costs = limited(build(n, 4))
            for name, options in (("memory-list", {}), ("local-search", {"seconds": 10.0})):
                if n == 10_000 and name != "memory-list":
                    continue
                schedule, took_s = clocked(costs, name, **options)
                print(
                    f"memory {n:6} {costs.device:8} {name:12} {schedule.gap:8.3%} above the bound, speed-up "
                    f"{schedule.speedup:.3f}, {took_s:.2f} s"
                )


def step() -> None:
    """The training step of pararevsnn37 on two lanes, 60 s."""
    from pararev_hw import pipeline
    from pararev_hw.devices import load_hardware

    graph = target_graph.build_graph("pararevsnn37", TraceOptions(spikes="0.2"))
    for device, launch in (("h200", "graph"), ("h200", "eager"), ("edge8", "eager")):
        costs = pipeline.plan(graph, load_hardware(device), lanes=2, launch=launch).costs
        for name, options in (
            ("heft", {}),
            ("forward-backward", {}),
            ("local-search", {}),
            ("exact", {"seconds": 60.0}),
        ):
            schedule, took_s = clocked(costs, name, **options)
            print(
                f"step {device} {launch:6} {len(costs.tasks)} tasks {name:18} {schedule.makespan_s * 1e3:10.4f} ms, "
                f"{schedule.gap:.3%} above the bound ({schedule.bound_by}), {took_s:.1f} s"
            )


def timed_problem(name: str) -> SchedulingProblem:
    """A problem that no scheduler here proves within a minute: `ft10`, or a kind and a number of tasks."""
    if name == "ft10":
        return read_problem(_find(INSTANCES, "ft10", "ft10.jsp"), format="jsp")
    kind, n = name.split(":")
    if kind == "memory":
        return limited(ladders(int(n), 4))
    return layered(int(n), 4, **VARIANTS[kind])  # type: ignore[arg-type]


@contextmanager
def neighbour() -> Iterator[None]:
    """One core for this process and what it starts, and beside it a process that never rests."""
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def one_search(words: str) -> None:
    """Print the wall seconds that a search took: problem, scheduler, seconds."""
    name, scheduler, seconds = words.split()
    costs = timed_problem(name)
    begin = time.monotonic()
    run(costs, scheduler, seconds=float(seconds))
    print(time.monotonic() - begin)


def seconds(problems: list[str], schedulers: list[str], asked_s: list[float], before: Path | None) -> None:
    """Wall seconds of searches beside the seconds that they were given, each in a process of its own."""
    checkouts = [Path(__file__).parents[1]] if before is None else [before.resolve(), Path(__file__).parents[1]]
    with neighbour():
        for name in problems:
            for scheduler in schedulers:
                for limit_s in asked_s:
                    took = []
                    for checkout in checkouts:
                        command = [sys.executable, __file__, "--search", f"{name} {scheduler} {limit_s}"]
                        environment = {**os.environ, "PYTHONPATH": str(checkout)}
                        ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
                        took.append(float(ran.stdout))
                    shown = " -> ".join(f"{t:.2f} s ({t / limit_s - 1:+.1%})" for t in took)
                    print(f"seconds {name:14} {scheduler:12} {limit_s:g} s asked: {shown}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", default=["lists", "stg", "jsp", "memory"], metavar="PART")
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--instances", type=Path, default=INSTANCES, help="folder of .stg and .jsp files with optima")
    parser.add_argument("--before", type=Path, help="checkout of an older version, for `seconds`")
    parser.add_argument("--problems", nargs="+", default=["ft10", "sharing:300", "delays:1000", "memory:1000"])
    parser.add_argument("--schedulers", nargs="+", default=["exact", "local-search", "pareto"])
    parser.add_argument("--seconds", type=float, nargs="+", default=[5.0, 30.0])
    parser.add_argument("--search", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.search:
        one_search(asked.search)
        return
    parts: dict[str, Callable[[], None]] = {
        "lists": lambda: lists(asked.tasks, asked.lanes, asked.repeats),
        "stg": lambda: stg(asked.instances),
        "jsp": lambda: jsp(asked.instances),
        "memory": memory,
        "step": step,
        "seconds": lambda: seconds(asked.problems, asked.schedulers, asked.seconds, asked.before),
    }
    for part in asked.parts:
        parts[part]()


if __name__ == "__main__":
    main()
