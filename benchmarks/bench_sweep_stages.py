"""What a row of a large sweep costs its workers and the process that gathers it, by stage, and what 10^8 would take.

    python benchmarks/bench_sweep_stages.py [--rows 400000] [--workers 100] [--network pararevsnn37]

A random draw from the space of examples/sweeps/edge.yaml, bandwidth without steps, with three objectives, in one
process; processor seconds of each stage over its rows. Parts are as large as those of 10^8 rows, and stay as they are
(`--one-file`: rewritten as one file, as of up to `limits.ONE_FILE_ROWS`). Fixed costs (tracing the network, orders of
each number of cores, compiled loops) are paid before.
"""

from __future__ import annotations

import argparse
import os
import pickle
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pararev_hw import limits
from pararev_hw.sweeps.analysis import analyse
from pararev_hw.sweeps.problem import prepare
from pararev_hw.sweeps.spec import Sweep, from_yaml
from pararev_hw.sweeps.store import as_arrow, encode, opened
from pararev_hw.sweeps.summary import Part, empty_summary, summary_of

SPACE = Path(__file__).parents[1] / "examples" / "sweeps" / "edge.yaml"
MANY = 100_000_000
PART_ROWS = 32_768  # of parts of a sweep of so many
WORKERS = ("evaluate", "encode", "sum up")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--network", default="pararevsnn37")
    parser.add_argument("--one-file", action="store_true", help="gather the parts in one file")
    asked = parser.parse_args()
    if not asked.one_file:
        limits.ONE_FILE_ROWS = 0
    Sweep.chunk_rows = property(lambda _: PART_ROWS)  # type: ignore[method-assign,assignment]
    text = SPACE.read_text("utf-8").replace("method: grid", f"method: {{name: random, samples: {asked.rows}}}")
    text = text.replace(", steps: 9", "").replace("networks: pararevsnn37", f"networks: {asked.network}")
    sweep = from_yaml(text, str(SPACE), SPACE.parent)
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        began = time.process_time()
        yield
        seconds[name] = seconds.get(name, 0.0) + time.process_time() - began

    with tempfile.TemporaryDirectory() as folder, opened(sweep, Path(folder) / "sweep", fresh=False) as store:
        problem = prepare(sweep, lambda _: None)
        problem.evaluate(problem.rows(*sweep.span(0)))
        store.write_base(problem.base())
        summary = empty_summary(sweep)
        for chunk in range(sweep.chunks):
            start, stop = sweep.span(chunk)
            with stage("evaluate"):
                table = problem.evaluate(problem.rows(start, stop))
            with stage("encode"):
                rows = as_arrow(sweep, start, table)
                data = encode(rows)
            with stage("sum up"):
                sent = pickle.dumps(Part(data, summary_of(sweep, rows)))
            with stage("receive and add"):
                part = pickle.loads(sent)
                summary.add(part.summary)
            with stage("write parts"):
                store.write(chunk, part.data)
        with stage("merge"):
            store.merge()
        with stage("analyse"):
            result = analyse(store, summary, 0, 1.0)
    print(f"{asked.network}, {sweep.rows:,} rows in {sweep.chunks} chunks, {len(sweep.objectives)} objectives, "
          f"{len(result.pareto)} points on the front")  # fmt: skip
    for name, total in seconds.items():
        print(f"{name}: {total / sweep.rows * 1e6:.2f} us a row ({'worker' if name in WORKERS else 'coordinator'})")
    workers_s = sum(seconds[name] for name in WORKERS) / sweep.rows * MANY / asked.workers
    coordinator_s = sum(total for name, total in seconds.items() if name not in WORKERS) / sweep.rows * MANY
    ends_s = (seconds["merge"] + seconds["analyse"]) / sweep.rows * MANY
    print(
        f"10^8 rows on {asked.workers} workers: {workers_s / 60:.1f} min of each worker, {coordinator_s / 60:.1f} min "
        f"of the coordinator, of which {ends_s / 60:.1f} min after the last row"
    )


if __name__ == "__main__":
    main()
