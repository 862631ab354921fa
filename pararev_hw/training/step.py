"""One training step: gradients zeroed, micro-batches forward and backward, the optimizer's step.

optimizer.zero_grad(set_to_none=...)
for _ in range(accumulate):
    (loss(model(*inputs)) / accumulate).backward()
optimizer.step()
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from pararev_hw.documents import shown
from pararev_hw.errors import BadInput, TraceError, unknown_name
from pararev_hw.training.io_forms import tensors_in as tensors_in

MakeOptimizer = Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer]
Step = Callable[[nn.Module, tuple[torch.Tensor, ...], torch.optim.Optimizer], Any]
Loss = Callable[[Any], torch.Tensor]
ZeroGrad = Literal["none", "zero"]
ZERO_GRADS: tuple[ZeroGrad, ...] = ("none", "zero")

OPTIMIZERS: Mapping[str, MakeOptimizer] = {
    # the settings of the RevSNN reference code
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-4, foreach=False),
    "sgd-plain": lambda p: torch.optim.SGD(p, lr=0.1, foreach=False),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3, foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.01, foreach=False),
    "sgd-foreach": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-4, foreach=True),
    "adamw-foreach": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.01, foreach=True),
}


def optimizer_named(name: str) -> MakeOptimizer:
    """The optimizer of that name, made per parameter list. Raises UnknownName."""
    if not isinstance(name, str) or name not in OPTIMIZERS:
        raise unknown_name("optimizer", name, tuple(OPTIMIZERS))
    return OPTIMIZERS[name]


@dataclass(frozen=True, slots=True)
class Loop:
    """How a training step goes.

    `accumulate` micro-batches, all of the shape of the inputs, are run before the optimizer's step. `zero_grad` "none"
    lets gradients go when the step begins, "zero" keeps their memory and fills it with zeros. `step(model, inputs,
    optimizer)` replaces the whole. The default loss is cross-entropy where the network gives `[B, classes]`, else the
    mean square of all it gives.
    """

    optimizer: MakeOptimizer = OPTIMIZERS["sgd"]
    accumulate: int = 1
    zero_grad: ZeroGrad = "none"
    step: Step | None = None
    loss: Loss | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.accumulate <= 1 << 16:
            raise BadInput(f"accumulate is {self.accumulate}: at least 1 micro-batch, at most {1 << 16}")
        if self.zero_grad not in ZERO_GRADS:
            raise unknown_name("way to zero gradients", self.zero_grad, ZERO_GRADS)
        if self.step is not None and (self.accumulate, self.zero_grad) != (1, "none"):
            raise BadInput("a step of your own says itself how it accumulates and zeroes: leave both out")

    def optimizer_of(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of these parameters. Raises BadInput where the function that makes it gives something else."""
        optimizer = self.optimizer(parameters)
        if not isinstance(getattr(optimizer, "param_groups", None), list):
            raise BadInput(f"the optimizer's function gives {shown(optimizer)}: it must give a torch.optim.Optimizer")
        return optimizer

    @property
    def keeps_gradients(self) -> bool:
        """Whether gradients may be there before the step begins."""
        return self.step is not None or self.zero_grad == "zero"


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a training step left: the network's output and the loss of the last micro-batch."""

    out: Any
    loss: Any


def run_training_step(
    loop: Loop,
    model: nn.Module,
    batch: tuple[torch.Tensor, ...],
    optimizer: torch.optim.Optimizer,
    *,
    mode: contextlib.AbstractContextManager[Any],
    cast: contextlib.AbstractContextManager[Any],
    new_target: Callable[[int, torch.device], torch.Tensor],
    micro_batch: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> StepOutput:
    """One training step under `mode`, which sees or fakes the tensors; `cast` is autocast or nothing. Each micro-batch
    runs inside a `micro_batch`.

    `new_target(samples, device)` makes the class labels outside of `mode`; it is called at most once.
    """
    if loop.step is not None:
        with mode, cast:
            return StepOutput(None, loop.step(model, batch, optimizer))
    target: torch.Tensor | None = None
    out: Any = None
    value: Any = None
    with mode:
        optimizer.zero_grad(set_to_none=loop.zero_grad == "none")
    for _ in range(loop.accumulate):
        with micro_batch():
            with mode, cast:
                out = model(*batch)
            tensors = [t for t in tensors_in(out) if t.is_floating_point() and t.requires_grad]
            if not tensors:
                raise TraceError("the network gives no tensor that depends on a trainable parameter: nothing to train")
            if target is None and loop.loss is None and len(tensors) == 1 and tensors[0].dim() == 2:
                target = new_target(tensors[0].shape[0], tensors[0].device)
            with mode:
                with cast:
                    value = _loss(loop, out, tensors, target)
                value.backward()
                del tensors
    with mode:
        optimizer.step()
    return StepOutput(out, value)


def _loss(loop: Loop, out: Any, tensors: Sequence[torch.Tensor], target: torch.Tensor | None) -> Any:
    """Of one micro-batch, as a part of the step's."""
    if loop.loss is not None:
        value = loop.loss(out)
        if not isinstance(value, torch.Tensor) or value.numel() != 1 or not value.requires_grad:
            shape = f"a tensor of shape {list(value.shape)}" if isinstance(value, torch.Tensor) else shown(value)
            raise TraceError(f"the loss is {shape}: it must be a tensor of one element that depends on the output")
    elif target is not None:
        value = nn.functional.cross_entropy(tensors[0], target)
    else:
        value = sum((t.float().square().mean() for t in tensors[1:]), tensors[0].float().square().mean())
    return value / loop.accumulate if loop.accumulate > 1 else value


_LOWERED: Mapping[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast(dtype: str, device: str) -> contextlib.AbstractContextManager[Any]:
    """Autocast on that torch device for "bfloat16" and "float16", else nothing; it may be entered again and again."""
    lowered = _LOWERED.get(dtype)
    return contextlib.nullcontext() if lowered is None else torch.autocast(torch.device(device).type, lowered)


@dataclass(frozen=True, slots=True)
class EagerStep:
    """A network's step as PyTorch runs it on real tensors: training with `optimizer`, inference where that is None."""

    model: nn.Module
    loop: Loop
    optimizer: torch.optim.Optimizer | None
    dtype: str
    device: str

    def __call__(self, inputs: tuple[torch.Tensor, ...], target: torch.Tensor | None = None) -> StepOutput:
        """One step; `target` are the class labels where the loss is cross-entropy. Raises what the network raises."""
        cast = autocast(self.dtype, self.device)
        if self.optimizer is None:
            with torch.no_grad(), cast:
                return StepOutput(self.model(*inputs), None)

        def labels(samples: int, device: torch.device) -> torch.Tensor:
            if target is not None:
                return target
            return torch.zeros(samples, dtype=torch.int64, device=device)

        nothing = contextlib.nullcontext()
        return run_training_step(
            self.loop, self.model, inputs, self.optimizer, mode=nothing, cast=cast, new_target=labels
        )

    def optimizer_state(self) -> list[torch.Tensor]:
        """The optimizer's tensors, as far as they exist: its first step makes them."""
        slots = {} if self.optimizer is None else self.optimizer.state
        return [t for values in slots.values() for t in values.values() if isinstance(t, torch.Tensor)]


def eager_step(model: nn.Module, loop: Loop | None, dtype: str, device: str) -> EagerStep:
    """The step of a network that is on its device already; `loop` None is inference."""
    if loop is None:
        return EagerStep(model, Loop(), None, dtype, device)
    trained = [p for p in model.parameters() if p.requires_grad]
    return EagerStep(model, loop, loop.optimizer_of(trained), dtype, device)
