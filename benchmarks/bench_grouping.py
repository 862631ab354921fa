"""How ops become tasks, with the ancestors of every group as bit sets (before) and without (now), in one run.

    python benchmarks/bench_grouping.py [--groups 40000 100000]

A chain of groups, each of which also follows the one seven before it; every fifth op is glue. Processor time, and how
much larger the process became, each in a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pararev_hw.tracing.grouping import Key, Member, group
from tests.helpers.bitset_grouping import BitSetGrouping


def chain(count: int) -> list[Member]:
    keys = (Key(f"block{k // 3}", f"branch{k % 3}", "forward") for k in range(count))
    return [Member(key, tuple({max(0, k - 1), max(0, k - 7)} - {k}), k % 5 == 0) for k, key in enumerate(keys)]


def measured(which: str, count: int) -> None:
    """Print seconds and MiB of one of the two."""
    ops = chain(count)
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    _ = BitSetGrouping(ops).result() if which == "before" else group(ops)
    seconds = time.process_time() - began
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size) >> 10
    print(f"{which:6} {count:>8,} ops {seconds:6.2f} s {grown_mib:5} MiB")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--groups", type=int, nargs="+", default=[40_000, 100_000])
    parser.add_argument("--one", choices=("before", "now"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        measured(asked.one, asked.groups[0])
        return 0
    for count in asked.groups:
        for which in ("before", "now"):
            subprocess.run([sys.executable, __file__, "--one", which, "--groups", str(count)], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
