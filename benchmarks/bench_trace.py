"""How long tracing a training step takes, beside the same step on plain fake tensors, and whether it is linear in ops.

    python benchmarks/bench_trace.py [--repeats 3] [--names pararevsnn21 pararevsnn165]

Each measurement is a process of its own on one thread, so that peak memory is that of one trace. `fake` is the plain
run of the same step under torch's FakeTensorMode, nothing recorded; ratios are of medians taken in one run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

_ONE = """
import json, resource, sys, time
import torch
from pararev_hw.torch_private import FakeTensorMode
from pararev_hw import models
from pararev_hw.tracing import trace_step
from pararev_hw.training.step import OPTIMIZERS

name, kind, timesteps = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
with torch.device("meta"):
    model, warm = models.create(name, timesteps=timesteps), models.create("pararevsnn21", width=0.0625)
shape = (32, 3, 32, 32)
trace_step(warm, torch.empty(2, 3, 16, 16))  # first use of torch's fake tensors imports a second of modules

def plain():
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = models.create(name, timesteps=timesteps)
        optimizer = OPTIMIZERS["sgd"](list(fake.parameters()))
        x, y = torch.empty(shape), torch.empty(32, dtype=torch.int64)
        began = time.perf_counter()
        torch.nn.functional.cross_entropy(fake(x), y).backward()
        optimizer.step()
        return time.perf_counter() - began, 0

def traced():
    began = time.perf_counter()
    graph = trace_step(model, torch.empty(shape, device="meta")).graph
    return time.perf_counter() - began, len(graph.ops)

seconds, ops = plain() if kind == "fake" else traced()
print(json.dumps({"s": seconds, "ops": ops, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


def once(name: str, kind: str, timesteps: int) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [sys.executable, "-c", _ONE, name, kind, str(timesteps)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    numbers: dict[str, float] = json.loads(out.stdout.splitlines()[-1])
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--names", nargs="+", default=["pararevsnn21:4", "pararevsnn69:4", "pararevsnn165:4", "pararevsnn165:16"]
    )
    asked = parser.parse_args()
    heads = ("network", "T", "ops", "trace s", "spread", "us/op", "fake s", "ratio", "peak GiB")
    print("{:>16} {:>3} {:>7} {:>8} {:>7} {:>6} {:>7} {:>6} {:>9}".format(*heads))
    for entry in asked.names:
        name, _, steps = entry.partition(":")
        timesteps = int(steps or 4)
        runs = [(once(name, "trace", timesteps), once(name, "fake", timesteps)) for _ in range(asked.repeats)]
        ours, plain = (sorted(r[k]["s"] for r in runs) for k in (0, 1))
        median, ops = statistics.median(ours), int(runs[0][0]["ops"])
        peak = max(r[0]["peak_bytes"] for r in runs) / 2**30
        spread = (ours[-1] - ours[0]) / median
        print(
            f"{name:>16} {timesteps:>3} {ops:>7} {median:>8.2f} {spread:>7.0%} {1e6 * median / ops:>6.0f} "
            f"{statistics.median(plain):>7.2f} {median / statistics.median(plain):>6.2f} {peak:>9.2f}"
        )


if __name__ == "__main__":
    main()
