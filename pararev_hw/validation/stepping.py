"""The real step of a network, ready to be run again and again: eager, or recorded once as a CUDA graph and replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pararev_hw.cuda_calls import CUDA, Cuda
from pararev_hw.errors import Diverged
from pararev_hw.training.step import Loop, eager_step, optimizer_named, tensors_in

_BEFORE_CAPTURE = 3  # steps on a side stream, as torch's documentation on CUDA graphs asks for


@dataclass(frozen=True, slots=True)
class RealStep:
    """`run` is one whole step and gives its loss (a prediction's outputs); `forget` lets gradients go, as a step does
    at its start; `persistent` are the tensors that outlive a step, state of the optimizer included once it exists."""

    run: Callable[[], torch.Tensor]
    forget: Callable[[], None]
    persistent: Callable[[], list[torch.Tensor]]


def real_step(
    model: nn.Module,
    inputs: Sequence[torch.Tensor],
    *,
    mode: str,
    dtype: str,
    optimizer: str,
    device: str,
    samples: int,
    classes: int,
) -> RealStep:
    """The step that the tracer traces, on real tensors: forward, cross-entropy, backward, update; or forward alone.

    `inputs` give shapes alone and are filled with normal numbers, the targets of the `samples` are drawn.
    """
    model = model.to(device).train(mode == "train")
    batch = [torch.randn(x.shape, device=device) for x in inputs]
    step = eager_step(model, Loop(optimizer_named(optimizer)) if mode == "train" else None, dtype, device)
    target = torch.randint(0, classes, (samples,), device=device)

    def run() -> torch.Tensor:
        output = step(tuple(batch), target)
        value = output.out if output.loss is None else output.loss.detach()
        return tensors_in(value)[0]

    def forget() -> None:
        if step.optimizer is not None:
            step.optimizer.zero_grad(set_to_none=True)

    def persistent() -> list[torch.Tensor]:
        return [
            *model.parameters(),
            *model.buffers(),
            *step.optimizer_state(),
            *batch,
            *([target] if mode == "train" else []),
        ]

    return RealStep(run, forget, persistent)


def replayed(step: RealStep, cuda: Cuda = CUDA) -> RealStep:
    """The step recorded as a CUDA graph: `run` replays it, with no host between its kernels."""
    side = cuda.stream()
    side.wait_stream(cuda.current_stream())
    with cuda.on(side):
        for _ in range(_BEFORE_CAPTURE):
            step.run()
    cuda.current_stream().wait_stream(side)
    step.forget()
    results: list[torch.Tensor] = []
    play = cuda.capture(lambda: results.append(step.run()))
    (result,) = results

    def replay() -> torch.Tensor:
        play()
        return result

    return RealStep(replay, lambda: None, lambda: [*step.persistent(), result])


def check_finite(result: torch.Tensor, steps: int) -> None:
    """Raises Diverged where a step's loss or outputs are not finite numbers."""
    if not bool(torch.isfinite(result).all()):
        place = "its loss is" if result.dim() == 0 else "its outputs hold"
        value = result.flatten()[~torch.isfinite(result.flatten())][0].item()
        raise Diverged(f"{place} {value} after {steps} steps")
