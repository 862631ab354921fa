"""Which tasks must come after which, by sets of bits (before) and pair by pair (now), in one run.

    python benchmarks/bench_reach.py [--tasks 10000 100000 1000000] [--shapes layers chain wide network]

For each task it is asked whether it leads to a follower of a follower, and to a task drawn from those behind it.
`layers` have 100 tasks, each after up to five of the layer before; `chain` is one, with edges over seven; `wide` is
chains of ten side by side; `network` is 50 layers over time, forward and back. Processor time and how much larger the
process became, each in a process of its own; sets of bits up to 100,000 tasks.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pararev_hw.graph.reach import which_follow

MOST_BITS = 100_000
Edges = list[tuple[int, int]]


def layers(count: int, draw: random.Random) -> Edges:
    return [
        (above + k, i)
        for i in range(100, count)
        for above in ((i // 100 - 1) * 100,)
        for k in sorted(draw.sample(range(100), draw.randint(1, 5)))
    ]


def chain(count: int, _: random.Random) -> Edges:
    return [(i - step, i) for i in range(count) for step in (1, 7) if i >= step]


def wide(count: int, _: random.Random) -> Edges:
    return [(i - 1, i) for i in range(count) if i % 10]


def network(count: int, _: random.Random, depth: int = 50) -> Edges:
    half = count // 2
    edges = []
    for i in range(half):
        back = count - 1 - i
        for step in (1, depth):
            if i >= step:
                edges += [(i - step, i), (back, back + step)]
        edges.append((i, back))
    return [(a, b) for a, b in edges if a < b < count]


SHAPES = {"layers": layers, "chain": chain, "wide": wide, "network": network}


def measured(shape: str, which: str, count: int) -> None:
    draw = random.Random(0)
    edges = SHAPES[shape](count, draw)
    followers = dict(edges)
    pairs = [(a, followers.get(b, b)) for a, b in followers.items()]
    pairs += [(a, draw.randrange(a + 1, count)) for a in range(count - 1)]
    which_follow(3000, chain(3000, draw), [(0, 1)])  # loads, or compiles, the loop
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    ordered = which_follow(count, edges, pairs, few=count if which == "before" else 0)
    seconds = time.process_time() - began
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size) >> 10
    print(f"{shape:8} {which:6} {count:>9,} tasks {seconds:7.2f} s {grown_mib:5} MiB, {sum(ordered):,} pairs ordered")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        measured(*asked.one, asked.tasks[0])
        return 0
    for shape in asked.shapes:
        for count in asked.tasks:
            for which in ("before", "now") if count <= MOST_BITS else ("now",):
                command = [sys.executable, __file__, "--one", shape, which, "--tasks", str(count)]
                subprocess.run(command, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
