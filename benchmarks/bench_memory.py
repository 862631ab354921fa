"""Predicted peak memory of a step beside what torch's profiler records of it on the CPU, on networks not written here.

    python benchmarks/bench_memory.py [--batch 8] [--threads 1] [--full]

One table: what was recorded for a training step with SGD and momentum, and the error of the prediction for it and for
other ways to take the step. `--full` adds networks of their published size, which takes two minutes and 3 GiB.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from pararev_hw import models
from pararev_hw.costmodels.allocator.workspace import eager_peak_bytes, rule_here
from pararev_hw.tracing import trace_step
from pararev_hw.training.step import OPTIMIZERS, Loop
from tests.helpers.memory_networks import NETWORKS, ResNet, Transformer, UNet, batch_of
from tests.helpers.recorded_memory import Setting, recorded_peak_bytes

SGD = Setting(OPTIMIZERS["sgd"])
SETTINGS: Mapping[str, Setting] = {
    "SGD, momentum": SGD,
    "AdamW, foreach": Setting(OPTIMIZERS["adamw-foreach"]),
    "3 micro-batches": replace(SGD, accumulate=3),
    "3, zeroed in place": replace(SGD, accumulate=3, set_to_none=False),
    "bfloat16": replace(SGD, bfloat16=True),
    "inference": Setting(None),
}

FULL: Mapping[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor]]] = {
    "ResNet-18, 4 x 224 x 224": (lambda: ResNet((2, 2, 2, 2), 64), lambda: torch.randn(4, 3, 224, 224)),
    "ResNet-34, 4 x 160 x 160": (lambda: ResNet((3, 4, 6, 3), 64), lambda: torch.randn(4, 3, 160, 160)),
    "ResNet-18 checkpointed": (lambda: ResNet((2, 2, 2, 2), 64, "plain"), lambda: torch.randn(4, 3, 224, 224)),
    "transformer, 512 x 8 layers": (lambda: Transformer(512, 8, 8), lambda: torch.randint(0, 128, (16, 32))),
    "U-Net, 64 channels": (lambda: UNet(64), lambda: torch.randn(2, 3, 96, 96)),
    "pararevsnn37": (lambda: models.create("pararevsnn37"), lambda: torch.randn(4, 3, 32, 32)),
    "msresnet18": (lambda: models.create("msresnet18"), lambda: torch.randn(4, 3, 32, 32)),
}


def compared(model: nn.Module, x: torch.Tensor, setting: Setting) -> tuple[int, int]:
    """Predicted and recorded peak, bytes."""
    optimizer = setting.make_optimizer
    graph = trace_step(
        model,
        x,
        loop=Loop(
            optimizer=optimizer, accumulate=setting.accumulate, zero_grad="none" if setting.set_to_none else "zero"
        )
        if optimizer is not None
        else None,
        dtype="bfloat16" if setting.bfloat16 else "float32",
    ).graph
    return eager_peak_bytes(graph, "cpu", rule_here(setting.threads)), recorded_peak_bytes(model, x, setting)


def row(make: Callable[[], nn.Module], batch: Callable[[], torch.Tensor], settings: list[Setting]) -> list[float]:
    """Recorded bytes under the first setting, and the signed errors under all; NaN where torch refuses to run."""
    recorded_bytes, errors = math.nan, []
    for setting in settings:
        torch.manual_seed(0)
        try:
            predicted, recorded = compared(make(), batch(), setting)
        except RuntimeError:  # such as oneDNN's LSTM in bfloat16 on a processor without AVX-512
            errors.append(math.nan)
            continue
        errors.append(predicted / recorded - 1)
        if setting is settings[0]:
            recorded_bytes = recorded
    return [recorded_bytes, *errors]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--full", action="store_true")
    given = arguments.parse_args()
    warnings.simplefilter("ignore")  # reentrant checkpointing in inference says that no input needs a gradient
    settings = {name: replace(s, threads=given.threads) for name, s in SETTINGS.items()}
    print(f"| network | recorded | {' | '.join(settings)} |")
    print(f"|---|{'---:|' * (len(settings) + 1)}")
    errors: dict[str, list[float]] = {name: [] for name in settings}
    networks = {name: (make, lambda n=name: batch_of(n, given.batch)) for name, (make, _) in NETWORKS.items()}
    for name, (make, batch) in (networks | (dict(FULL) if given.full else {})).items():
        recorded, *relative = row(make, batch, list(settings.values()))
        cells = ["not run" if math.isnan(error) else f"{error:+.2%}" for error in relative]
        print(f"| {name} | {recorded / 2**20:.1f} MiB | {' | '.join(cells)} |", flush=True)
        for setting, error in zip(settings, relative, strict=True):
            if not math.isnan(error):
                errors[setting].append(abs(error))
    means = [f"{sum(e) / len(e):.2%} / {max(e):.2%}" for e in errors.values()]
    print(f"| mean / worst | | {' | '.join(means)} |")


if __name__ == "__main__":
    main()
