"""What PyTorch's own loop takes once a step, beside any step: that of a network of a single layer.

Zeroing gradients, the loss, the start of a backward pass and the optimizer take some 150 us where they ran a moment
ago. After a step of milliseconds little of their code and objects is left in the caches, the less the more neighbours
share them, and they take three times as long. So they are timed where they stand, right after another step.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from pararev_hw.execution.replay_timing import in_program_order
from pararev_hw.tracing import optimizer_named, trace_step
from pararev_hw.training.step import Loop, eager_step


class SingleLayer(nn.Module):
    """A layer of twelve weights, on the mean of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(x.mean((2, 3)))
        return logits


def single_input() -> torch.Tensor:
    return torch.rand(2, 3, 8, 8)


class SingleStep:
    """The single layer's step, of training or of inference: `take_one`, called after each of many other steps, times it
    as PyTorch's loop runs it and replayed, in turns."""

    def __init__(self, *, training: bool) -> None:
        model, x = SingleLayer().train(training), single_input()
        loop = Loop(optimizer_named("sgd")) if training else None
        replay = in_program_order(trace_step(model, x, loop=loop).graph)
        step, target = eager_step(model, loop, "float32", "cpu"), torch.zeros(len(x), dtype=torch.int64)
        self._ways: tuple[Callable[[], float], ...] = (
            lambda: _thread_s(lambda: step((x,), target)),
            lambda: replay()["whole"],
        )
        self._seconds: tuple[list[float], ...] = ([], [])

    def take_one(self) -> None:
        turn = len(self._seconds[0]) - len(self._seconds[1])
        self._seconds[turn].append(self._ways[turn]())

    @property
    def beside_s(self) -> float | None:
        """Seconds of the loop beyond the replay; None where they were not timed."""
        if not all(self._seconds):
            return None
        loop_s, replay_s = map(statistics.median, self._seconds)
        return max(0.0, loop_s - replay_s)


def _thread_s(run: Callable[[], object]) -> float:
    begun = time.thread_time()
    run()
    return time.thread_time() - begun
