"""What lanes gain on a CPU: `python benchmarks/bench_execute.py [CASE ...]`, on a quiet machine.

A stack of ParaRev pairs of 64 channels at 32x32, T = 4, runs its step on one lane, on two lanes, on one lane with two
threads inside every operation, and as PyTorch's own loop, in turns; ratios are taken round by round and given as median
and quartiles, beside what was predicted before anything ran. `overhead` is the time of an op that does next to nothing,
in the executor and in PyTorch's own loop.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from pararev_hw import execution
from pararev_hw.measurement.environment import cores
from pararev_hw.models import IF
from pararev_hw.models.networks import SpikingResNet, Stem, reversible_stage
from pararev_hw.trace_options import TraceOptions

# mode, pairs, batch, steps
CASES = {
    "infer-b4": ("infer", 6, 4, 12),
    "infer-b16": ("infer", 6, 16, 6),
    "train-b4": ("train", 6, 4, 5),
    "train-b16": ("train", 6, 16, 3),
    "train-small": ("train", 6, 1, 10),
}


def stack(timesteps: int = 4, pairs: int = 6, channels: int = 64) -> nn.Module:
    """Stem, one reversible stage, head."""
    return SpikingResNet(
        Stem(3, 2 * channels, stride=1, pool=None),
        [reversible_stage(IF, channels, pairs, coupling="pararev")],
        [],
        IF(),
        2 * channels,
        timesteps=timesteps,
        num_classes=10,
    )


def case(name: str, scheduler: str, lanes: int) -> None:
    """One line of the table."""
    mode, _, batch, steps = CASES[name]
    hardware = execution.this_machine("cpu", lanes)
    options = TraceOptions(mode=mode, batch=batch, timesteps=4, input_shape=(3, 32, 32), granularity="block")
    job = execution.prepare(f"{Path(__file__).resolve()}:stack", options)
    result = execution.document(execution.execute(job, hardware, scheduler, lanes=lanes, steps=steps, warm_up=1))
    predicted, measured = result["predicted"], result["measured"]

    def shown(quantity: str) -> str:
        ratio = measured[quantity]
        return f"{ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"

    ahead = result["choice"]
    both = ("sequential_s", "parallel_s")
    one, many = (f"{measured[n]['median'] * 1e3:8.1f} ms (predicted {predicted[n] * 1e3:.1f})" for n in both)
    print(
        f"{name:12} one lane {one}  {lanes} lanes {many}"
        f"  over one lane {shown('speedup')} (predicted {predicted['speedup']:.3f})"
        f"  over threads {shown('speedup_over_threads')} (predicted {ahead['predicted_ratio']:.3f})"
        f"  loop over one lane {shown('sequential_over_loop')}"
        f"  overlap {measured['overlap']['median']:.2f} (predicted {predicted['overlap']:.2f})"
        f"  chose {ahead['predicted']}, right was {ahead['measured']}",
        flush=True,
    )


class Tiny(nn.Module):
    """Operations on four numbers: nothing but overhead."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p, q = x * self.a, x * self.b
        for _ in range(200):
            p, q = p * 1.001, q * 1.001
        return p + q


def tiny(batch: int = 1) -> tuple[nn.Module, torch.Tensor]:
    """Two independent chains of tiny operations, and their input."""
    return Tiny(), torch.ones(1, 4)


def overhead(lanes: int) -> None:
    """Microseconds per op of a step of ops that do next to nothing."""
    hardware = execution.this_machine("cpu", lanes)
    job = execution.prepare(f"{Path(__file__).resolve()}:tiny", TraceOptions(granularity="op", optimizer="sgd-plain"))
    ops = len(job.graph.ops)
    result = execution.document(execution.execute(job, hardware, "asap", lanes=lanes, steps=30))
    per_op = {n: result["measured"][f"{n}_s"]["median"] / ops * 1e6 for n in ("sequential", "parallel", "loop")}
    print(f"overhead     {ops} ops, each a task: " + ", ".join(f"{n} {t:.2f} us per op" for n, t in per_op.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=["overhead", "infer-b4", "infer-b16", "train-b4"])
    parser.add_argument("--scheduler", default="heft")
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument(
        "--give-back", action="store_true", help="let malloc give freed memory back, as it does by default"
    )
    arguments = parser.parse_args()
    if not arguments.give_back:
        execution.keep_memory()
    print(f"{platform.processor() or platform.machine()}, {cores()} cores, torch {torch.__version__}")
    for name in arguments.cases:
        begun = time.perf_counter()
        run: Callable[[], None]
        run = (
            (lambda: overhead(arguments.lanes))
            if name == "overhead"
            else (lambda n=name: case(n, arguments.scheduler, arguments.lanes))
        )
        run()
        print(f"             {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
