"""What a real step allocates, as torch's own profiler records it on the CPU: the oracle of the memory predictions.

It shares nothing with the tracer: the training loop is written out here as a user would write it.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class Setting:
    """How a step is taken."""

    make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None  # None: inference
    accumulate: int = 1
    set_to_none: bool = True
    bfloat16: bool = False
    threads: int = 1


def recorded_peak_bytes(model: nn.Module, x: torch.Tensor, setting: Setting) -> int:
    """The highest sum of live allocations in one steady step, what was there before it included."""
    model.train(setting.make_optimizer is not None)
    optimizer = None if setting.make_optimizer is None else setting.make_optimizer(list(model.parameters()))
    y = torch.randint(0, 10, (x.shape[0],))

    def step() -> None:
        cast = torch.autocast("cpu", torch.bfloat16) if setting.bfloat16 else contextlib.nullcontext()
        if optimizer is None:
            with torch.no_grad(), cast:
                model(x)
            return
        optimizer.zero_grad(set_to_none=setting.set_to_none)
        for _ in range(setting.accumulate):
            with cast:
                out = model(x)
                loss = nn.functional.cross_entropy(out, y) if out.dim() == 2 else out.float().square().mean()
                if setting.accumulate > 1:
                    loss = loss / setting.accumulate
            loss.backward()
        optimizer.step()

    threads = torch.get_num_threads()
    torch.set_num_threads(setting.threads)
    try:
        step()
        step()
        if optimizer is not None and setting.set_to_none:
            optimizer.zero_grad(set_to_none=True)
        kept = [*model.parameters(), *model.buffers(), x, y]
        kept += [p.grad for p in model.parameters() if p.grad is not None]
        if optimizer is not None:
            kept += [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
        gc.collect()
        gc.disable()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as found:
            step()
    finally:
        gc.enable()
        torch.set_num_threads(threads)
    live = peak = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    return peak + sum(storages.values())
