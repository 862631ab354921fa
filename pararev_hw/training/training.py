"""Training a network on a `Dataset`, and measuring what it has learnt.

The defaults are RevSNN's for CIFAR (arXiv 2312.07922): SGD at 0.1 with momentum 0.9, weight decay 1e-4, batches of 32.
The same seed, data, initial weights, device and thread count give the same run, bit for bit on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from pararev_hw.errors import BadInput, Diverged, unknown_name
from pararev_hw.training.data import Dataset

Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["cosine", "multistep", "constant"]


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass over the training part gave. Accuracies are shares, 0..1."""

    epoch: int  # from 1
    learning_rate: float
    loss: float  # mean cross-entropy over the batches, while training
    train_accuracy: float  # over the batches too, each before its own update
    test_accuracy: float  # after the epoch, in eval mode


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """How a network is trained. `seed` sets the order of the samples and what the model draws (dropout); initial
    weights are the caller's. "multistep" divides the rate by 10 at a half and at three quarters of the epochs; "adamw"
    uses betas of 0.9 and 0.999 and no `momentum`.

    Raises BadInput for settings that cannot be used.
    """

    epochs: int
    batch: int = 32
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    optimizer: Optimizer = "sgd"
    schedule: Schedule = "cosine"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise BadInput(f"epochs is {self.epochs}: at least 1 is needed")
        if not self.lr > 0:
            raise BadInput(f"lr is {self.lr}: it must be above 0")
        if self.optimizer not in get_args(Optimizer):
            raise unknown_name("optimizer", self.optimizer, get_args(Optimizer))
        if self.schedule not in get_args(Schedule):
            raise unknown_name("learning-rate schedule", self.schedule, get_args(Schedule))


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """How a network was trained, and what came out epoch by epoch."""

    epochs: tuple[Epoch, ...]
    settings: TrainingSettings
    device: str
    data: str

    @property
    def test_accuracy(self) -> float:
        """After the last epoch, not the best of all: the test part must not choose."""
        return self.epochs[-1].test_accuracy


def train(
    model: nn.Module,
    data: Dataset,
    settings: TrainingSettings,
    *,
    device: str = "cpu",
    progress: Callable[[Epoch], None] | None = None,
) -> TrainingRun:
    """Trains `model` in place and gives the record of it. `progress` is called after every epoch.

    The model takes `[B, C, H, W]`, or `[T, B, C, H, W]` where the data are event frames, and gives logits
    `[B, classes]`. It ends on `device` and in eval mode, after an error too. Each epoch the samples that do not fill a
    last batch are left out.

    Raises BadInput for a batch, a device or a model that cannot be trained, Diverged where the loss is not finite.
    """
    if not 1 <= settings.batch <= len(data.train_x):
        raise BadInput(
            f"batch is {settings.batch}: it must lie in 1..{len(data.train_x)}, the number of training samples"
        )
    stepper = _optimizer(model, settings)
    place = _place(device)
    model.to(place)
    order = torch.Generator().manual_seed(settings.seed)

    history: list[Epoch] = []
    try:
        with _seeded(settings.seed, place):
            for number in range(1, settings.epochs + 1):
                lr_now = settings.lr * _rate_factor(settings.schedule, number - 1, settings.epochs)
                for group in stepper.param_groups:
                    group["lr"] = lr_now
                loss, train_accuracy = _epoch(model, data, stepper, settings.batch, order, place, number)
                test_accuracy = evaluate(model, data.test_x, data.test_y)
                history.append(Epoch(number, lr_now, loss, train_accuracy, test_accuracy))
                if progress is not None:
                    progress(history[-1])
    finally:
        model.eval()
    return TrainingRun(tuple(history), settings, str(place), data.source)


def evaluate(model: nn.Module, x: Tensor, y: Tensor, *, batch: int = 256) -> float:
    """The share of samples whose largest logit is their label, in eval mode and on the model's device.

    `x` is `[N, C, H, W]` or `[N, T, C, H, W]`. Every module's training mode is left as it was.
    """
    if len(x) == 0 or len(x) != len(y):
        raise BadInput(f"{len(x)} inputs and {len(y)} labels: as many of each are needed, at least one")
    if batch < 1:
        raise BadInput(f"batch is {batch}: at least 1 is needed")
    first = next(model.parameters(), None)
    place = first.device if first is not None else torch.device("cpu")
    correct = 0
    with _eval_mode(model), torch.no_grad():
        for at in range(0, len(x), batch):
            logits = model(_fed(x[at : at + batch], place))
            correct += int((logits.argmax(dim=1) == y[at : at + batch].to(place)).sum())
    return correct / len(x)


def _epoch(
    model: nn.Module,
    data: Dataset,
    stepper: torch.optim.Optimizer,
    batch: int,
    order: torch.Generator,
    place: torch.device,
    number: int,
) -> tuple[float, float]:
    """One pass over the training part: mean loss and accuracy."""
    model.train()
    picks = torch.randperm(len(data.train_x), generator=order)
    steps = len(picks) // batch
    total_loss, correct = 0.0, 0
    for step in range(steps):
        pick = picks[step * batch : (step + 1) * batch]
        y = data.train_y[pick].to(place)
        stepper.zero_grad()
        logits = model(_fed(data.train_x[pick], place))
        loss = nn.functional.cross_entropy(logits, y)
        value = loss.item()
        if not torch.isfinite(loss):
            raise Diverged(
                f"the loss is {value} in epoch {number}, step {step + 1} of {steps}: try a smaller learning rate "
                f"than {stepper.param_groups[0]['lr']:g}, and look for values that are not finite in the data"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        stepper.step()
        total_loss += value
        correct += int((logits.detach().argmax(dim=1) == y).sum())
    return total_loss / steps, correct / (steps * batch)


def _place(device: str) -> torch.device:
    """The device of that name, tried out."""
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as problem:  # an AssertionError where torch was built without CUDA
        raise BadInput(f"device {device!r} cannot be used here: give one that torch finds, such as cpu") from problem
    return place


def _fed(x: Tensor, place: torch.device) -> Tensor:
    """A batch as the networks take it: time first where there is one."""
    return (x.movedim(1, 0) if x.ndim == 5 else x).to(place)


def _optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise BadInput(f"{type(model).__name__} has no parameter that asks for a gradient: there is nothing to train")
    lr, decay = settings.lr, settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=settings.momentum, weight_decay=decay)
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=decay)


def _rate_factor(schedule: Schedule, epoch: int, epochs: int) -> float:
    """The learning rate of epoch `epoch` (from 0) over the initial one."""
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * epoch / epochs))
    if schedule == "multistep":
        return 0.1 ** ((2 * epoch >= epochs) + (4 * epoch >= 3 * epochs))
    return 1.0


@contextmanager
def _seeded(seed: int, place: torch.device) -> Iterator[None]:
    """Torch's own generators start at `seed` inside, and are as before afterwards."""
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; every module's own mode as before afterwards."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
